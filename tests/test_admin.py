"""The private application by itself: health, the reasons not to be ready, and metrics read from files of other processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from receiving import Answer, another, ask, listening, receiving, request, samples

from bridge import admin as admin_module
from bridge.admin import Admin
from bridge.connections import Runner, Server
from bridge.journal import Journal
from bridge.journal.sqlite.journal import SqliteJournal
from bridge.model import Attempt, Outcome, Settlement, State
from bridge.settings import Settings, SourceSettings

# Connections.
MOST = 20
COUNT = """
from bridge.metrics import Metrics
metrics = Metrics()
metrics.announce_receiving(["stripe"])
metrics.deliveries.labels("stripe", "accepted").inc(2)
metrics.ack_seconds.labels("stripe").observe(0.003)
"""


class Private:
    """An Admin at a port, and what it is told."""

    def __init__(self, folder: Path, store: Journal | None) -> None:
        self.journal, self.directory = store, folder / "metrics"
        self.settings = Settings()
        self.unready: list[str] = []
        self.held = ""
        self.receiving = True
        self.now = 1_767_225_600_000
        self.port = 0

    async def get(self, path: str, **headers: str) -> Answer:
        return await ask(self.port, request("GET", path, headers=headers))

    async def metrics(self) -> dict[tuple[str, ...], float]:
        answered = await self.get("/metrics")
        assert answered.status == 200
        assert answered.headers["content-type"].startswith("text/plain; version=")
        return samples(answered.body.decode())


@asynccontextmanager
async def private(folder: Path, store: Journal | None) -> AsyncIterator[Private]:
    found = Private(folder, store)
    found.directory.mkdir()
    admin = Admin(
        settings=lambda: found.settings,
        journal=lambda: found.journal,
        unready=lambda: found.unready,
        held=lambda: found.held,
        receiving=lambda: found.receiving,
        metrics_directory=str(found.directory),
        clock=lambda: found.now,
    )
    async with listening(Runner(admin.application(), most=MOST, access_log=None)) as found.port:
        yield found


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Private]:
    store = SqliteJournal(tmp_path / "bridge.db")
    await store.census()
    async with private(tmp_path, store) as found:
        yield found
    await store.close()


async def test_it_lives(admin: Private) -> None:
    answered = await admin.get("/healthz")
    assert (answered.status, answered.body) == (200, b"ok\n")


async def test_it_is_ready_when_nothing_speaks_against_it(admin: Private) -> None:
    answered = await admin.get("/readyz")
    assert (answered.status, answered.body) == (200, b"ready\n")


async def test_every_reason_not_to_be_ready_has_a_line(admin: Private) -> None:
    admin.unready = ["the receiver is not running"]
    admin.held = "answered 401: Event key not found"
    admin.journal = None
    answered = await admin.get("/readyz")
    assert answered.status == 503
    assert answered.body.decode().splitlines() == [
        "the receiver is not running",
        "forwarding is held: answered 401: Event key not found",
        "deliveries can't be stored: the journal is not open",
    ]
    assert (await admin.get("/healthz")).status == 200, "to start it again would not help"


async def test_a_fault_of_the_configuration_is_a_metric_too(admin: Private) -> None:
    assert (await admin.metrics())["bridge_forwarding_held",] == 0
    admin.held = "answered 401"
    assert (await admin.metrics())["bridge_forwarding_held",] == 1


async def test_whether_deliveries_are_received_is_a_metric_too(admin: Private) -> None:
    assert (await admin.metrics())["bridge_receiving",] == 1
    admin.receiving = False
    assert (await admin.metrics())["bridge_receiving",] == 0


async def test_what_processes_counted_is_summed_also_of_those_that_are_gone(admin: Private) -> None:
    count(admin.directory)
    count(admin.directory)
    found = await admin.metrics()
    assert found["bridge_deliveries_total", "accepted", "stripe"] == 4
    assert found["bridge_deliveries_total", "duplicate", "stripe"] == 0, "announced"
    assert found["bridge_ack_seconds_count", "stripe"] == 2
    assert found["bridge_ack_seconds_bucket", "0.005", "stripe"] == 2


async def test_a_process_that_starts_just_now_does_not_hide_the_others(admin: Private) -> None:
    """prometheus_client makes its file empty, and fills it a moment later; killed in between, it stays so."""
    count(admin.directory)
    (admin.directory / "counter_1.db").touch()
    assert (await admin.metrics())["bridge_deliveries_total", "accepted", "stripe"] == 2


async def test_metrics_are_there_while_the_journal_is_not(admin: Private) -> None:
    for file in admin.directory.parent.glob("bridge.db*"):
        file.unlink()
    found = await admin.metrics()
    assert found["bridge_forwarding_held",] == found["bridge_journal_readable",] == 0
    assert ("bridge_journal_entries", "pending") not in found, "no number is better than a wrong one"
    found = await admin.metrics()
    assert found["bridge_journal_entries", "pending"] == 0
    assert found["bridge_journal_readable",] == 1


async def test_the_age_of_the_oldest_pending_entry(tmp_path: Path) -> None:
    async with receiving(tmp_path) as received, private(tmp_path, received.store) as admin:
        assert (await admin.metrics())["bridge_oldest_pending_seconds",] == 0
        for n in range(2):
            await received.post("stripe", another("stripe", n))
            received.now += 5_000
        admin.now = received.now
        found = await admin.metrics()
        assert found["bridge_oldest_pending_seconds",] == 10
        assert found["bridge_journal_entries", "pending"] == 2
        admin.now = received.now - 60_000
        assert (await admin.metrics())["bridge_oldest_pending_seconds",] == 0, "a clock set back makes nothing young"


async def test_the_age_of_the_oldest_that_waits_for_no_time_of_its_own(tmp_path: Path) -> None:
    """`raise Retry(after=3600)` on a bridge with nothing else to do is no reason to wake anybody."""
    async with receiving(tmp_path) as received, private(tmp_path, received.store) as admin:
        assert (await admin.metrics())["bridge_oldest_due_seconds",] == 0
        await received.post("stripe", another("stripe", 1))
        admin.now = received.now + 700_000
        assert (await admin.metrics())["bridge_oldest_due_seconds",] == 700
        [entry] = await received.store.claim(1, lease=60_000)
        assert (await admin.metrics())["bridge_oldest_due_seconds",] == 700, "it is held, and may be so for ever"
        later = Attempt(at=admin.now, outcome=Outcome.POSTPONED)
        postponed = Settlement(seq=entry.seq, token=entry.token, state=State.PENDING, wait=3_600_000, attempt=later)
        await received.store.settle([postponed])
        found = await admin.metrics()
        assert (found["bridge_oldest_due_seconds",], found["bridge_oldest_pending_seconds",]) == (0, 700)


@pytest.mark.parametrize("path", ["/metrics", "/", "/admin", "/healthz/", "//healthz", "/metrics?x=/healthz"])
async def test_where_a_token_is_set_it_is_asked_for_before_anything_is_told(admin: Private, path: str) -> None:
    admin.settings = Settings(admin_token=("t0ken",))
    answered = await admin.get(path)
    assert (answered.status, answered.headers["www-authenticate"]) == (401, "Bearer")
    assert b"bridge" not in answered.body


@pytest.mark.parametrize(
    "sent", ["", "t0ken", "Bearer", "Bearer t0ke", "Bearer t0ken2", "Bearer new,t0ken", "Basic t0ken", "Bearer t\xff"]
)
async def test_no_other_token_will_do(admin: Private, sent: str) -> None:
    admin.settings = Settings(admin_token=("t0ken", "new"))
    assert (await admin.get("/metrics", Authorization=sent)).status == 401


@pytest.mark.parametrize("sent", ["Bearer t0ken", "bearer  t0ken", "Bearer new", "Bearer nеu"])
async def test_each_of_the_tokens_opens_the_private_listener(admin: Private, sent: str) -> None:
    admin.settings = Settings(admin_token=("t0ken", "new", "nеu"))
    assert (await admin.get("/metrics", Authorization=sent)).status == 200


async def test_health_is_told_to_those_who_have_no_token_to_send(admin: Private) -> None:
    admin.settings = Settings(admin_token=("t0ken",))
    assert (await admin.get("/healthz")).status == 200
    assert (await admin.get("/readyz")).status == 200


async def test_the_journal_is_asked_once_a_second_however_many_ask_us(
    admin: Private, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may, and each time something is stored."""
    asked = 0
    check = SqliteJournal.check

    async def counted(journal: SqliteJournal) -> None:
        nonlocal asked
        asked += 1
        await check(journal)

    monkeypatch.setattr(SqliteJournal, "check", counted)
    answers = await asyncio.gather(*(admin.get("/readyz") for _ in range(20)))
    assert ({answer.status for answer in answers}, asked) == ({200}, 1)
    monkeypatch.setattr(admin_module, "_CHECK_EVERY", 0.0)
    assert (await admin.get("/readyz")).status == 200
    assert asked == 2


async def test_connections_that_say_nothing_keep_nobody_out(admin: Private) -> None:
    idle = [await asyncio.open_connection("127.0.0.1", admin.port) for _ in range(MOST + 5)]
    assert (await admin.get("/healthz")).status == 200
    closed = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in idle[:5])), 5)
    assert closed == [b""] * 5, "those that came first, and said nothing for longest"
    for _, writer in idle:
        writer.close()


async def test_a_connection_that_says_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Server.drop_the_silent.__kwdefaults__ is not None
    monkeypatch.setitem(Server.drop_the_silent.__kwdefaults__, "within", 0.1)
    async with private(tmp_path, None) as admin:
        reader, writer = await asyncio.open_connection("127.0.0.1", admin.port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_each_source_is_told_with_its_provider(admin: Private) -> None:
    admin.settings = Settings(sources={"shop": SourceSettings(provider="stripe", secrets=("s",))})
    assert (await admin.metrics())["bridge_source_info", "stripe", "shop"] == 1


def count(directory: Path) -> None:
    """In a process of its own, which ends."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
    subprocess.run([sys.executable, "-c", COUNT], env=environment, check=True)

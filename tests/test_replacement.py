"""New processes take the place of the old ones: under load nobody notices, whatever else happens just then."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import postgres
import pytest
from load import load
from processes import children, command_line, descendants, is_alive, send
from reloading import hang_up, taken, told, without_secret
from service import SECRETS, Service, delivery, elapsed, service, until

from bridge import providers
from bridge.clock import wall_clock
from bridge.model import State
from bridge.stand_in import StandIn


def those(of: Service, name: str) -> list[int]:
    return [pid for pid in children(of.pid) if name in command_line(pid)]


@pytest.fixture(params=["sqlite", "postgresql"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/bridge.db"
    url: str = request.getfixturevalue("schema")
    return url


@pytest.fixture
def schema() -> Iterator[str]:
    with postgres.schema() as url:
        yield url


async def test_nobody_waits_or_is_sent_away_and_it_is_ready_all_the_time(
    tmp_path: Path, api: StandIn, journal: str
) -> None:
    """Whoever keeps a connection neither: with the last answer on it comes word that it is the last one."""
    unready: list[str] = []
    unanswered: list[str] = []

    async def look(at: Service) -> None:
        while True:
            answered = await at.ready()
            if answered.status != 200:
                unready.append(answered.text)

    async with service(tmp_path, api.url, {"BRIDGE_JOURNAL": journal}) as running:
        looking = asyncio.create_task(look(running))
        async with load(running, kept=16, unanswered=unanswered) as acknowledged:
            for times in range(1, 4):
                hang_up(running)
                assert await taken(running, times) == ["nothing; transforms are loaded anew"] * times
        looking.cancel()
        assert (unanswered, unready) == ([], [])
        found = await running.metrics()
        answered = sum(found["bridge_deliveries_total", each, "stripe"] for each in ("accepted", "duplicate"))
        assert answered >= len(acknowledged) > 0
        slow = found["bridge_ack_seconds_count", "stripe"] - found["bridge_ack_seconds_bucket", "1.0", "stripe"]
        assert slow == 0
        events = {line["event"] for line in running.log()} - {"journal.created"}
        assert events == {"service.started", "configuration.taken"}
        entries = await running.until_finished(len(acknowledged))
        assert acknowledged <= {entry.id for entry in entries.values() if entry.state is State.FORWARDED}


async def test_the_new_forwarder_does_not_wait_for_the_old_receiver(tmp_path: Path, api: StandIn) -> None:
    """Which has a request that is on its way for long."""
    async with service(tmp_path, api.url) as running:
        [receiver], [forwarder] = those(running, "receiver"), those(running, "forwarder")
        address = urlsplit(running.public)
        _, slow = await asyncio.open_connection(address.hostname, address.port)
        slow.write(b"POST /webhooks/stripe HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n")
        await slow.drain()
        await asyncio.sleep(0.2)
        hang_up(running)
        await until(lambda: [pid for pid in those(running, "forwarder") if pid != forwarder])
        assert is_alive(receiver)
        assert (await running.post(delivery(1))).status == 200
        await api.received(1)
        assert is_alive(receiver)
        slow.close()
        await taken(running)


@pytest.mark.parametrize("stopped", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("here", ["half its head", "half its body"])
async def test_a_webhook_that_is_half_here_is_read_to_its_end(
    tmp_path: Path, api: StandIn, stopped: int, here: str
) -> None:
    """Intercom would send it once more, and that soon."""
    async with service(tmp_path, api.url) as running:
        body = delivery(1)
        address = urlsplit(running.public)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        signed = "".join(f"{name}: {value}\r\n" for name, value in signature(body).items())
        head = f"POST /webhooks/stripe HTTP/1.1\r\nHost: here\r\n{signed}Content-Length: {len(body)}\r\n\r\n"
        whole, half = head.encode() + body, 30 if here == "half its head" else len(head) + 20
        writer.write(whole[:half])
        await writer.drain()
        await asyncio.sleep(0.2)
        running.send_signal(stopped)
        if stopped == signal.SIGHUP:
            [old] = those(running, "receiver")
            await until(lambda: old not in those(running, "receiver") or len(those(running, "receiver")) == 2)
        await asyncio.sleep(2)
        writer.write(whole[half:])
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 ") and b"\r\nConnection: close\r\n" in answer
        if stopped == signal.SIGTERM:
            assert await running.wait() == 0
        assert set(await running.entries()) == {"evt_1"}


def signature(body: bytes) -> dict[str, str]:
    secret = SECRETS["STRIPE_WEBHOOK_SECRET"].encode()
    return dict(providers.load()["stripe"].scheme.sign(body, secret=secret, now=wall_clock()))


async def test_a_receiver_that_hangs_is_replaced_and_killed(tmp_path: Path, api: StandIn) -> None:
    async with service(tmp_path, api.url) as running:
        [receiver] = those(running, "receiver")
        send(signal.SIGSTOP, [receiver])
        hang_up(running)
        await taken(running)
        assert not is_alive(receiver)
        assert [line["killed"] for line in running.log() if line["event"] == "process.killed"] == ["receiver"]
        assert (await running.post(delivery(1))).status == 200
        await api.received(1)


@pytest.mark.parametrize("after", [0.0, 0.15, 0.4, 0.8, 1.2, 1.6, 2.0])
async def test_it_stops_in_order_in_the_middle_of_it(tmp_path: Path, api: StandIn, after: float) -> None:
    """While the configuration is read, transforms are tried, a receiver starts, the old ones end, a forwarder starts."""
    async with service(tmp_path, api.url) as running:
        async with load(running, kept=2) as acknowledged:
            await until(lambda: len(acknowledged) > 5)
            hang_up(running)
            await asyncio.sleep(after)
            took, status = elapsed(), await running.stop()
        assert (status, took() < 10) == (0, True)
        expected = {"service.started", "service.stopping", "service.stopped", "configuration.taken", "claims.released"}
        assert {line["event"] for line in running.log()} <= expected
        await running.start()
        entries = await running.until_finished(len(acknowledged))
        assert acknowledged <= set(entries)


async def test_a_hang_up_that_all_processes_get_ends_none(tmp_path: Path, api: StandIn) -> None:
    """As an init does, and `systemctl kill`: also while the configuration is read, and transforms are tried."""
    async with service(tmp_path, api.url) as running:
        kept = those(running, "receiver") + those(running, "forwarder")
        for _ in range(10):
            send(signal.SIGHUP, descendants(running.pid))
            await asyncio.sleep(0.05)
        assert all(map(is_alive, kept))
        hang_up(running)
        for _ in range(20):
            send(signal.SIGHUP, [pid for pid in descendants(running.pid) if _is_set_up(pid)])
            await asyncio.sleep(0.05)
        assert await taken(running) == ["nothing; transforms are loaded anew"]
        assert {line["event"] for line in running.log()} == {"service.started", "configuration.taken"}


def _is_set_up(pid: int) -> bool:
    """It has said what it ignores."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        ignored = next(line for line in lines if line.startswith("SigIgn")).split()[1]
        return bool(int(ignored, 16) & 1 << signal.SIGHUP - 1)
    return False


async def test_a_hang_up_of_the_group_ends_no_helper(tmp_path: Path, api: StandIn) -> None:
    """What an init sends comes to the whole group of the supervisor: nobody else is in it."""
    async with service(tmp_path, api.url) as running:
        for times in range(1, 4):
            os.killpg(running.pid, signal.SIGHUP)
            await until(lambda: those(running, "bridge.config"))
            os.killpg(running.pid, signal.SIGHUP)
            await taken(running, times)
        assert told(running, "configuration.refused") == []


async def test_it_stops_while_a_configuration_is_read_that_never_ends(tmp_path: Path, api: StandIn) -> None:
    secret = tmp_path / "secret"
    async with service(tmp_path, api.url, without_secret(tmp_path) | {"STRIPE_WEBHOOK_SECRET": ""}, start=False) as it:
        del it.environment["STRIPE_WEBHOOK_SECRET"]
        await it.start()
        secret.unlink()
        os.mkfifo(secret)
        hang_up(it)
        await until(lambda: those(it, "bridge.config"))
        [reader] = those(it, "bridge.config")
        await asyncio.sleep(0.5)
        took, status = elapsed(), await it.stop()
        assert (status, took() < 10, is_alive(reader)) == (0, True, False)
        assert {line["event"] for line in it.log()} == {"service.started", "service.stopping", "service.stopped"}

"""The life of the service: it stops when it is told to, outlives its own processes, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest
from disk import fill, make_room, small_disk
from load import load
from processes import descendants, environment, is_alive, kill
from service import Service, delivery, elapsed, service, until

from bridge.model import State
from bridge.stand_in import Hang, StandIn

# What docker and systemd allow before they kill.
_MOST = 10.0

LOOPING = """
from pathlib import Path

def transform(delivery):
    Path(__file__).with_name("looping").touch()
    while True:
        pass
"""


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    api = StandIn()
    await api.start()
    yield api
    await api.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_under_load_it_stops_and_has_what_it_acknowledged(
    tmp_path: Path, stand_in: StandIn, number: int
) -> None:
    async with service(tmp_path, stand_in.url) as running:
        everyone = descendants(running.pid)
        async with load(running) as acknowledged:
            await until(lambda: len(acknowledged) > 50)
            since = elapsed()
            assert await running.stop(number) == 0
            assert since() < _MOST
            assert (await running.post(delivery("late"))).status == 0, "nobody listens any more"
        assert acknowledged <= (await running.entries()).keys()
        assert not [pid for pid in everyone if is_alive(pid)]
        assert [line["event"] for line in running.log()] == ["service.started", "service.stopping", "service.stopped"]


async def test_told_to_stop_while_the_event_api_hangs_it_gives_back_what_it_held(
    tmp_path: Path, stand_in: StandIn
) -> None:
    stand_in.always = Hang()
    async with service(tmp_path, stand_in.url) as running:
        for n in range(5):
            assert (await running.post(delivery(n))).status == 200
        await stand_in.requested(1)
        since = elapsed()
        assert await running.stop() == 0
        assert since() < _MOST
        entries = (await running.entries()).values()
        assert [(entry.state, entry.attempts, entry.token) for entry in entries] == [(State.PENDING, 0, "")] * 5
        assert all(entry.due == entry.received_at for entry in entries), "due at once, for the next forwarder"


async def test_told_to_stop_while_it_starts_it_stops(tmp_path: Path, stand_in: StandIn) -> None:
    async with service(tmp_path, stand_in.url, start=False) as running:
        await running.start(ready=False)
        since = elapsed()
        assert await running.stop() == 0
        assert since() < _MOST


async def test_a_receiver_that_is_killed_is_started_again_and_serves(tmp_path: Path, stand_in: StandIn) -> None:
    async with service(tmp_path, stand_in.url) as running:
        assert (await running.post(delivery(1))).status == 200
        await running.until_counted(1, "accepted")
        receiver = running.child("receiver")
        assert (await running.metrics())["bridge_receiving",] == 1
        kill(receiver)
        await running.until_gauge("bridge_receiving", 0)
        assert not is_alive(receiver)
        assert (await running.post(delivery(2))).status == 200, "a connection made meanwhile waits"
        assert running.child("receiver") not in {0, receiver}
        await running.until_ready()
        ended = [line for line in running.log() if line["event"] == "process.ended"]
        assert [(line["ended"], line["status"]) for line in ended] == [("receiver", -9)]
        await stand_in.received(2)
        await running.until_counted(2, "accepted")  # it counts on
        assert counters(running.child("receiver")) == {"receiver", "forwarder"}


def counters(pid: int) -> set[str]:
    """Whose files there are, where this process counts."""
    kept = Path(environment(pid)["PROMETHEUS_MULTIPROC_DIR"])
    return {file.stem.rpartition("_")[2] for file in kept.glob("*.db")}


async def test_processes_that_start_while_the_journal_is_locked_say_so_and_go_on_when_it_is_free(
    tmp_path: Path, stand_in: StandIn
) -> None:
    """What the forwarder before them held is due at once then, not only when its lease ends."""
    stand_in.always = Hang()
    async with service(tmp_path, stand_in.url) as running:
        assert (await running.post(delivery(1))).status == 200
        await stand_in.requested(1)
        stand_in.always = None
        with closing(sqlite3.connect(tmp_path / "bridge.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for name in ("receiver", "forwarder"):
                kill(running.child(name))
            assert (await running.post(delivery(2))).status == 503
            assert "locked by another process" in (await running.ready()).text
            await until(lambda: any(line["event"] == "journal.unavailable" for line in running.log()))
        since = elapsed()
        assert (await running.post(delivery(2))).status == 200
        await stand_in.received(2)
        assert since() < 30, "half a lease"
        ended = {line["ended"] for line in running.log() if line["event"] == "process.ended"}
        assert ended == {"receiver", "forwarder"}


@pytest.mark.parametrize("name", ["receiver", "forwarder"])
async def test_a_process_killed_before_it_knew_what_to_do_is_started_again(
    tmp_path: Path, stand_in: StandIn, name: str
) -> None:
    """Its channel is then reset, not closed. That once ended the watch over it, and nobody started it again."""
    async with service(tmp_path, stand_in.url, start=False) as running:
        await running.start(ready=False)
        await until(lambda: running.child(name))
        killed: set[int] = set()
        for _ in range(3):
            await until(lambda: running.child(name) not in killed | {0})
            killed.add(running.child(name))
            kill(running.child(name))
        await running.until_ready()
        assert (await running.post(delivery(1))).status == 200
        await stand_in.received(1)


async def test_a_forwarder_that_is_killed_loses_nothing(tmp_path: Path, stand_in: StandIn) -> None:
    """What it held is due at once for the next, not only when the lease of a minute ends."""
    stand_in.always = Hang()
    async with service(tmp_path, stand_in.url) as running:
        for n in range(20):
            assert (await running.post(delivery(n))).status == 200
        await stand_in.requested(1)
        stand_in.always = None
        kill(running.child("forwarder"))
        entries = await running.until_finished(20)
        assert {(entry.state, entry.attempts) for entry in entries.values()} == {(State.FORWARDED, 1)}
        assert {event["id"] for event in stand_in.events} == {f"stripe/customer.created:evt_{n}" for n in range(20)}


async def test_a_transform_in_an_endless_loop_does_not_outlive_the_forwarder(tmp_path: Path, stand_in: StandIn) -> None:
    """It reads no end of file: the kernel has to end it."""
    async with looping(tmp_path, stand_in) as running:
        worker = next(iter(descendants(running.child("forwarder"))))
        kill(running.child("forwarder"))
        await until(lambda: not is_alive(worker), patience=5)


@asynccontextmanager
async def looping(folder: Path, stand_in: StandIn) -> AsyncIterator[Service]:
    """With two deliveries held up by the Event API, and a transform that never ends."""
    (folder / "transforms").mkdir()
    (folder / "transforms" / "slack.py").write_text(LOOPING)
    (folder / "bridge.toml").write_text("transform_timeout = 0.5\n")
    stand_in.always = Hang()
    async with service(folder, stand_in.url, {"BRIDGE_TRANSFORMS": "transforms"}) as running:
        for n in range(2):
            assert (await running.post(delivery(n))).status == 200
        await stand_in.requested(1)
        command = b"command=%2Floop&trigger_id=1.2&team_id=T1&user_id=U1"
        assert (await running.post(command, source="slack")).status == 200
        await until((folder / "transforms" / "looping").exists)
        yield running
        await stand_in.stop()  # or it would be waited for


async def test_when_the_supervisor_is_killed_nothing_survives_and_the_next_goes_on_at_once(
    tmp_path: Path, stand_in: StandIn
) -> None:
    async with looping(tmp_path, stand_in) as running:
        everyone = descendants(running.pid)
        assert len(everyone) == 4
        await running.kill()
        await until(lambda: not [pid for pid in everyone if is_alive(pid)], patience=5)
        stand_in.always = None
        since = elapsed()
        await running.start()
        await stand_in.received(2)
        assert since() < 30, "half a lease"
        assert {event["id"] for event in stand_in.events} == {f"stripe/customer.created:evt_{n}" for n in range(2)}


@pytest.mark.parametrize("variable", ["BRIDGE_PORT", "BRIDGE_ADMIN_PORT"])
async def test_a_port_that_is_taken_is_named_and_nothing_is_started(
    tmp_path: Path, stand_in: StandIn, variable: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with service(tmp_path, stand_in.url, {variable: str(port)}, start=False) as running:
            said = await running.refuses_to_start()
    assert said.startswith(f"bridge: {variable}: 127.0.0.1:{port}: taken already; ")
    assert said.count("\n") == 1


async def test_a_full_disk_stops_the_storing_and_nothing_else(stand_in: StandIn) -> None:
    """The temporary files are on it too. A receiver whose metrics were among them was killed by its first count."""
    with small_disk() as folder:
        async with service(folder, stand_in.url) as running:
            fill(folder)
            assert (await running.post(large(1))).status == 503
            await running.until_counted(1, "failed")
            kill(running.child("receiver"))
            for n in range(3):
                assert (await running.post(large(n))).status == 503
            assert "the disk is full" in (await running.ready()).text
            await running.until_gauge("bridge_receiving", 0)
            assert (await running.metrics())["bridge_journal_readable",] == 1
            ended = [line["status"] for line in running.log() if line["event"] == "process.ended"]
            assert ended == [-9], "none but ours"
            make_room(folder)
            for n in range(3):
                assert (await running.post(large(n))).status == 200
            await running.until_ready()
            assert (await running.metrics())["bridge_receiving",] == 1
            await stand_in.received(3)
            await running.until_counted(4, "failed")


def large(n: int) -> bytes:
    return delivery(n).ljust(100_000)


async def test_a_body_without_end_costs_the_receiver_no_memory(tmp_path: Path, stand_in: StandIn) -> None:
    async with service(tmp_path, stand_in.url) as running:
        assert (await running.post(delivery(1))).status == 200
        receiver = running.child("receiver")
        before = _peak(receiver)
        refused = await running.ask("POST", f"{running.public}/webhooks/stripe", data=_endless())
        assert refused.status in {0, 413}, "cut off, whether or not the sender was still listening"
        assert _peak(receiver) - before < 20 << 20
        assert running.child("receiver") == receiver
        assert (await running.metrics())["bridge_rejections_total", "too_large", "stripe"] == 1
        assert (await running.post(delivery(2))).status == 200


async def test_bodies_of_many_strangers_that_never_end_cost_it_no_more_than_it_has(
    tmp_path: Path, stand_in: StandIn
) -> None:
    """They need no secret for that. What comes whole is answered all the while."""
    async with service(tmp_path, stand_in.url) as running, AsyncExitStack() as strangers:
        assert (await running.post(delivery(1))).status == 200
        before = _peak(running.child("receiver"))
        first = None
        host, _, port = running.public.rpartition("//")[2].partition(":")
        for n in range(200):
            answers, writer = await asyncio.open_connection(host, int(port))
            first = first or answers
            strangers.callback(writer.close)
            writer.write(
                b"POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n" + bytes(1_048_000)
            )
            await writer.drain()
            if not n % 20:
                assert (await running.post(large(n))).status == 200
        assert _peak(running.child("receiver")) - before < 130 << 20
        assert (await running.metrics())["bridge_rejections_total", "crowded_out", "stripe"] > 100
        assert first is not None
        assert re.match(rb"HTTP/1.1 503 .*\r\nRetry-After: 5\r\n", await first.read(500), re.DOTALL)


async def _endless() -> AsyncIterator[bytes]:
    for _ in range(200):
        yield bytes(1 << 20)


def _peak(pid: int) -> int:
    """Bytes of memory it ever had at once."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

"""The supervisor's children by themselves, and how it watches over them when starting or stopping goes wrong."""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import resource
import socket
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
from commands import standing_in
from processes import descendants, environment
from receiving import logging_into
from service import SECRETS, delivery, service, until

from bridge import roles
from bridge.children import Child, Children
from bridge.forward import Forwarder
from bridge.process import command
from bridge.retention import Pruner
from bridge.settings import EventApiSettings, Settings, SourceSettings, packed


def settings(folder: Path) -> Settings:
    return Settings(
        journal=f"sqlite:///{folder}/bridge.db",
        sources={"stripe": SourceSettings(provider="stripe", secrets=("s",))},
        event_api=EventApiSettings(dev="http://127.0.0.1:9"),
    )


class Started:
    """A child whose supervisor is the test."""

    def __init__(self, name: str, folder: Path, *, parent: int | None = None) -> None:
        self.ours, theirs = socket.socketpair()
        with theirs, socket.create_server(("127.0.0.1", 0)) as public:
            passed = [theirs.fileno(), public.fileno()]
            self.process = subprocess.Popen(
                command("bridge.roles", name, name, str(parent or os.getpid()), *map(str, passed)),
                pass_fds=passed,
                stderr=subprocess.PIPE,
            )
        self.told = packed((settings(folder), ()))

    def end(self) -> tuple[int, str]:
        """The exit status, and what was logged."""
        _, said = self.process.communicate(timeout=30)
        self.ours.close()
        return self.process.returncode, said.decode()


@pytest.mark.parametrize("name", ["receiver", "forwarder"])
def test_a_child_whose_supervisor_hangs_up_finishes_and_ends(tmp_path: Path, name: str) -> None:
    """Where the kernel does not kill it with its parent, this has to do."""
    child = Started(name, tmp_path)
    child.ours.sendall(child.told)
    assert orjson.loads(child.ours.makefile("rb").readline())["ready"] is True
    child.ours.shutdown(socket.SHUT_WR)
    assert child.end() == (0, "")


def test_a_receiver_takes_as_many_connections_as_it_may(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))
    try:
        child = Started("receiver", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    child.ours.sendall(child.told)
    child.ours.makefile("rb").readline()
    assert resource.prlimit(child.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    child.ours.shutdown(socket.SHUT_WR)
    child.end()


def test_a_child_that_is_told_nothing_ends(tmp_path: Path) -> None:
    child = Started("receiver", tmp_path)
    child.ours.shutdown(socket.SHUT_WR)
    assert child.end() == (0, "")


def test_a_child_of_another_version_than_its_supervisor_takes_nothing_for_what_it_is_not(tmp_path: Path) -> None:
    child = Started("receiver", tmp_path)
    child.ours.sendall(pickle.dumps(["journal", "a setting there was"]) + child.told)
    status, said = child.end()
    assert (status, orjson.loads(said)["error"]) == (1, "the bridge was upgraded while it ran: restart it")


def test_a_child_whose_supervisor_is_another_by_now_ends_at_once(tmp_path: Path) -> None:
    assert Started("receiver", tmp_path, parent=1).end() == (1, "")


@pytest.mark.parametrize("fails", [Forwarder, Pruner])
async def test_a_forwarder_that_falls_over_ends_its_process_without_a_word_of_what_it_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: type
) -> None:
    """One that lived on, and forwarded nothing, would go unseen for days."""

    async def fall_over(*_: Any, **__: Any) -> None:
        raise LookupError("quotes a payload")

    monkeypatch.setattr(fails, "run", fall_over)
    with logging_into(logged := io.StringIO()), pytest.raises(SystemExit):
        async with asyncio.timeout(10):
            await roles.forwarder(settings(tmp_path), (), lambda _: None, asyncio.Event())
    lines = [orjson.loads(line) for line in logged.getvalue().splitlines()]
    assert [line["error"] for line in lines if line["event"] == "process.failed"] == ["LookupError"]
    assert "payload" not in logged.getvalue()


async def test_a_process_that_is_being_started_when_it_is_told_to_stop_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was once, and the service waited for its end until it was killed."""
    real, begun, done = asyncio.create_subprocess_exec, asyncio.Event(), asyncio.Event()
    started: list[asyncio.subprocess.Process] = []

    async def slowly(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
        started.append(await real(*arguments, **options))
        begun.set()
        await done.wait()
        return started[0]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
    starting = child(tmp_path)
    running = asyncio.create_task(starting.run())
    await begun.wait()
    await starting.stop(within=5)
    done.set()
    await asyncio.wait_for(running, 5)
    assert [process.returncode for process in started] == [-9]


async def test_a_module_with_much_to_say_of_itself_ends_no_bridge(tmp_path: Path) -> None:
    """It is loaded when it is first needed: what it is by then."""
    module = tmp_path / "mine" / "stripe.py"
    module.parent.mkdir()
    module.write_text("def transform(delivery):\n    return []\n")
    async with standing_in() as api, service(tmp_path, api.url, {"BRIDGE_TRANSFORMS": "mine"}) as running:
        module.write_text("raise RuntimeError('x' * 100_000)")
        assert (await running.post(delivery(1))).status == 200
        await until(lambda: "worker.unavailable" in running.logged)
        answered = await running.ready()
        assert answered.status == 503 and "RuntimeError" in answered.text
        module.write_text("def transform(delivery):\n    return []\n")
        await running.until_finished()
        await running.until_ready()


async def test_none_is_started_any_more_when_the_listener_is_closed(tmp_path: Path) -> None:
    """One that fell over just then would be given a listener that is none, and its watch would fail."""
    ready, failed = asyncio.Event(), asyncio.Event()

    class Public(socket.socket):
        def close(self) -> None:
            stopping.append([each.stopping.is_set() for each in found._living])
            super().close()

    stopping: list[list[bool]] = []
    with Public() as public:
        found = Children(public=public, metrics_directory=str(tmp_path), ready=ready, failed=failed.set)
        found.start((settings(tmp_path), ()))
        await found.stop()
    assert stopping[0] == [True, True]
    assert not failed.is_set()


def child(folder: Path) -> Child:
    told = (settings(folder), ())
    return Child(
        "forwarder", counts_as="forwarder", told=told, passed=(), metrics_directory=str(folder), heard=lambda: None
    )


async def test_a_process_the_machine_has_no_room_for_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with logging_into(logged := io.StringIO()):
        monkeypatch.setenv("TOO_MUCH", "x" * (8 << 20))
        starting = child(tmp_path)
        running = asyncio.create_task(starting.run())
        await until(lambda: logged.getvalue().count("process.ended") == 2)
        await starting.stop(within=5)
        await asyncio.wait_for(running, 5)
    lines = [orjson.loads(line) for line in logged.getvalue().splitlines()]
    assert [(line["status"], line["next_start_in_seconds"]) for line in lines] == [
        ("Argument list too long", 0.1),
        ("Argument list too long", 0.2),
    ]


async def test_no_process_of_the_service_has_a_secret_in_its_environment(tmp_path: Path) -> None:
    """A transform could read it there, and so could any program that one starts."""
    (tmp_path / "bridge.toml").write_text("[sources.live]\nprovider = 'stripe'\nsecrets = ['env:MINE']")
    async with (
        standing_in() as api,
        service(tmp_path, api.url, {"MINE": "whsec_mine", "INNGEST_EVENT_KEY": "key"}) as running,
    ):
        assert (await running.post(delivery(1))).status == 200
        await api.received(1)
        processes = descendants(running.pid)
        assert len(processes) == 4, "receiver, writer, forwarder, worker"
        for each in processes:
            assert not environment(each).keys() & {*SECRETS, "MINE", "INNGEST_EVENT_KEY"}

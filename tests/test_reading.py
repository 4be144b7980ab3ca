"""When the configuration is read again, and what becomes of a bridge whose terminal, reader or new receiver is gone."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from commands import BRIDGE
from processes import is_alive, kill

from bridge import children, companion, reading
from bridge import settings as settings_
from bridge.children import Children
from bridge.companion import Companion
from bridge.errors import BridgeError
from bridge.reading import Configuration
from bridge.settings import EventApiSettings, Settings, SourceSettings

LOOK = 0.05


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_LOOK_AGAIN", LOOK)


@pytest.fixture
async def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configuration:
    """Read, with a secret in a file of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("whsec_1")
    found = Configuration({**os.environ, "STRIPE_WEBHOOK_SECRET_FILE": "secret", "INNGEST_DEV": "1"})
    await found.read()
    return found


async def nothing_changes(configuration: Configuration) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(6 * LOOK):
            await configuration.changed()


async def test_a_file_that_stays_as_it_was_is_not_read_again(configuration: Configuration) -> None:
    await nothing_changes(configuration)


@pytest.mark.parametrize("how", ["written", "replaced", "linked elsewhere", "removed"])
async def test_a_file_that_is_another_is_read_again_once(
    configuration: Configuration, tmp_path: Path, how: str
) -> None:
    """Kubernetes exchanges a link, an editor the file; the same length, and a time that was set back, are no excuse."""
    secret, new, link = (tmp_path / name for name in ("secret", "new", "link"))
    new.write_text("whsec_2")
    os.utime(new, (0, 0))
    match how:
        case "written":
            secret.write_text("whsec_2")
        case "replaced":
            new.replace(secret)
        case "linked elsewhere":
            link.symlink_to(new)
            link.replace(secret)
        case "removed":
            secret.unlink()
    async with asyncio.timeout(5):
        assert await configuration.changed() is False
    _, faults = await configuration.read()
    assert bool(faults) == (how == "removed")
    await nothing_changes(configuration)


async def test_a_file_is_not_read_while_it_is_being_written(configuration: Configuration, tmp_path: Path) -> None:
    secret = tmp_path / "secret"

    async def write() -> None:
        for n in range(24):
            secret.write_text("whsec_2"[: n % 7 + 1])
            await asyncio.sleep(LOOK / 4)
        secret.write_text("whsec_2")

    writing = asyncio.create_task(write())
    async with asyncio.timeout(10):
        await configuration.changed()
    assert writing.done()
    settings, _ = await configuration.read()
    assert settings.sources["stripe"].secrets == ("whsec_2",)


async def test_a_secret_of_the_environment_is_read_again_though_it_was_taken_out() -> None:
    environment = {**os.environ, "STRIPE_WEBHOOK_SECRET": "whsec_1", "INNGEST_DEV": "1", "BRIDGE_CONFIG": os.devnull}
    configuration = Configuration(environment)
    for _ in range(2):
        settings, faults = await configuration.read()
        assert (settings.sources["stripe"].secrets, faults) == (("whsec_1",), [])
        assert "STRIPE_WEBHOOK_SECRET" not in environment


async def test_a_reader_that_is_killed_is_an_error_and_the_next_one_reads(
    configuration: Configuration, tmp_path: Path
) -> None:
    configuration._environment["PYTHONPATH"] = "."
    site = tmp_path / "sitecustomize.py"
    site.write_text("import os\nos.kill(os.getpid(), 9)")
    with pytest.raises(BridgeError, match="the process that reads the configuration was ended by signal 9"):
        await configuration.read()
    site.unlink()
    assert (await configuration.read())[1] == []


async def test_a_file_that_is_named_in_one_that_can_not_be_read_any_more_is_still_looked_at(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("whsec_1")
    toml = tmp_path / "bridge.toml"
    toml.write_text(f"[sources.eu]\nprovider = 'stripe'\nsecrets = ['file:{tmp_path}/other']\n")
    found = Configuration({**os.environ, "BRIDGE_CONFIG": str(toml), "INNGEST_DEV": "1"})
    await found.read()
    toml.write_text("[sources.")
    assert len((await found.read())[1]) == 1
    (tmp_path / "other").write_text("whsec_22")
    async with asyncio.timeout(5):
        assert await found.changed() is False


async def test_a_file_that_never_ends_is_given_up(
    configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_READ_WITHIN", 1.0)
    secret = tmp_path / "secret"
    secret.unlink()
    os.mkfifo(secret)
    expected = "the process that reads the configuration was not done after 1 s: is each file with a secret a file?"
    with pytest.raises(BridgeError, match=re.escape(expected)):
        await configuration.read()
    await nothing_changes(configuration)


async def test_a_reader_of_another_version_is_not_believed(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is installed over a running bridge is what the reader is."""
    monkeypatch.setattr(settings_, "declared", lambda: iter([("journal", None)]))
    with pytest.raises(BridgeError, match="the bridge was upgraded while it ran: restart it"):
        await configuration.read()


async def test_a_file_that_is_written_without_end_holds_up_no_other(
    configuration: Configuration, tmp_path: Path
) -> None:
    async def write() -> None:
        while True:
            (tmp_path / "secret").write_text(f"whsec_{time.monotonic()}")
            await asyncio.sleep(LOOK / 4)

    writing = asyncio.create_task(write())
    async with asyncio.timeout(5):
        assert await configuration.changed() is False
    writing.cancel()


async def test_it_is_read_again_after_a_while_though_nothing_changed(configuration: Configuration) -> None:
    async with asyncio.timeout(5):
        assert await configuration.changed(within=3 * LOOK) is False


async def test_what_became_of_a_helper_is_left_to_asyncio_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that ends just then, whoever asks first is told: asyncio would say it is unknown, with exit status 255."""
    monkeypatch.setattr(companion, "_LEAVING", 0)
    waiting = await Companion.start("bridge.worker")
    with monkeypatch.context() as patch:
        patch.setattr(subprocess.Popen, "poll", lambda _: pytest.fail("it was asked"))
        assert await waiting.stop() == "was ended by signal 9"


ON_A_TERMINAL = {
    "bridge": "exec {bridge} serve",
    "its log elsewhere": "exec {bridge} serve 2>log",
    "nohup": "exec nohup {bridge} serve 2>log",
}


@pytest.mark.parametrize("how", ON_A_TERMINAL)
@pytest.mark.parametrize("closed", [False, True])
def test_a_bridge_whose_terminal_was_closed_stops_and_any_other_reads_again(
    tmp_path: Path, how: str, *, closed: bool
) -> None:
    variables = {"STRIPE_WEBHOOK_SECRET": "s", "INNGEST_DEV": "1", "BRIDGE_PORT": "0", "BRIDGE_ADMIN_PORT": "0"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve("/bin/sh", ["sh", "-c", ON_A_TERMINAL[how].format(bridge=BRIDGE)], variables)  # noqa: S606 - there is one
    try:
        _lives_as_long_as_it_should(pid, terminal, how, tmp_path / "log", closed=closed)
    finally:
        kill(pid)


def _lives_as_long_as_it_should(pid: int, terminal: int, how: str, log: Path, *, closed: bool) -> None:
    _read_until("service.started", terminal if how == "bridge" else log)
    if closed:
        os.close(terminal)
    if not closed or how == "nohup":
        os.kill(pid, signal.SIGHUP)
        _read_until("configuration.taken", terminal if how == "bridge" else log)
        assert is_alive(pid)
        os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in {0, 120}, "120: what it had to say last could not be written"
    if not closed:
        os.close(terminal)


def _read_until(event: str, where: int | Path) -> None:
    said = ""
    while event not in said:
        if isinstance(where, int):
            said += os.read(where, 65536).decode()
        else:
            time.sleep(0.05)
            said = where.read_text() if where.exists() else ""


async def test_a_receiver_that_does_not_start_takes_the_place_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        journal=f"sqlite:///{tmp_path}/bridge.db",
        sources={"stripe": SourceSettings(provider="stripe", secrets=("s",))},
        event_api=EventApiSettings(dev="http://127.0.0.1:9"),
    )
    ready = asyncio.Event()
    (tmp_path / "counted").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as public:
        found = Children(public=public, metrics_directory=str(tmp_path / "counted"), ready=ready, failed=lambda: None)
        found.start((settings, ()))
        async with asyncio.timeout(20):
            await ready.wait()
        before = set(found._living)
        with monkeypatch.context() as patch:
            patch.setattr(children, "command", lambda *_: ["false"])
            patch.setattr(children, "_START_WITHIN", 0.5)
            with pytest.raises(TimeoutError):
                await found.replace((settings, ()))
        assert set(found._living) == before
        assert found.missing() == []
        await found.replace((settings, ()))
        assert not set(found._living) & before
        assert {child.counts_as for child in found._living} == {"receiver-2", "forwarder"}
        await found.stop()
    assert found._living == {}


def test_what_no_path_can_be_is_no_file() -> None:
    found: Mapping[Path, object] = reading.stamps([Path("a\0b"), Path("/nowhere"), Path("a" * 5000)])
    assert set(found.values()) == {None}

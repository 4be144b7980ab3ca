"""When the configuration is read again, and what becomes of a bridge whose terminal, reader or new receiver is gone."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from commands import BRIDGE
from processes import is_alive

from bridge import children, reading
from bridge.children import Children
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
        for n in range(40):
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


@pytest.mark.parametrize("closed", [False, True])
def test_a_bridge_whose_terminal_was_closed_stops_and_any_other_reads_again(tmp_path: Path, *, closed: bool) -> None:
    ours, theirs = pty.openpty()
    environment = {"STRIPE_WEBHOOK_SECRET": "s", "INNGEST_DEV": "1", "BRIDGE_PORT": "0", "BRIDGE_ADMIN_PORT": "0"}
    process = subprocess.Popen([BRIDGE, "serve"], cwd=tmp_path, env=environment, stderr=theirs)
    os.close(theirs)
    said = b""
    while b"service.started" not in said:
        said += os.read(ours, 65536)
    if closed:
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) in {0, 120}, "120: what it had to say last could not be written"
        return
    process.send_signal(signal.SIGHUP)
    while b"configuration.taken" not in said:
        said += os.read(ours, 65536)
    assert is_alive(process.pid)
    process.terminate()
    assert process.wait(20) == 0
    os.close(ours)


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

"""The image of deploy/Dockerfile: what is in it, and that it runs as it should, with as little as it can."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine import Engine
from running import SPARE, Running, checkout, container, settings, stand_in
from service import delivery
from tools import DEPLOY, ROOT, run, until

pytest_plugins = ["containers"]

README = (DEPLOY / "README.md").read_text()
IMAGE = "webhook-event-bridge"
STOP_THE_RECEIVER = """
import os, pathlib, signal
for each in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    if b"\\0receiver\\0" in each.read_bytes():
        os.kill(int(each.parent.name), signal.SIGSTOP)
"""
# Docker's, before it kills.
MOST = 10.0


@pytest.fixture(scope="session")
def built(engine: Engine) -> dict[str, Any]:
    """What is said of the image."""
    found: dict[str, Any] = json.loads(engine.docker("inspect", "--type", "image", IMAGE))[0]
    return found


@pytest.fixture(scope="module")
def network(engine: Engine) -> Iterator[str]:
    """One that leads nowhere, with the Event API in it: events are what its container prints."""
    stand_in(engine, "inngest", "inngest")
    engine.docker("network", "create", "--internal", "inside")
    engine.docker("run", "--detach", "--name", "inngest", "--network", "inside", "localhost/inngest")
    yield "--network=inside"
    engine.docker("rm", "--force", "inngest")
    engine.docker("network", "rm", "inside")


def events(engine: Engine) -> list[str]:
    return [json.loads(line)["id"] for line in engine.docker("logs", "inngest").splitlines() if line.startswith("{")]


def inside(engine: Engine, script: str) -> str:
    return engine.docker("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", script)


def test_hadolint_has_nothing_to_say() -> None:
    assert run("hadolint", DEPLOY / "Dockerfile") == ""


def test_it_is_under_200_megabytes_and_most_of_that_is_debian_and_python(engine: Engine, built: dict[str, Any]) -> None:
    base = json.loads(engine.docker("inspect", "--type", "image", "localhost/base"))[0]["Size"]
    assert built["Size"] < 200e6
    # The official base is a little larger than the one that was built here: about 125 MB.
    assert built["Size"] - base < 72e6


def test_what_it_says_of_itself(built: dict[str, Any]) -> None:
    said = built["Config"]
    assert said["User"] == "10001:10001"
    assert said["WorkingDir"] == "/data" and set(said["Volumes"]) == {"/data"}
    assert set(said["ExposedPorts"]) == {"8080/tcp"}
    assert said["StopSignal"] in {"SIGTERM", "15"}
    assert said["Entrypoint"] == ["dumb-init", "--", "bridge"] and said["Cmd"] == ["serve"]
    assert built["Healthcheck"]["Test"] == ["CMD", "bridge", "health"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in said["Labels"].items()}
    assert labels["title"] == IMAGE and "webhooks" in labels["description"] and labels["licenses"] == "MIT"
    assert f'\nversion = "{labels["version"]}"\n' in (ROOT / "pyproject.toml").read_text()
    # Of the last one that was not the same otherwise, where buildah has it still.
    assert re.fullmatch(r"[0-9a-f]{40}", labels["revision"])
    assert '--build-arg REVISION="$(git rev-parse HEAD)"' in README
    assert not [each for each in said["Env"] if any(word in each for word in ("SECRET", "KEY=", "TOKEN", "INNGEST"))]


def test_the_base_is_pinned_by_its_digest() -> None:
    [base] = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if line.startswith("ARG BASE=")]
    name, _, digest = base.partition("@sha256:")
    assert "-slim-" in name and len(digest) == 64


def test_nothing_is_in_it_but_what_runs(engine: Engine) -> None:
    there = inside(engine, "find / -xdev -type f 2>/dev/null; true").splitlines()
    ours = [path for path in there if path.startswith(("/opt/", "/etc/bridge", "/transforms", "/data", "/source"))]
    assert "/etc/bridge/bridge.toml" in ours
    wanted = ("/opt/bridge/", "/etc/bridge/bridge.toml")
    assert [path for path in ours if not path.startswith(wanted)] == []
    packages = {path.split("/")[6] for path in ours if "/site-packages/" in path and path.count("/") > 6}
    assert packages >= {"bridge", "transforms", "stripe", "opentelemetry"}
    assert not packages & {"setuptools", "pip", "tests", "bench", "chaos", "fuzz", "pytest", "mypy", "pygments"}
    programs = {Path(path).name for path in there if "/bin/" in path or "/sbin/" in path}
    assert not programs & {"gcc", "cc", "g++", "make", "ld", "strip", "as", "git", "curl", "wget"}


def test_nobody_who_runs_in_it_can_change_it(engine: Engine) -> None:
    writable = inside(engine, "find / -xdev -writable -not -type l 2>/dev/null; true").split()
    places = ("/tmp", "/var/tmp", "/run/lock", "/var/lock", "/data", "/opt/added", "/dev", "/proc", "/etc/mtab")  # noqa: S108 - of the image
    assert [path for path in writable if not path.startswith(places)] == []


def test_it_can_write_to_its_volume_and_to_memory_and_to_nothing_else(engine: Engine) -> None:
    places = "/tmp /data /dev/shm /run /var/tmp /run/lock /opt/added /opt/bridge /etc/bridge /transforms /"  # noqa: S108 - of the container
    tried = f"for each in {places}; do touch $each/written 2>/dev/null && echo $each; done; true"
    with container(engine, *settings()) as bridge:
        assert bridge.run("sh", "-c", tried).split() == ["/tmp", "/data", "/dev/shm"]  # noqa: S108 - of the container


def test_python_compiles_nothing_when_it_starts(engine: Engine) -> None:
    """Where nothing can be written it would do so each time, also for each question after its health."""
    said = engine.docker("run", "--rm", *SPARE, "--entrypoint", "python", IMAGE, "-v", "-m", "bridge.cli.serve")
    said += engine.docker(
        "run", "--rm", *SPARE, "--entrypoint", "python", IMAGE, "-v", "-c", "import bridge.roles, bridge.config"
    )
    assert "matches /opt/bridge/lib" in said
    loaded = re.findall(r"^# code object from '?(/.*?)'?$", said, re.MULTILINE)
    assert len(loaded) > 100
    assert [path for path in loaded if not path.endswith(".pyc")] == []


def test_the_layer_of_the_libraries_stays_with_a_release_that_changes_the_code(
    engine: Engine, built: dict[str, Any], tmp_path: Path
) -> None:
    checkout(tmp_path)
    (tmp_path / "bridge" / "clock.py").write_text((ROOT / "bridge" / "clock.py").read_text() + "# changed\n")
    file = tmp_path / "deploy" / "Dockerfile"
    engine.docker("build", "--build-arg", "REVISION=another", "--file", file, "--tag", "changed", tmp_path)
    changed = json.loads(engine.docker("inspect", "--type", "image", "changed"))[0]
    assert changed["Config"]["Labels"]["org.opencontainers.image.revision"] == "another"
    before, after = built["RootFS"]["Layers"], changed["RootFS"]["Layers"]
    same = [one for one, other in zip(before, after, strict=True) if one == other]
    assert before != after
    assert len(after) - len(same) == 2, "the code, and its bytecode with that of Python's own modules"
    engine.docker("rmi", "changed")


def test_a_webhook_goes_in_and_its_event_comes_out_with_nothing_but_the_event_api_to_reach(
    engine: Engine, network: str
) -> None:
    with container(engine, network, *settings()) as bridge:
        assert bridge.run("id", "-u") == "10001\n"
        assert "Read-only file system" in bridge.run("touch", "/opt/bridge/x", status=1)
        assert "CapEff:\t0000000000000000" in bridge.run("cat", "/proc/1/status")
        reach = "import socket; socket.create_connection(('deb.debian.org', 80), 3)"
        assert "Error" in bridge.run("python", "-c", reach, status=1)
        said = bridge.run("bridge", "send", "stripe", "customer.created")
        id_ = said.split()[-1]
        until(lambda: bridge.listed() == {id_: "forwarded"})
        assert events(engine) == [f"stripe/customer.created:{id_}"]
        assert bridge.run("cat", "/proc/1/comm") == "dumb-init\n"


def test_from_outside_a_webhook_is_taken_and_a_forged_one_is_not(engine: Engine) -> None:
    with container(engine, *settings()) as bridge:
        assert bridge.post(1) == 200
        assert bridge.post(2, secret="another") == 401
        assert bridge.listed() == {"evt_1": "pending"}


def test_told_to_stop_it_has_what_it_acknowledged_and_goes_on_with_it_when_it_is_started_again(engine: Engine) -> None:
    acknowledged: set[str] = set()
    stopping = threading.Event()

    def load(bridge: Running) -> None:
        n = 0
        while not stopping.is_set():
            n += 1
            if bridge.post(n) == 200:
                acknowledged.add(f"evt_{n}")

    with container(engine, *settings(), "--volume", "kept:/data") as bridge:
        sending = threading.Thread(target=load, args=[bridge], daemon=True)
        sending.start()
        until(lambda: len(acknowledged) > 50)
        since = time.monotonic()
        engine.docker("stop", "bridge")
        assert time.monotonic() - since < MOST
        stopping.set()
        sending.join()
        assert engine.docker("inspect", "--format", "{{.State.ExitCode}}", "bridge") == "0\n"
        said = [line["event"] for line in bridge.log()]
        assert "service.stopping" in said and said[-1] == "service.stopped"
    with container(engine, *settings(), "--volume", "kept:/data") as bridge:
        assert acknowledged <= bridge.listed().keys(), "another container, the same volume"
    engine.docker("volume", "rm", "kept")


def test_what_is_being_stored_when_it_is_told_to_stop_is_stored_and_answered(engine: Engine) -> None:
    with container(engine, *settings()) as bridge:
        with bridge.journal_locked(), bridge.asked("held") as status:
            engine.docker("stop", "bridge")
            assert status() == 200
        assert engine.docker("inspect", "--format", "{{.State.ExitCode}}", "bridge") == "0\n"
        engine.docker("start", "bridge")
        bridge.until_ready()
        assert bridge.listed() == {"evt_held": "pending"}


def test_its_health_is_told_and_a_receiver_that_hangs_is_not_healthy(engine: Engine) -> None:
    with container(engine, *settings()) as bridge:
        engine.docker("healthcheck", "run", "bridge")
        bridge.run("python", "-c", STOP_THE_RECEIVER)
        engine.docker("healthcheck", "run", "bridge", status=1)


def test_signals_reach_the_bridge_and_orphans_are_taken_in(engine: Engine) -> None:
    with container(engine, *settings()) as bridge:
        [reload] = set(re.findall(r"`docker (exec bridge sh -c .*?)`", README))
        engine.shell(f"docker {reload}", cwd=ROOT)
        until(lambda: "configuration.taken" in [line["event"] for line in bridge.log()])
        bridge.run("sh", "-c", "kill -HUP 1")  # where nobody can send one from outside, as in a pod
        until(lambda: [line["event"] for line in bridge.log()].count("configuration.taken") == 2)
        bridge.run("sh", "-c", "(sleep 0.2 &)")
        zombies = "grep -l '^State:.Z' /proc/[0-9]*/status || true"
        until(lambda: bridge.run("sh", "-c", zombies) == "")


def test_nobody_is_told_to_reload_in_a_way_that_turns_off_the_restart() -> None:
    """After any signal of `docker kill`, one that is `unless-stopped` counts as stopped: https://github.com/moby/moby/issues/47792."""
    for text in (README, (DEPLOY / "compose.yaml").read_text(), (ROOT / "README.md").read_text()):
        assert re.findall(r"\bkill (?:-s|--signal)\b.*", text) == []


def test_every_command_works_in_it(engine: Engine) -> None:
    """Also without the one library that was left out of it."""
    with container(engine, *settings()) as bridge:
        assert bridge.post(1) == 200
        for command in (
            "--help",
            "--version",
            "check",
            "health --ready",
            "metrics bridge_deliveries",
            "sources",
            "list",
            "show evt_1",
            "transform evt_1",
            "send slack",
        ):
            said = engine.docker("exec", "--tty", "bridge", "bridge", *command.split(), status=None)
            assert "Traceback" not in said and "Error" not in said, said
            assert said
        for terminal in ([], ["--tty"]):
            dev = ["bridge", "transform", "--json", "evt_1"]
            assert delivery(1).decode()[:12] in engine.docker("exec", *terminal, "bridge", *dev).replace(" ", "")


def test_an_image_of_ones_own_takes_three_lines(engine: Engine, network: str, tmp_path: Path) -> None:
    (tmp_path / "transforms").mkdir()
    (tmp_path / "transforms" / "stripe.py").write_text(
        "import inflection\nfrom bridge import Event\n\n"
        "def transform(delivery):\n    return Event(name='shop/' + inflection.camelize('order_placed'), data={})\n"
    )
    (tmp_path / "Dockerfile").write_text(
        "FROM webhook-event-bridge\nCOPY transforms /transforms\nRUN pip install inflection==0.5.1\n"
    )
    engine.docker("build", "--tag", "own", tmp_path)
    with container(engine, network, *settings(), image="own") as bridge:
        id_ = bridge.run("bridge", "send", "stripe", "customer.created").split()[-1]
        until(lambda: bridge.listed() == {id_: "forwarded"})
    assert f"shop/OrderPlaced:{id_}" in events(engine)


def test_pip_leaves_the_versions_that_the_bridge_was_tested_with(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM webhook-event-bridge\nRUN pip install 'aiohttp<3.10'\n")
    said = engine.docker("build", "--tag", "own", tmp_path, status=None)
    assert "ResolutionImpossible" in said or "conflict" in said, said

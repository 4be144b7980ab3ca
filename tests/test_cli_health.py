"""`bridge health`: whether the bridge on this machine lives, and what it is not ready for."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from commands import Ran, run, standing_in
from processes import send
from service import Service, delivery, service, until

from bridge.stand_in import PAGE


def at(running: Service) -> dict[str, str]:
    """An environment that tells where it listens: its own says any port."""
    public, private = urlsplit(running.public).port, urlsplit(running.private).port
    return {"BRIDGE_HOST": "127.0.0.1", "BRIDGE_PORT": str(public), "BRIDGE_ADMIN_PORT": str(private)}


def lines(ran: Ran, where: Mapping[str, str]) -> list[str]:
    """What it printed, with names for the addresses."""
    text = ran.out + ran.err
    for name in ("BRIDGE_PORT", "BRIDGE_ADMIN_PORT"):
        text = text.replace(f"http://127.0.0.1:{where[name]}", name)
    return text.splitlines()


async def test_one_that_lives_and_is_ready(tmp_path: Path) -> None:
    async with standing_in() as api, service(tmp_path, api.url) as running:
        ran = run("health", "--ready", cwd=tmp_path, **at(running))
        expected = ["BRIDGE_PORT/healthz: ok", "BRIDGE_ADMIN_PORT/healthz: ok", "BRIDGE_ADMIN_PORT/readyz: ready"]
        assert (ran.status, lines(ran, at(running))) == (0, expected)
        assert run("health", cwd=tmp_path, **at(running)).status == 0


async def test_one_that_is_held_lives_and_is_not_ready(tmp_path: Path) -> None:
    async with standing_in() as api, service(tmp_path, api.url) as running:
        api.always = PAGE
        assert (await running.post(delivery(1))).status == 200
        await until(lambda: "event_api.misconfigured" in running.logged)
        assert run("health", cwd=tmp_path, **at(running)).status == 0
        ran = run("health", "--ready", cwd=tmp_path, **at(running))
        assert ran.status == 1
        said = lines(ran, at(running))
        assert said[2].startswith("BRIDGE_ADMIN_PORT/readyz: forwarding is held: ")
        assert said[3] == "bridge: not ready"


async def test_one_whose_receiver_hangs_does_not_live(tmp_path: Path) -> None:
    """The supervisor answers, and starts what ends; what hangs it does not see."""
    async with standing_in() as api, service(tmp_path, api.url) as running:
        receiver = running.child("receiver")
        send(signal.SIGSTOP, [receiver])
        ran = run("health", cwd=tmp_path, **at(running))
        send(signal.SIGCONT, [receiver])
        expected = ["BRIDGE_PORT/healthz: no answer within 2 s", "BRIDGE_ADMIN_PORT/healthz: ok", "bridge: not alive"]
        assert (ran.status, lines(ran, at(running))) == (1, expected)


async def test_a_port_that_is_changed_in_the_file_is_not_yet_where_it_is(tmp_path: Path) -> None:
    """Nobody may start a bridge again because of a file it has not taken: it would not come back."""
    settings = tmp_path / "bridge.toml"
    async with standing_in() as api, service(tmp_path, api.url) as running:
        settings.write_text("port = 9\nadmin_port = 9\n")
        assert run("health", cwd=tmp_path, **running.environment).status == 0
        settings.write_text("port = ")
        ran = run("health", "--ready", cwd=tmp_path, **running.environment)
        expected = [
            f"{running.public}/healthz: ok",
            f"{running.private}/healthz: ok",
            f"{running.private}/readyz: ready",
        ]
        assert (ran.status, ran.out.splitlines()) == (0, expected)
        elsewhere = run("health", cwd=tmp_path, **running.environment, BRIDGE_CONFIG="of another bridge")
        assert elsewhere.status == 1
        await running.kill()
        assert "Connection refused" in run("health", cwd=tmp_path, **running.environment).out


@pytest.mark.parametrize("answer", [b"", b"\xff\r\n\r\n", b"HTTP/1.1 500 \x1b[31m\r\n\r\n\x1b[31mred"])
def test_what_is_no_bridge_does_not_live_and_steers_no_terminal(tmp_path: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        where = {"BRIDGE_HOST": "127.0.0.1", "BRIDGE_PORT": port, "BRIDGE_ADMIN_PORT": "9"}

        def serve() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        ran = run("health", cwd=tmp_path, **where)
    assert ran.status == 1
    assert lines(ran, where)[1:] == ["BRIDGE_ADMIN_PORT/healthz: Connection refused", "bridge: not alive"]
    assert "\x1b" not in ran.out


def test_a_configuration_that_became_wrong_is_no_reason(tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text("prot = 1\nport = 9\nadmin_port = 9\n")
    ran = run("health", cwd=tmp_path, BRIDGE_ADMIN_HOST="::1")
    assert ran.status == 1
    assert ran.out.splitlines() == [
        "http://127.0.0.1:9/healthz: Connection refused",
        "http://[::1]:9/healthz: Connection refused",
    ]

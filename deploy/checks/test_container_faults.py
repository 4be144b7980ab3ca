"""What a container is given that it can't work with: one clear line and exit status 2, or a reason in /readyz."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from engine import Engine
from running import SPARE, container, settings
from service import SECRETS
from tools import until

pytest_plugins = ["containers"]

IMAGE = "webhook-event-bridge"
NOT_STORED = "readyz: deliveries can't be stored: /data/bridge.db: "


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A directory that the bridge may write, with every directory above it open to all."""
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    found = tmp_path / "volume"
    found.mkdir()
    os.chown(found, 10001, 10001)
    return found


def refused(engine: Engine, *options: str) -> str:
    """The one line that is said by a bridge that does not start."""
    said = engine.docker("run", "--rm", *SPARE, *options, IMAGE, status=2).splitlines()
    assert len(said) == 1, said
    assert SECRETS["STRIPE_WEBHOOK_SECRET"] not in said[0]
    return said[0]


def test_a_volume_that_is_read_only(engine: Engine, volume: Path) -> None:
    said = refused(engine, *settings(), f"--volume={volume}:/data:ro")
    assert said == "bridge: journal: /data/bridge.db: Read-only file system"


def test_a_volume_that_is_anothers(engine: Engine, volume: Path) -> None:
    os.chown(volume, 0, 0)
    said = refused(engine, *settings(), f"--volume={volume}:/data")
    why = "belongs to uid 0, and is not to be written by uid 10001, which the bridge runs as"
    assert said == f"bridge: journal: /data/bridge.db: /data {why}"


def test_a_journal_that_is_anothers_as_one_that_root_has_restored(engine: Engine, volume: Path) -> None:
    (volume / "bridge.db").touch(0o600)
    said = refused(engine, *settings(), f"--volume={volume}:/data")
    assert said.startswith("bridge: journal: /data/bridge.db: /data/bridge.db belongs to uid 0, ")


def test_a_volume_that_is_full(engine: Engine) -> None:
    said = refused(engine, *settings(), "--tmpfs=/data:size=16k,mode=777")
    assert said == "bridge: journal: /data/bridge.db: the disk is full"


def test_a_volume_that_fills_up_is_a_reason_not_to_be_ready_until_there_is_room(engine: Engine) -> None:
    with container(engine, *settings(), "--tmpfs=/data:size=2m,mode=777") as bridge:
        assert bridge.post(1) == 200
        bridge.run("sh", "-c", "cat /dev/zero > /data/filling || true", status=None)
        until(lambda: bridge.post("x") == 503)
        assert f"{NOT_STORED}the disk is full" in bridge.run("bridge", "health", "--ready", status=1)
        bridge.run("bridge", "health")
        bridge.run("rm", "/data/filling")
        bridge.until_ready()
        assert bridge.post(2) == 200
        assert bridge.listed().keys() >= {"evt_1", "evt_2"}


def test_transforms_that_are_not_there(engine: Engine) -> None:
    said = refused(engine, *settings(BRIDGE_TRANSFORMS="/nowhere"))
    assert said == "bridge: BRIDGE_TRANSFORMS: /nowhere: no such file or directory"


def test_a_secrets_file_that_is_empty(engine: Engine, volume: Path) -> None:
    (volume / "secret").write_text("\n")
    mounted = f"--volume={volume}/secret:/run/secrets/SLACK_SIGNING_SECRET:ro"
    assert refused(engine, *settings(), mounted) == "bridge: /run/secrets/SLACK_SIGNING_SECRET: blank"


def test_a_secrets_file_that_only_root_may_read(engine: Engine, volume: Path) -> None:
    (volume / "secret").write_text("whsec_x")
    (volume / "secret").chmod(0o600)
    mounted = f"--volume={volume}/secret:/run/secrets/SLACK_SIGNING_SECRET:ro"
    assert refused(engine, *settings(), mounted) == "bridge: /run/secrets/SLACK_SIGNING_SECRET: Permission denied"


def test_a_private_listener_for_all_without_a_token(engine: Engine) -> None:
    said = refused(engine, *settings(BRIDGE_ADMIN_HOST="0.0.0.0"))  # noqa: S104 - that is what is refused
    assert said.startswith("bridge: BRIDGE_ADMIN_HOST: others can reach 0.0.0.0, so set BRIDGE_ADMIN_TOKEN")


def test_with_a_token_it_is_asked_for_by_all_but_health(engine: Engine) -> None:
    given = settings(BRIDGE_ADMIN_HOST="0.0.0.0", BRIDGE_ADMIN_TOKEN="t0ken")  # noqa: S104 - of a container
    with container(engine, *given) as bridge:
        asking = "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8081); c.request('GET', sys.argv[1]"
        for path, status in (("/metrics", 401), ("/", 401), ("/healthz", 200), ("/readyz", 200)):
            assert bridge.run("python", "-c", f"{asking}); print(c.getresponse().status)", path) == f"{status}\n"
        token = ", headers={'Authorization': 'Bearer t0ken'}"
        assert bridge.run("python", "-c", f"{asking}{token}); print(c.getresponse().status)", "/metrics") == "200\n"


def test_a_secret_is_rotated_by_its_file_alone(engine: Engine, volume: Path) -> None:
    (volume / "STRIPE_WEBHOOK_SECRET").write_text("whsec_old")
    with container(engine, "--env=INNGEST_DEV=1", f"--volume={volume}:/run/secrets:ro") as bridge:
        assert bridge.post(1, secret="whsec_old") == 200
        (volume / "STRIPE_WEBHOOK_SECRET").write_text("whsec_new")
        until(lambda: bridge.post(2, secret="whsec_new") == 200)
        assert bridge.post(3, secret="whsec_old") == 401

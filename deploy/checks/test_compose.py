"""deploy/README.md from nothing to a first webhook, command by command, and the profiles of deploy/compose.yaml."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine import Engine
from running import Running, checkout, stand_in
from tools import DEPLOY, run, until

pytest_plugins = ["containers"]

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# Of images that others make; for Grafana there is none.
STAND_INS = {"inngest": "inngest", "postgres": "postgres", "proxy": "caddy", "prometheus": "prometheus"}


def shown(heading: str, language: str = "sh") -> str:
    """The first block of that language under a heading of the README."""
    text = (DEPLOY / "README.md").read_text().partition(f"## {heading}\n")[2]
    [block, *_] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(block)


def commands() -> list[str]:
    return [line for line in shown("From nothing to a first webhook").splitlines() if line]


@dataclass(frozen=True)
class User:
    """Somebody at a shell, in a checkout of the project."""

    engine: Engine
    folder: Path

    def types(self, *lines: str) -> str:
        said = self.engine.shell("\n".join(lines), cwd=self.folder)
        return re.sub(r"\x1b\[[0-9]*m", "", said)  # a terminal's colours

    def compose(self, command: str) -> str:
        return self.types("cd deploy", f"docker compose {command}")

    def bridge(self, name: str = "bridge") -> Running:
        return Running(self.engine, f"bridge_{name}_1", "http://127.0.0.1:8080")

    def events(self) -> set[str]:
        lines = self.engine.docker("logs", "bridge_inngest_1").splitlines()
        return {json.loads(line)["id"].rpartition(":")[2] for line in lines if line.startswith("{")}


@pytest.fixture(scope="module")
def images(engine: Engine) -> None:
    for service, name in STAND_INS.items():
        stand_in(engine, name, SERVICES[service]["image"])


@pytest.fixture
def user(engine: Engine, images: None, tmp_path: Path) -> Iterator[User]:
    del images
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    checkout(tmp_path)
    found = User(engine, tmp_path)
    yield found
    found.compose("--profile postgresql --profile monitoring down --volumes")


def test_under_ten_commands_lead_from_nothing_to_a_stripe_webhook_that_arrives(user: User) -> None:
    typed = commands()
    assert len(typed) < 10
    said = user.types("set -x", *typed)
    assert "http://127.0.0.1:8081/readyz: ready" in said
    sent = re.findall(r"200 in \d+ ms\s+customer\.created\s+(evt_\w+)", said)
    assert sent, said
    [id_] = set(sent)
    until(lambda: user.bridge().listed() == {id_: "forwarded"})
    assert user.events() == {id_}
    counted = user.compose("exec bridge bridge metrics bridge_deliveries")
    assert 'bridge_deliveries_total{outcome="accepted",source="stripe"} 1.0' in counted
    # From outside, as Stripe would send it.
    assert user.bridge().post(1, secret="whsec_...") == 200
    assert user.bridge().post(2, secret="another") == 401
    until(lambda: user.events() == {id_, "evt_1"})
    (user.folder / "deploy" / "secrets" / "STRIPE_WEBHOOK_SECRET").write_text("whsec_of_my_endpoint\n")
    until(lambda: user.bridge().post(3, secret="whsec_of_my_endpoint") == 200)
    user.compose("restart bridge")
    until(lambda: user.bridge().post(4, secret="whsec_of_my_endpoint") == 200)
    assert user.bridge().listed().keys() == {id_, "evt_1", "evt_3", "evt_4"}


def test_the_image_is_built_run_and_added_to_as_it_is_shown(user: User) -> None:
    secrets, transforms = user.folder / "secrets", user.folder / "own" / "transforms"
    secrets.mkdir()
    for name, value in (("STRIPE_WEBHOOK_SECRET", "whsec_..."), ("INNGEST_EVENT_KEY", "a key")):
        (secrets / name).write_text(value)
    try:
        user.types(shown("The image"))
        bridge = Running(user.engine, "bridge", "http://127.0.0.1:8080")
        bridge.until_ready()
        assert bridge.post(1, secret="whsec_...") == 200
    finally:
        user.types("docker rm --force --volumes bridge", "docker volume rm --force journal")
    transforms.mkdir(parents=True)
    (transforms / "stripe.py").write_text("import inflection\n\ndef transform(delivery):\n    return None\n")
    (user.folder / "own" / "Dockerfile").write_text(shown("The image", "dockerfile"))
    user.types("docker build --tag own own")
    said = user.types(
        "docker run --rm --env STRIPE_WEBHOOK_SECRET=s --env INNGEST_DEV=http://127.0.0.1:9 own check || true"
    )
    assert "of your own: stripe" in said


def test_two_bridges_on_a_postgresql_lose_nothing_when_either_is_stopped(user: User) -> None:
    user.types(*commands()[:4])
    user.compose("--profile postgresql up --build --detach --wait proxy")
    until(lambda: user.bridge("bridge-1").post(0, secret="whsec_...") == 200)
    posted = {"evt_0"}
    for n, name in enumerate(("bridge-1", "bridge-2"), 1):
        other = "bridge-2" if name == "bridge-1" else "bridge-1"
        user.compose(f"--profile postgresql stop {name}")
        until(lambda n=n, other=other: user.bridge(other).post(n, secret="whsec_...") == 200)  # type: ignore[misc]  # mypy does not see the defaults
        posted.add(f"evt_{n}")
        user.compose(f"--profile postgresql start {name}")
        user.bridge(name).until_ready()
    until(lambda: user.bridge("bridge-1").listed() == dict.fromkeys(posted, "forwarded"))
    assert user.events() == posted


def test_prometheus_has_the_token_the_rules_and_the_bridge(user: User) -> None:
    user.types(*commands()[:4])
    user.compose("--profile monitoring up --build --detach --wait prometheus bridge")

    def asked(what: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:9090/api/v1/{what}") as response:
            found: dict[str, Any] = json.load(response)["data"]
            return found

    until(lambda: [each["health"] for each in asked("targets")["activeTargets"]] == ["up"], patience=60)
    [target] = asked("targets")["activeTargets"]
    assert target["labels"] == {"instance": "bridge", "job": "bridge"}
    assert len(asked("rules")["groups"]) > 1


def test_what_is_not_run_here_is_there_and_pinned() -> None:
    for name, service in SERVICES.items():
        assert re.fullmatch(r"\S+:v?[0-9][0-9.]*(-[a-z]+)?", service["image"]), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "for this machine alone"
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            there = source in COMPOSE["volumes"] or (DEPLOY / source).exists()
            assert there or source in {"./secrets", "./transforms", "./secrets/BRIDGE_ADMIN_TOKEN"}, volume
    assert {name for name, service in SERVICES.items() if "build" not in service} == {*STAND_INS, "grafana"}
    for name in ("bridge", "bridge-1", "bridge-2"):
        service = SERVICES[name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert "8081" not in str(service.get("ports")), "the private listener is published nowhere"
    run("yamllint", "-c", DEPLOY / ".yamllint", DEPLOY / "compose.yaml")

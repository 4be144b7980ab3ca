"""deploy/README.md from nothing to a first webhook, command by command, and what comes after it with deploy/compose.yaml."""

from __future__ import annotations

import json
import re
import stat
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine import Engine
from running import Running, checkout, stand_in
from tools import DEPLOY, ROOT, run, until

pytest_plugins = ["containers"]

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# Of images that others make; for Grafana there is none.
STAND_INS = {"inngest": "inngest", "postgres": "postgres", "proxy": "caddy", "prometheus": "prometheus"}
README = (DEPLOY / "README.md").read_text()
REPLICAS = ("bridge-1", "bridge-2")
# What the README has the user write.
SECRET = "whsec_...\n"


def blocks(start: str, *, end: str = "## ", language: str = "sh") -> list[str]:
    """Of that language in the README, from the line that begins so to the next that begins with what `end` matches."""
    text = re.split(rf"\n(?:{end})", README.partition(f"\n{start}")[2])[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def shown(what: str) -> list[str]:
    """The commands of the paragraph that begins with these words in bold."""
    return blocks(f"**{what}**", end=r"\*\*|#+ ")


PREPARE, GIVE, UP, WELL = blocks("## From nothing to a first webhook")[:4]


@dataclass(frozen=True)
class User:
    """Somebody at a shell, in a checkout of the project."""

    engine: Engine
    folder: Path

    def types(self, *lines: str, stdin: str = "") -> str:
        """`stdin`: for what waits for it."""
        environment = {"GIT_DIR": str(ROOT / ".git")}
        said = self.engine.shell(
            "\n".join(("umask 022", *lines)), cwd=self.folder, environment=environment, stdin=stdin
        )
        return re.sub(r"\x1b\[[0-9]*m", "", said)  # a terminal's colours

    def further(self, *lines: str, stdin: str = "") -> str:
        """Where the commands of the first section leave one."""
        return self.types("cd deploy", *lines, stdin=stdin)

    def prepares(self) -> None:
        self.types(PREPARE, GIVE, stdin=SECRET)

    def compose(self, command: str) -> str:
        return self.further(f"docker compose {command}")

    def bridge(self, name: str = "bridge") -> Running:
        return Running(self.engine, f"bridge_{name}_1", "http://127.0.0.1:8080")

    def image(self, service: str) -> str:
        return self.engine.docker("inspect", "--format", "{{.ImageName}}", f"bridge_{service}_1").strip()

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
    typed = [line for block in (PREPARE, GIVE, UP) for line in block.splitlines()]
    assert len([command for line in typed for command in re.split(r"&&|;|\|", line)]) < 10
    said = user.types("set -x", *typed, stdin=SECRET)
    assert "http://127.0.0.1:8081/readyz: ready" in user.further(WELL)
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


def test_what_is_the_users_is_for_nobody_else_on_the_machine_and_not_for_git(user: User) -> None:
    user.prepares()
    assert stat.S_IMODE((user.folder / "deploy").stat().st_mode) == 0o700
    theirs = ["secrets/STRIPE_WEBHOOK_SECRET", "settings/bridge.toml", "transforms/stripe.py", ".env"]
    told = run("git", "-C", ROOT, "check-ignore", *(f"deploy/{each}" for each in theirs))
    assert told.splitlines() == [f"deploy/{each}" for each in theirs]


def test_settings_and_transforms_are_read_again_as_an_editor_leaves_them(user: User) -> None:
    """Another file in the place of the old one."""
    user.prepares()
    user.compose("up --build --detach --wait")
    [reload] = shown("Transforms")
    settings = user.folder / "deploy" / "settings"
    assert "# " in (settings / "bridge.toml").read_text()
    (settings / "new").write_text(
        '[sources.shop]\nprovider = "stripe"\nsecrets = ["file:/run/secrets/STRIPE_WEBHOOK_SECRET"]\n'
    )
    (settings / "new").rename(settings / "bridge.toml")
    (user.folder / "deploy" / "transforms" / "stripe.py").write_text("def transform(delivery):\n    return None\n")
    user.further(reload)
    until(lambda: "configuration.taken" in [line["event"] for line in user.bridge().log()])
    assert "/webhooks/shop" in user.bridge().run("bridge", "sources")
    assert user.bridge().post(1, secret="whsec_...") == 200
    until(lambda: user.bridge().listed() == {"evt_1": "skipped"})


def test_inngest_cloud_takes_the_place_of_the_dev_server(user: User) -> None:
    user.prepares()
    user.compose("up --build --detach --wait")
    user.further(*shown("Inngest Cloud"), stdin="a key\n")
    assert user.bridge().run("printenv", "INNGEST_DEV") == "\n"
    user.bridge().run("bridge", "health")


def test_the_image_is_built_run_and_added_to_as_it_is_shown(user: User) -> None:
    user.prepares()
    user.compose("up --build --detach --wait")
    build, start = blocks("## The image")
    try:
        user.further(build, stdin="a key\n")
        user.further(start)
        bridge = Running(user.engine, "bridge", "http://127.0.0.1:8080")
        bridge.until_ready()
        assert bridge.post(1, secret="whsec_...") == 200
    finally:
        user.types("docker rm --force --volumes bridge", "docker volume rm --force journal")
    transforms = user.folder / "own" / "transforms"
    transforms.mkdir(parents=True)
    (transforms / "stripe.py").write_text("import inflection\n\ndef transform(delivery):\n    return None\n")
    [own] = blocks("## The image", language="dockerfile")
    (user.folder / "own" / "Dockerfile").write_text(own)
    user.types("docker build --tag own own")
    said = user.types(
        "docker run --rm --env STRIPE_WEBHOOK_SECRET=s --env INNGEST_DEV=http://127.0.0.1:9 own check || true"
    )
    assert "of your own: stripe" in said


def asked(what: str) -> dict[str, Any]:
    """Of Prometheus."""
    with urllib.request.urlopen(f"http://127.0.0.1:9090/api/v1/{what}") as response:
        found: dict[str, Any] = json.load(response)["data"]
        return found


def prometheus_is_ready() -> bool:
    try:
        with urllib.request.urlopen("http://127.0.0.1:9090/-/ready"):
            return True
    except OSError:
        return False


def is_watched(user: User, *bridges: str) -> None:
    """By the README's command, less Grafana, of which there is no image here."""
    [command] = shown("Prometheus and Grafana")
    assert command.endswith(" grafana\n") and SERVICES["grafana"]["depends_on"] == ["prometheus"]
    user.further(command.replace(" grafana\n", " prometheus\n"))
    until(prometheus_is_ready)
    until(
        lambda: (
            {each["labels"]["instance"]: each["health"] for each in asked("targets")["activeTargets"]}
            == dict.fromkeys(bridges, "up")
        ),
        patience=60,
    )
    assert {each["labels"]["job"] for each in asked("targets")["activeTargets"]} == {"bridge"}
    assert len(asked("rules")["groups"]) > 1


def test_two_bridges_on_a_postgresql_take_over_and_lose_nothing_when_either_is_stopped(user: User) -> None:
    user.prepares()
    user.compose("up --build --detach --wait")
    user.compose("stop inngest")
    assert user.bridge().post("pending", secret="whsec_...") == 200
    user.further(*shown("Two bridges on a PostgreSQL"))
    posted = {"evt_pending"}
    for name in REPLICAS:
        user.bridge(name).until_ready()
    for name, other in (REPLICAS, REPLICAS[::-1]):
        user.compose(f"--profile postgresql stop {name}")
        assert [user.bridge().post(f"{other}_{n}", secret="whsec_...") for n in range(30)] == [200] * 30
        posted |= {f"evt_{other}_{n}" for n in range(30)}
        user.compose(f"--profile postgresql start {name}")
        user.bridge(name).until_ready()
    until(lambda: user.bridge("bridge-1").listed() == dict.fromkeys(posted, "forwarded"))
    assert user.events() == posted
    is_watched(user, *REPLICAS)
    assert user.bridge().post("watched", secret="whsec_...") == 200
    for name in REPLICAS:
        user.engine.docker("stop", f"bridge_{name}_1")
    assert user.bridge().post("nobody", secret="whsec_...") == 503


def test_one_bridge_is_watched(user: User) -> None:
    user.prepares()
    user.compose("up --build --detach --wait")
    is_watched(user, "bridge")
    assert user.engine.docker("exec", "bridge_prometheus_1", "ls", "/run/secrets") == "BRIDGE_ADMIN_TOKEN\n"


def released(user: User) -> None:
    """The next release is fetched."""
    file = user.folder / "deploy" / "compose.yaml"
    file.write_text(file.read_text().replace("webhook-event-bridge:0.1.0", "webhook-event-bridge:0.1.1"))


def test_an_upgrade_keeps_what_was_there(user: User) -> None:
    one, two = shown("To upgrade")
    user.prepares()
    user.compose("up --build --detach --wait")
    assert user.bridge().post(1, secret="whsec_...") == 200
    released(user)
    user.further(one)
    assert user.image("bridge").endswith(":0.1.1")
    assert user.bridge().listed().keys() == {"evt_1"}
    user.further(*shown("Two bridges on a PostgreSQL"))
    file = user.folder / "deploy" / "compose.yaml"
    file.write_text(file.read_text().replace(":0.1.1", ":0.1.2"))
    user.further(two)
    for name in REPLICAS:
        assert user.image(name).endswith(":0.1.2")
        user.bridge(name).until_ready()
    until(lambda: user.bridge().post(2, secret="whsec_...") == 200)
    assert user.bridge("bridge-2").listed().keys() == {"evt_1", "evt_2"}


def mounted(service: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What of this machine, and how."""
    for volume in service.get("volumes", []):
        source, _, options = volume.split(":", 2) if volume.count(":") == 2 else (*volume.split(":"), "")
        if source not in COMPOSE["volumes"]:
            yield source, options


def test_what_is_not_run_here_is_there_and_pinned() -> None:
    made = {"./secrets", "./secrets/prometheus", "./settings", "./transforms"}
    for name, service in SERVICES.items():
        assert re.fullmatch(r"\S+:v?[0-9][0-9.]*(-[a-z]+)?", service["image"]), name
        assert service["restart"] == "unless-stopped", "all of it comes up again with the machine"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "for this machine alone"
        for source, options in mounted(service):
            assert options == "ro,z", "`z` is for SELinux"
            assert source in made or (DEPLOY / source).is_dir(), "not a file, which would stay the old one"
    assert SERVICES.keys() == {*STAND_INS, "grafana", "bridge", *REPLICAS}
    for name in ("bridge", *REPLICAS):
        service = SERVICES[name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["image"] == SERVICES["bridge"]["image"]
        assert "8081" not in str(service.get("ports")), "the private listener is published nowhere"
    assert [name for name in SERVICES if "build" in SERVICES[name]] == ["bridge"], "not three times at once"
    assert {SERVICES[name]["pull_policy"] for name in REPLICAS} == {"never"}
    run("yamllint", "-c", DEPLOY / ".yamllint", DEPLOY / "compose.yaml")

"""A container of the image, as deploy/README.md has one started, and what the checks ask of it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import Engine
from service import SECRETS, delivery
from tools import DEPLOY, ROOT, path_of, run, until

from bridge import providers
from bridge.clock import wall_clock

# What a container of the bridge can do without, and so should.
SPARE = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Running:
    """`address`: of its public listener, from this machine."""

    engine: Engine
    name: str
    address: str

    def run(self, *command: str, status: int | None = 0) -> str:
        """What a command prints inside."""
        return self.engine.docker("exec", self.name, *command, status=status)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.engine.docker("logs", self.name).splitlines() if line.startswith("{")]

    def listed(self) -> dict[str, str]:
        """The state of each delivery, by its id."""
        lines = self.run("bridge", "list", "--json", "--limit", "100000").splitlines()
        return {entry["id"]: entry["state"] for entry in map(json.loads, lines)}

    def post(self, n: int | str, *, secret: str = SECRETS["STRIPE_WEBHOOK_SECRET"]) -> int:
        """From outside, signed as Stripe signs. The status; 0: nobody answered."""
        body = delivery(n)
        headers = providers.load()["stripe"].scheme.sign(body, secret=secret.encode(), now=wall_clock())
        request = urllib.request.Request(f"{self.address}/webhooks/stripe", data=body, headers=dict(headers))  # noqa: S310 - http
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310 - http
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def until_ready(self) -> None:
        until(
            lambda: "readyz: ready" in self.engine.docker("exec", self.name, "bridge", "health", "--ready", status=None)
        )


@contextmanager
def container(engine: Engine, *options: str, name: str = "bridge", ready: bool = True) -> Iterator[Running]:
    """Started with these options, and gone afterwards."""
    engine.docker(
        "run", "--detach", "--name", name, *SPARE, "--publish", "127.0.0.1::8080", *options, "webhook-event-bridge"
    )
    try:
        port = engine.docker("port", name, "8080").strip()
        found = Running(engine, name, f"http://{port}")
        if ready:
            found.until_ready()
        yield found
    finally:
        engine.docker("rm", "--force", "--volumes", name)


def settings(**more: str) -> list[str]:
    """Options that set what a bridge needs, and this."""
    needed = {"STRIPE_WEBHOOK_SECRET": SECRETS["STRIPE_WEBHOOK_SECRET"], "INNGEST_DEV": "http://inngest:8288", **more}
    return [f"--env={name}={value}" for name, value in needed.items()]


def stand_in(engine: Engine, name: str, tag: str) -> None:
    """Have an image that takes the place of one that is in a registry, under its name. What each is: images/."""
    with tempfile.TemporaryDirectory() as context:
        shutil.copytree(DEPLOY / "checks" / "images" / name, context, dirs_exist_ok=True)
        if name == "caddy":
            shutil.copy(path_of("caddy"), context)
        engine.docker("build", "--tag", tag, context)


def checkout(into: Path) -> None:
    """A copy of the project, less what git ignores."""
    files = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for each in filter(os.path.exists, (f"{ROOT}/{file}" for file in files)):
        to = into / Path(each).relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(each, to)

"""A container of the image, as deploy/README.md has one started, and what the checks ask of it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
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
SPARE = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges")  # noqa: S108 - of the container
PATIENCE = 30.0
LOCK = """
import contextlib, socket, sqlite3, time
journal = sqlite3.connect("/data/bridge.db", isolation_level=None)
journal.execute("BEGIN EXCLUSIVE")
open("/tmp/locked", "w").close()
with contextlib.suppress(OSError):
    while True:
        socket.create_connection(("127.0.0.1", 8080)).close()
        time.sleep(0.05)
"""


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
        # Where the journal does not answer just then, there is none to see.
        lines = self.run("bridge", "list", "--json", "--limit", "100000", status=None).splitlines()
        return {entry["id"]: entry["state"] for entry in (json.loads(line) for line in lines if line.startswith("{"))}

    def post(self, n: int | str, *, secret: str = SECRETS["STRIPE_WEBHOOK_SECRET"]) -> int:
        """From outside, signed as Stripe signs. The status; 0: nobody answered."""
        body, headers = signed(n, secret)
        request = urllib.request.Request(f"{self.address}/webhooks/stripe", data=body, headers=headers)  # noqa: S310 - http
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310 - http
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    @contextmanager
    def asked(self, n: int | str) -> Iterator[Callable[[], int]]:
        """A webhook that is being received, for its end is not awaited. Call what is yielded for the status."""
        body, headers = signed(n, SECRETS["STRIPE_WEBHOOK_SECRET"])
        head = {**headers, "Host": "bridge", "Content-Length": str(len(body)), "Expect": "100-continue"}
        lines = ["POST /webhooks/stripe HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        host, _, port = self.address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall("\r\n".join(lines).encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
            connection.sendall(body)
            yield lambda: int(connection.recv(1000).split()[1])

    @contextmanager
    def journal_locked(self) -> Iterator[None]:
        """For all that would write to it, by a process inside, until no new connections are taken: so until it stops."""
        holding = threading.Thread(target=self.run, args=["python", "-c", LOCK], kwargs={"status": None})
        holding.start()
        until(lambda: self.run("ls", "/tmp/locked", status=None) == "/tmp/locked\n")  # noqa: S108 - of the container
        yield
        holding.join()

    def until_ready(self) -> None:
        until(
            lambda: "readyz: ready" in self.engine.docker("exec", self.name, "bridge", "health", "--ready", status=None)
        )


def signed(n: int | str, secret: str) -> tuple[bytes, dict[str, str]]:
    """A delivery of Stripe's, and the headers it comes with."""
    body = delivery(n)
    return body, dict(providers.load()["stripe"].scheme.sign(body, secret=secret.encode(), now=wall_clock()))


@contextmanager
def container(engine: Engine, *options: str, image: str = "webhook-event-bridge") -> Iterator[Running]:
    """Started with these options, ready, and gone afterwards."""
    name = "bridge"
    engine.docker("run", "--detach", "--name", name, *SPARE, "--publish", "127.0.0.1::8080", *options, image)
    try:
        port = engine.docker("port", name, "8080").strip()
        found = Running(engine, name, f"http://{port}")
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

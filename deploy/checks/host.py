"""A machine with the bridge on it, installed as the README says, and what the checks ask of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import orjson
from machine import Machine, machine
from tools import DEPLOY, ROOT
from tools import until as until_it_is

SETTINGS = "/etc/bridge/bridge.toml"
_DROP_INS = "/etc/systemd/system/bridge.service.d"
# Seconds: a machine is started, and packages are installed on it.
until = partial(until_it_is, patience=60.0)


def section(heading: str) -> str:
    """Of the README."""
    return (DEPLOY / "README.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]


def commands(heading: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", section(heading), re.MULTILINE | re.DOTALL)


INSTALL, KEY, SECRET, START, SEE, COMMANDS, ROTATE, FILE, ENCRYPT, UPGRADE = commands("systemd, without containers")
BRIDGE = COMMANDS.partition("bridge check")[0]
"""The function `bridge`."""


ONCE = "bridge/once.py"
"""A module of the release that is installed first, and of none after it."""


class Host:
    """A machine with the bridge on it, as the README installs it, and an Event API beside it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def run(self, command: str, *, stdin: str = "", status: int = 0) -> str:
        return self.machine.run(command, stdin=stdin, status=status)

    def bridge(self, arguments: str, *, status: int = 0) -> str:
        return self.run(f"{BRIDGE} bridge {arguments}", status=status)

    def shows(self, *properties: str) -> list[str]:
        """Of the unit."""
        return [self.run(f"systemctl show --property={name} --value bridge").strip() for name in properties]

    def ready(self) -> bool:
        return self.run("curl -s http://127.0.0.1:8081/readyz || true") == "ready\n"

    def until_ready(self) -> None:
        until(self.ready, otherwise=lambda: self.run("journalctl -u bridge -o cat -n 50"))

    def until_logged(self, event: str) -> None:
        """Since the unit was last started, at least."""
        log = "journalctl -u bridge -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID bridge)"
        until(lambda: event in self.run(log), otherwise=lambda: self.run(log))

    def restart(self) -> None:
        self.run("systemctl daemon-reload; systemctl restart bridge")
        self.until_ready()

    def send(self, sample: str = "stripe customer.created") -> str:
        """The id of what was accepted."""
        return str(orjson.loads(self.bridge(f"send --json {sample}"))["id"])

    def arrived(self, id_: str) -> dict[str, Any]:
        """Its event, once it is there."""

        def found() -> list[dict[str, Any]]:
            events = map(orjson.loads, self.run("journalctl -u event-api -o cat | grep '^{' || true").splitlines())
            return [event for event in events if id_ in event["id"]]

        until(found, otherwise=lambda: self.run("journalctl -u bridge -u event-api -o cat -n 50"))
        return found()[0]

    @contextmanager
    def changed(self, *lines: str, settings: str = "") -> Iterator[None]:
        """The bridge with these lines in its unit, and these settings behind its own."""
        self.run(f"mkdir -p {_DROP_INS}; cat >{_DROP_INS}/checks.conf", stdin="\n".join(("[Service]", *lines, "")))
        self.run(f"cp {SETTINGS} /tmp/settings; cat >>{SETTINGS}", stdin=settings)
        try:
            self.restart()
            yield
        finally:
            self.run(f"rm {_DROP_INS}/checks.conf; cp /tmp/settings {SETTINGS}")
            self.restart()


@contextmanager
def installed() -> Iterator[Host]:
    """It runs, and an Event API beside it. Commands of the README alone have brought it there."""
    with machine() as booted:
        booted.run(f"touch {ONCE}")
        booted.run(INSTALL, online=True)
        booted.run(KEY, stdin="key-of-the-checks\n")
        booted.run(SECRET, stdin="whsec_of_the_checks\n")
        event_api = "/opt/bridge/bin/python deploy/checks/event_api.py 8288 key-of-the-checks"
        booted.run(f"systemd-run --quiet --unit=event-api --working-directory={ROOT} {event_api}")
        booted.run(f"cat >>{SETTINGS}", stdin='[event_api]\nbase_url = "http://localhost:8288"\n')
        found = Host(booted)
        found.run(START)
        found.until_ready()
        yield found

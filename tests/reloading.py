"""Has a running bridge read its configuration again, and tells what it said to that."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from service import Answer, Service, delivery, until

from bridge import providers
from bridge.clock import wall_clock

TRANSFORM = """
from bridge import Event

def transform(delivery):
    return Event(name="{name}", data={{}})
"""


def without_secret(folder: Path) -> dict[str, str]:
    """An environment that leaves Stripe's secret to a file."""
    secret = folder / "secret"
    secret.write_text("whsec_old\n")
    return {"STRIPE_WEBHOOK_SECRET_FILE": str(secret)}


async def post(to: Service, n: int | str, secret: str) -> Answer:
    body = delivery(n)
    headers = providers.load()["stripe"].scheme.sign(body, secret=secret.encode(), now=wall_clock())
    return await to.ask("POST", f"{to.public}/webhooks/stripe", data=body, headers=headers)


def hang_up(on: Service) -> None:
    os.kill(on.pid, signal.SIGHUP)


def told(of: Service, event: str) -> list[str]:
    return [line.get("changed") or line["reason"] for line in of.log() if line["event"] == event]


async def taken(by: Service, times: int = 1) -> list[str]:
    """What changed, each time."""
    await until(lambda: len(told(by, "configuration.taken")) >= times)
    return told(by, "configuration.taken")


async def refused(by: Service, times: int = 1) -> list[str]:
    """Why."""
    await until(lambda: len(told(by, "configuration.refused")) >= times)
    return told(by, "configuration.refused")

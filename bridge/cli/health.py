"""health: asks the bridge on this machine whether it lives, for what watches it and has no curl."""

from __future__ import annotations

from http import HTTPStatus

import click

from bridge.cli.running import get, listeners
from bridge.errors import BridgeError
from bridge.log import printable

# Seconds. Both answer within milliseconds; what watches us waits a few seconds at most.
_TIMEOUT = 2.0
# Bytes of an answer: reasons not to be ready.
_SHOWN = 4096


@click.command()
@click.option("--ready", is_flag=True, help="Ask also whether it is ready, and why not.")
def health(*, ready: bool) -> None:
    """Tell whether the bridge on this machine lives: that both its listeners answer. Exit status 1 where it does not.

    One that can't reach the Event API, or its journal, lives: to start it again would not help. --ready tells why not.

    \b
    bridge health
    bridge health --ready
    """
    public, private = listeners()
    asked = [f"{public}/healthz", f"{private}/healthz", *([f"{private}/readyz"] if ready else [])]
    answers = [_ask(url) for url in asked]
    for url, (_, said) in zip(asked, answers, strict=True):
        click.echo(f"{url}: {said}")
    if not all(good for good, _ in answers):
        raise BridgeError("not ready" if all(good for good, _ in answers[:2]) else "not alive")


def _ask(url: str) -> tuple[bool, str]:
    """Whether it answered 200, and what it said."""
    try:
        status, said = get(url, within=_TIMEOUT, most=_SHOWN)
    except BridgeError as error:
        return False, str(error)
    return status == HTTPStatus.OK, printable(said.strip().replace("\n", "; "))

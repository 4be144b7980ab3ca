"""health: asks the bridge on this machine whether it lives, for what watches it and has no curl."""

from __future__ import annotations

import os
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import click

from bridge import runtime
from bridge.cli.configured import local_url
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
    public, private = (local_url(host, port) for host, port in runtime.addresses() or _configured())
    asked = [f"{public}/healthz", f"{private}/healthz", *([f"{private}/readyz"] if ready else [])]
    answers = [_ask(url) for url in asked]
    for url, (_, said) in zip(asked, answers, strict=True):
        click.echo(f"{url}: {said}")
    if not all(good for good, _ in answers):
        raise BridgeError("not ready" if all(good for good, _ in answers[:2]) else "not alive")


def _configured() -> list[tuple[str, int]]:
    """For who asks from elsewhere: the bridge says itself where it is, to whom is where it was started."""
    from bridge import config  # noqa: PLC0415 - takes longer than all the rest, and is asked every half minute

    settings, _ = config.read(os.environ, serving=False)  # what is wrong with it now was right when the bridge took it
    return [(settings.host, settings.port), (settings.admin_host, settings.admin_port)]


def _ask(url: str) -> tuple[bool, str]:
    """Whether it answered 200, and what it said."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        said = answer.read(_SHOWN).decode(errors="replace").strip().replace("\n", "; ")
        return answer.status == HTTPStatus.OK, printable(said)
    except TimeoutError:
        return False, f"no answer within {_TIMEOUT:g} s"
    except (OSError, HTTPException) as error:
        return False, (error.strerror if isinstance(error, OSError) else "") or type(error).__name__
    finally:
        connection.close()

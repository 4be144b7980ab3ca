"""metrics: what the bridge on this machine has counted, for whoever is where it runs and has neither curl nor its token."""

from __future__ import annotations

import os
from collections.abc import Iterator
from http import HTTPStatus

import click

from bridge import config
from bridge.cli.running import get, listeners
from bridge.errors import BridgeError
from bridge.log import printable

# Seconds. As long as Prometheus waits: the journal is asked for its counts, and may be slow just when somebody looks.
_TIMEOUT = 10.0
# Bytes. A source has some 4 KB of them.
_LARGEST = 64 * 1024 * 1024
# https://prometheus.io/docs/instrumenting/exposition_formats: with this each metric begins.
_BEGINS = "# HELP "


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
def metrics(*, names: tuple[str, ...]) -> None:
    """Print the metrics of the bridge on this machine as Prometheus gets them: all, or those whose name begins so.

    The token that its private listener asks for is found where the bridge itself finds it.

    \b
    bridge metrics
    bridge metrics bridge_deliveries bridge_rejections
    """
    settings, _ = config.read(os.environ, serving=False)
    _, private = listeners()
    there = list(_each(_ask(f"{private}/metrics", settings.admin_token)))
    if not there:
        raise BridgeError(f"{private}/metrics: what answers there has no metrics, so it is no bridge")
    wanted = [metric for metric in there if metric[0].removeprefix(_BEGINS).startswith(names or ("",))]
    if not wanted:
        known = ", ".join(metric[0].split()[2] for metric in there)
        raise BridgeError(f"no metric's name begins with {' or '.join(names)}; there are {known}")
    for line in (line for metric in wanted for line in metric):
        click.echo(line)


def _each(text: str) -> Iterator[list[str]]:
    """The lines of each metric."""
    metric: list[str] = []
    for line in map(printable, text.splitlines()):
        if line.startswith(_BEGINS):
            yield from [metric] if metric else []
            metric = [line]
        elif metric:
            metric.append(line)
    yield from [metric] if metric else []


def _ask(url: str, tokens: tuple[str, ...]) -> str:
    """What it has, with the first token that it takes: while one is rotated there are several, and it may know one of them."""
    for token in tokens or ("",):
        headers = {"Authorization": f"Bearer {token}".encode()} if token else {}
        try:
            status, text = get(url, within=_TIMEOUT, most=_LARGEST, headers=headers)
        except BridgeError as error:
            raise BridgeError(f"{url}: {error}") from None
        if status == HTTPStatus.OK:
            return text
        if status != HTTPStatus.UNAUTHORIZED:
            raise BridgeError(f"{url}: {status}")
    raise BridgeError(f"{url}: {HTTPStatus.UNAUTHORIZED}: {_refused(tokens)}")


def _refused(tokens: tuple[str, ...]) -> str:
    if tokens:
        return "the running bridge has another BRIDGE_ADMIN_TOKEN than is configured here"
    return "it asks for BRIDGE_ADMIN_TOKEN, and none is to be found here: run this where it runs, as the same user"

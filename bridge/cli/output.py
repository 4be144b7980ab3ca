"""What commands print: tables and colour on a terminal, JSON lines for programs, always the same facts."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.model import State

# A pipe has no width: a line there is for grep, and must not be cut into two. No emoji: ids and payloads have colons.
_NO_WIDTH = 10_000
console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _NO_WIDTH)

_COLOURS = {State.PENDING: "yellow", State.FORWARDED: "green", State.SKIPPED: "bright_black", State.DEAD: "red"}
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def json_line(record: object) -> None:
    click.echo(_escaped(orjson.dumps(record, default=str).decode()))


def json_document(record: object) -> str:
    """Readable JSON, and safe on a terminal."""
    return _escaped(orjson.dumps(record, option=orjson.OPT_INDENT_2, default=str).decode())


def _escaped(document: str) -> str:
    """The same JSON, without what steers a terminal: a payload may hold it, and orjson leaves what is not ASCII alone."""
    if document.isprintable():
        return document
    return "".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in document)


def table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        drawn.add_column(heading, no_wrap=True, overflow="ignore")
    for row in rows:
        drawn.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    # As wide as it needs, whatever the terminal's width: where that breaks a line, an id can still be copied whole.
    Console(highlight=False, emoji=False, width=_NO_WIDTH).print(drawn)


def state(of: State) -> Text:
    return Text(of.value, style=_COLOURS[of])


def moment(ms: int) -> str:
    """To the second, UTC: for people."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")


def iso(ms: int) -> str:
    """ISO 8601 with milliseconds, UTC: for programs."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Moment(click.ParamType[int]):
    """`2026-01-31`, `2026-01-31T12:00`, with or without a zone (UTC), or how long ago: `90s`, `30m`, `2h`, `3d`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Milliseconds since 1970."""
        if isinstance(value, int):
            return value
        try:
            if ago := _AGO.fullmatch(value):
                when = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
            else:
                when = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time: write 2026-01-31T12:00 (UTC), or 30m, 2h, 3d for how long ago", param, ctx
            )
        return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)

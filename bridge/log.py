"""Logs: an event's name and its fields. JSON lines on a pipe, readable ones on a terminal, always on standard error.

What may stand in a log is names, counts, reasons and a delivery's id. Never a secret, a body, a signature, an event key.
The standard library's logging, because each process pays for more: structlog alone takes 5 MB in every one of them.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

_LEVELS = {
    logging.INFO: "\033[32minfo \033[0m",
    logging.WARNING: "\033[33mwarn \033[0m",
    logging.ERROR: "\033[31merror\033[0m",
}
# A request that is no HTTP is the sender's affair, and it may come a thousand times a second.
_SENDERS_OWN = frozenset(
    {"BadStatusLine", "BadHttpMessage", "BadHttpMethod", "InvalidHeader", "InvalidURLError", "LineTooLong",
     "TransferEncodingError", "ContentLengthError", "PayloadEncodingError", "RequestPayloadError",
     "ClientConnectionResetError", "ConnectionResetError"}
)  # fmt: skip


def configure(process: str = "") -> None:
    """Once, when a process starts. `process`: its name, in every line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Readable(process) if sys.stderr.isatty() else _Json(process))
    ours = logging.getLogger("bridge")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.INFO)
    for name in ("aiohttp", "asyncio", "opentelemetry", "psycopg", "urllib3"):
        theirs = logging.getLogger(name)
        theirs.handlers, theirs.propagate = [_Bare()], False


def info(event: str, **fields: object) -> None:
    _write(logging.INFO, event, fields)


def warning(event: str, **fields: object) -> None:
    _write(logging.WARNING, event, fields)


def error(event: str, **fields: object) -> None:
    _write(logging.ERROR, event, fields)


def _write(level: int, event: str, fields: dict[str, object]) -> None:
    logging.getLogger("bridge").log(level, event, extra={"fields": fields})


class _Json(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        line |= {"process": self._process} if self._process else {}
        line |= {"event": record.getMessage(), **_fields(record)}
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # a file's name that is not UTF-8, a number beyond 64 bits: no reason to lose the line
            return json.dumps(line, default=str)


class _Readable(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        level = _LEVELS.get(record.levelno, record.levelname)
        head = f"\033[2m{_time(record):%H:%M:%S}\033[0m {level} {self._process:<10} {record.getMessage()}"
        return " ".join((head, *(f"\033[2m{name}=\033[0m{_quoted(value)}" for name, value in _fields(record).items())))


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields


def _quoted(value: object) -> str:
    """So that one sees where it ends."""
    text = printable(str(value))
    return f'"{text}"' if " " in text or not text else text


def printable(text: str, *, keep: str = "") -> str:
    """Nothing a stranger wrote may steer the terminal. `keep`: control characters that may stay."""
    return "".join(each if each.isprintable() or each in keep else "\N{REPLACEMENT CHARACTER}" for each in text)


class _Bare(logging.Handler):
    """A library's record without its text: aiohttp's have headers of requests it cannot parse, and tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self._messages = Sparing("library.message")

    def emit(self, record: logging.LogRecord) -> None:
        raised = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        if raised not in _SENDERS_OWN:
            self._messages.write(
                record.levelno, logger=record.name, error=raised, line=f"{record.module}:{record.lineno}"
            )


class Sparing:
    """One event that strangers can cause: at most a line a second for each set of fields, with how many it stands for."""

    def __init__(self, event: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._clock = clock
        self._seen: dict[tuple[str, ...], tuple[float, int]] = {}

    def info(self, **fields: str) -> None:
        self.write(logging.INFO, **fields)

    def warning(self, **fields: str) -> None:
        self.write(logging.WARNING, **fields)

    def error(self, **fields: str) -> None:
        self.write(logging.ERROR, **fields)

    def write(self, level: int, **fields: str) -> None:
        """The fields are from closed sets, so what is remembered is bounded."""
        now = self._clock()
        written_at, unwritten = self._seen.get(key := tuple(fields.values()), (-1.0, 0))
        if now - written_at < 1:
            self._seen[key] = (written_at, unwritten + 1)
            return
        self._seen[key] = (now, 0)
        _write(level, self._event, {**fields, "count": unwritten + 1})

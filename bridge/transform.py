"""Finds and loads transform modules, and runs one for one delivery.

A transform module is `NAME.py`, named after a source or a provider, with a function `transform(delivery)`. This runs in
the worker process alone: what is loaded here is the user's code, and may do anything.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bridge import providers
from bridge.errors import EventInvalid, Retry, Unusable
from bridge.event import check, complete, encode
from bridge.model import Delivery, Entry, Event, Outcome
from bridge.verify import Provider, restore

# Enough for a traceback of the user's own frames; kept with the attempt.
_LONGEST_ERROR = 8_000
# Characters of what is said of a module that does not load: a line in a log.
_LONGEST_FAULT = 1_000

# Seconds. A body is kept for 30 days.
_LONGEST_RETRY = 30 * 86_400.0

Made = Event | Iterable[Event] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """A loaded module. `version`: its VERSION, `YYYY-MM-DD.N`, for `event.v`; None where it has none."""

    path: Path
    function: Callable[[Delivery], Made | Awaitable[Made]]
    version: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a delivery was transformed into: encoded events and their ids, or an outcome that is none."""

    events: tuple[bytes, ...] = ()
    ids: tuple[str, ...] = ()
    outcome: Outcome | None = None
    """None: there are events to send."""
    error: str = ""
    after: float = 0.0
    """Seconds, for Outcome.POSTPONED."""


def as_it_came(delivery: Delivery) -> Event:
    """For a source without a module."""
    return Event(name=f"{delivery.prefix}/{delivery.type}", data=delivery.payload)


class Transforms:
    """All that were found: the user's modules by source, then by provider, then the built-in ones by provider."""

    def __init__(self, *, own: Mapping[str, Transform], built_in: Mapping[str, Transform]) -> None:
        self.own = own
        self.built_in = built_in

    @classmethod
    def load(
        cls, directories: Sequence[Path], *, loading: Callable[[Path], None] = lambda _: None
    ) -> tuple[Transforms, list[str]]:
        """The transforms, and a line for each module that does not load. A later directory wins over an earlier one.

        `loading` is called with each module before it is loaded: it may not come back.
        """
        faults: list[str] = []
        own: dict[str, Transform] = {}
        for directory in directories:
            # Last, so that a module of the user's never hides a library of the same name.
            sys.path.append(str(directory))
            own |= _load_all(directory, faults, loading)
        return cls(own=own, built_in=_load_all(built_in_directory(), faults, loading)), faults

    def find(self, source: str, provider: str) -> Transform | None:
        """The one for a source, or None: then the delivery goes on as it came."""
        # A source may be named after another provider, whose module would make nothing of its payloads.
        names = (provider,) if source in providers.load() else (source, provider)
        return next((found for all_ in (self.own, self.built_in) for name in names if (found := all_.get(name))), None)


def built_in_directory() -> Path:
    """Where the built-in transforms lie: a package, so that a user's module can import them."""
    spec = importlib.util.find_spec("transforms")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the package `transforms` is not installed beside `bridge`")
    return Path(next(iter(spec.submodule_search_locations)))


def _load_all(directory: Path, faults: list[str], loading: Callable[[Path], None]) -> dict[str, Transform]:
    """A leading underscore makes a module a helper of others."""
    found: dict[str, Transform] = {}
    for path in sorted(directory.glob("[!_.]*.py")):
        loading(path)
        try:
            found[path.stem] = _load(path)
        except SystemExit:
            faults.append(f"{path}: exits when it is loaded")
        except BaseException as error:  # noqa: BLE001 - the user's code
            faults.append(f"{path}: {_place(error, path)}{_what(error)}")
    return found


def _place(error: BaseException, path: Path) -> str:
    """`line N: `, where the traceback or a SyntaxError tells."""
    line = getattr(error, "lineno", None)
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename) == path.absolute():
            line = frame.lineno
    return f"line {line}: " if line else ""


def _what(error: BaseException) -> str:
    if isinstance(error, _NoTransform):
        return str(error)
    # What a SyntaxError says ends in the place, which was told.
    return f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"[:_LONGEST_FAULT]


class _NoTransform(Exception):
    """The module loads, but is no transform."""


def _load(path: Path) -> Transform:
    module = _import(path)
    function = getattr(module, "transform", None)
    if not callable(function):
        raise _NoTransform("has no function `transform(delivery)`")
    try:
        with suppress(ValueError):  # of some that are written in C, nobody can tell
            inspect.signature(function).bind(None)
    except TypeError as error:
        raise _NoTransform(f"`transform` must take one argument, the delivery: {error}") from None
    version = getattr(module, "VERSION", None)
    if version is not None and not isinstance(version, str):
        raise _NoTransform("VERSION must be a string, such as `2026-01-31.1`")
    return Transform(path=path, function=function, version=version)


def _import(path: Path) -> ModuleType:
    """Under a name of its own: `stripe.py` must not be found by who imports the stripe package."""
    name = f"bridge_transform_{path.stem}_{abs(hash(path)):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("cannot be loaded as a module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look themselves up there
    spec.loader.exec_module(module)
    return module


def begin(
    entry: Entry, *, provider: Provider, transform: Transform | None
) -> tuple[Delivery, list[Event] | Awaitable[Made]] | Result:
    """Call the transform: the delivery, and its events or what is to be awaited for them; or a Result without events."""
    try:
        delivery = restore(entry, provider=provider)
    except Unusable as unusable:
        return Result(outcome=Outcome.UNUSABLE, error=str(unusable))
    function = as_it_came if transform is None else transform.function
    try:
        made = function(delivery)
        return delivery, made if inspect.isawaitable(made) else listed(made)
    except BaseException as error:  # noqa: BLE001 - the user's code: also SystemExit, or CancelledError
        return failed(error)


def end(
    events: list[Event],
    *,
    delivery: Delivery,
    provider: Provider,
    transform: Transform | None,
    generation: int,
    now: int,
    max_bytes: int,
) -> Result:
    """The events as the Event API gets them. `now` in ms."""
    if not events:
        return Result(outcome=Outcome.SKIPPED, error="the transform wants no event for it")
    version = None if transform is None else transform.version
    try:
        for event in events:
            check(event)
        completed = complete(
            events,
            delivery=delivery,
            user=provider.user(delivery.payload),
            version=version,
            generation=generation,
            now=now,
        )
        encoded = tuple(encode(event, max_bytes=max_bytes) for event in completed)
    except EventInvalid as invalid:
        return Result(outcome=Outcome.RAISED, error=_text(str(invalid)))
    except BaseException as error:  # noqa: BLE001 - fields of the user's own making
        return failed(error)
    return Result(events=encoded, ids=tuple(event.id for event in completed))


def listed(made: Any) -> list[Event]:
    """What a transform gave, as a list. Raises TypeError where it is no event."""
    if made is None:
        return []
    if isinstance(made, Event):
        return [made]
    if isinstance(made, Iterable) and not isinstance(made, str | bytes | Mapping):
        events = list(made)
        if all(isinstance(event, Event) for event in events):
            return events
    raise TypeError(f"a transform gives an Event, a list of them or None, not {type(made).__name__}")


def failed(error: BaseException) -> Result:
    """What raising comes to: another time, or the traceback for the operator."""
    if isinstance(error, Retry) and math.isfinite(error.after):
        after = min(max(0.0, error.after), _LONGEST_RETRY)
        return Result(outcome=Outcome.POSTPONED, error=_text(str(error)), after=after)
    # From the user's first frame on: ours say nothing to them.
    frames = traceback.TracebackException.from_exception(error)
    ours = str(Path(__file__).parent)
    while frames.stack and frames.stack[0].filename.startswith(ours):
        frames.stack.pop(0)
    return Result(outcome=Outcome.RAISED, error=_text("".join(frames.format())))


def _text(error: str) -> str:
    """Of any exception's text: it may hold what no JSON can, such as half a surrogate pair."""
    return error.encode("utf-8", "backslashreplace").decode()[-_LONGEST_ERROR:]

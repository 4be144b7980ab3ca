"""journal copy: what one journal holds, into another."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridge import journal, log
from bridge.cli.entries import open_journal
from bridge.cli.output import console, json_line
from bridge.errors import ConfigInvalid
from bridge.journal import History, Journal
from bridge.model import Selection, State

# Entries, and bytes of bodies, in one transaction.
_STEP, _STEP_BYTES = 200, 4 << 20
# The pending first: they are what is still owed. Then the rest, so that repetitions stay known and can be replayed.
_ORDER = (State.PENDING, State.DEAD, State.SKIPPED, State.FORWARDED)


@click.group("journal", short_help="Copy what one journal holds into another.")
def journal_() -> None:
    """Copy what one journal holds into another.

    \b
    bridge journal copy sqlite:///bridge.db env:BRIDGE_JOURNAL
    """


@journal_.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--pending", is_flag=True, help="Only what is not forwarded yet.")
@click.option("--json", "as_json", is_flag=True, help="The outcome as a line of JSON.")
def copy(*, source: str, target: str, pending: bool, as_json: bool) -> None:
    """Copy deliveries from one journal into another, such as from SQLite to PostgreSQL. The pending go first.

    FROM and TO are URLs, or env:NAME or file:PATH for a variable or a file that holds one: others on this machine can
    read a command's arguments, and a URL may have a password in it. Ids stay, so events keep theirs, and so do states
    and attempts. What is there already is left alone: a copy that was interrupted goes on when it is called again. FROM
    is not changed; no bridge may be running on it.

    \b
    bridge journal copy sqlite:///bridge.db env:BRIDGE_JOURNAL
    """
    log.configure()
    states = _ORDER[:1] if pending else _ORDER
    source, target = _url(source, "FROM"), _url(target, "TO")
    if source == target:
        raise ConfigInvalid(["FROM and TO are the same journal"])
    seen, copied = asyncio.run(_copy(source, target, states, quiet=as_json))
    if as_json:
        json_line({"copied": {state.value: copied[state] for state in states}, "there_already": seen - copied.total()})
        return
    counts = ", ".join(f"{copied[state]:,} {state.value}" for state in states)
    console.print(f"{copied.total():,} copied: {counts}; {seen - copied.total():,} were there already")


def _url(given: str, name: str) -> str:
    kind, _, place = given.partition(":")
    url = given
    if kind == "env":
        url = os.environ.get(place, "")
    elif kind == "file":
        try:
            url = Path(place).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigInvalid([f"{name}: {place}: {getattr(error, 'strerror', None) or 'no text'}"]) from None
    if not url:
        raise ConfigInvalid([f"{name}: {place} is {'not set' if kind == 'env' else 'empty'}"])
    try:
        fault = journal.fault_of(url)
    except (ValueError, OSError):
        fault = f"no URL, expected {journal.EXPECTED}"
    if fault:
        raise ConfigInvalid([f"{name}: {fault}"])
    return url


async def _copy(source: str, target: str, states: tuple[State, ...], *, quiet: bool) -> tuple[int, Counter[State]]:
    """How many there were, and how many of each state were new."""
    if not journal.exists(source):
        raise ConfigInvalid([f"FROM: there is no journal at {journal.shown(source)}"])
    seen, copied = 0, Counter[State]()
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(open_journal(source))
        await old.reserve(alone=True)
        new = await stack.enter_async_context(open_journal(target, create=True))
        total = (await old.census()).counts
        columns = (TextColumn("copying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        progress = Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True)
        with progress:
            task = progress.add_task("", total=sum(total[state] for state in states))
            for state in states:
                async for step in _steps(old, state):
                    seen += len(step)
                    copied[state] += await new.adopt(step)
                    progress.advance(task, len(step))
        await old.reserve(alone=True)  # or something may have been missed
    return seen, copied


async def _steps(store: Journal, state: State) -> AsyncIterator[list[History]]:
    """Everything in this state, the oldest first, a few at a time."""
    step: list[History] = []
    size, beyond = 0, None
    while found := await store.find(Selection(state=state), limit=_STEP, beyond=beyond, oldest_first=True):
        beyond = found[-1].seq
        for each in found:
            entry = await store.load(each.seq) or each
            step.append(History(entry=entry, attempts=await store.attempts(each.seq)))
            size += entry.size
            if size > _STEP_BYTES:
                yield step
                step, size = [], 0
        if step:
            yield step
            step, size = [], 0

"""list, show, replay: what the journal holds, and sending it again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from textwrap import indent
from typing import Any, TypeVar

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridge import journal
from bridge.cli import LAYOUT
from bridge.cli.configured import configured
from bridge.cli.output import Moment, console, iso, json_document, json_line, moment, state, table
from bridge.dev import JOURNAL, journal_at_hand
from bridge.errors import BridgeError, ConfigInvalid
from bridge.journal import Journal
from bridge.log import printable
from bridge.model import Attempt, Entry, Selection, State
from bridge.payload import json_object
from bridge.settings import Settings

T = TypeVar("T")

# Entries read, and made pending, in one step of a long replay.
_STEP = 500


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which entries are meant."""
    options = (
        click.option("--state", type=click.Choice([each.value for each in State]), help="Only those in this state."),
        click.option("--source", metavar="NAME", help="Only those of this source."),
        click.option("--type", "type_", metavar="TYPE", help="Only those of this type, such as customer.created."),
        click.option(
            "--since", type=Moment(), help="Received then or later: 2026-01-31T12:00 (UTC), or 30m, 2h, 3d ago."
        ),
        click.option("--until", type=Moment(), help="Received before then."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _selection(given: dict[str, Any]) -> Selection:
    if given["since"] is not None and given["until"] is not None and given["since"] >= given["until"]:
        raise click.UsageError("--since is not before --until: nothing was received then")
    return Selection(
        source=given["source"],
        state=State(given["state"]) if given["state"] else None,
        type=given["type_"],
        since=given["since"],
        until=given["until"],
    )


@click.command("list")
@_selecting
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many, the newest.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each.")
def list_(*, limit: int, as_json: bool, **given: Any) -> None:
    """List what the journal holds, the newest first.

    \b
    bridge list --state dead --since 2h
    bridge list --source stripe --type invoice.paid --json
    """

    async def run(store: Journal) -> None:
        found = await store.find(_selection(given), limit=limit)
        if as_json:
            for entry in found:
                json_line(record(entry))
            return
        table(
            ("RECEIVED (UTC)", "SOURCE", "TYPE", "ID", "STATE", "ATTEMPTS"),
            [(moment(e.received_at), e.source, e.type or "-", e.id, state(e.state), str(e.attempts)) for e in found],
        )
        counts = (await store.census()).counts
        if len(found) == limit:
            console.print(f"the newest {limit:,}: --limit shows more", style="dim")
        whole = ", ".join(f"{counts.get(each, 0):,} {each.value}" for each in State)
        console.print(f"in the whole journal: {whole}", style="dim")

    _within(_journal_there(), run)


@click.command()
@click.argument("id_", metavar="ID")
@click.option("--source", metavar="NAME", help="The source it came to, where two have this id.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(*, id_: str, source: str | None, as_json: bool) -> None:
    """Show a delivery: its state, every attempt, and its payload.

    \b
    bridge show evt_1PXq2Kd
    """

    async def run(store: Journal) -> None:
        found = await one(store, id_, source)
        entry = await store.load(found.seq) or found
        attempts = await store.attempts(found.seq)
        body = None if entry.body is None else entry.body.decode("utf-8", "replace")
        if as_json:
            json_line({**record(entry), "attempts_made": [tried(each) for each in attempts], "body": body})
            return
        shown = {**record(entry), "size": f"{entry.size:,} bytes"}
        if entry.replays:
            shown["attempts"] = f"{entry.attempts} since the last replay"
        for name, value in shown.items():
            console.print(f"[dim]{name:<12}[/] {escape('-' if value in (None, '') else str(value))}", soft_wrap=True)
        for each in attempts:
            more = f", events accepted: {each.events}" if each.events else ""
            console.print(f"[dim]{'attempt':<12}[/] {iso(each.at)} {each.outcome.value}{more}")
            if each.error:
                error = indent(printable(each.error.rstrip(), keep=LAYOUT), " " * 13)
                console.print(escape(error), style="red", soft_wrap=True)
        console.print(f"[dim]body[/]{'         purged' if body is None else ''}")
        if body is not None:
            console.print(escape(_readable(body)), soft_wrap=True)

    _within(_journal_there(), run)


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_selecting
@click.option("--new-ids", is_flag=True, help="Give the events new ids, so that Inngest runs its functions once more.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="The outcome as a line of JSON.")
def replay(*, ids: tuple[str, ...], new_ids: bool, yes: bool, as_json: bool, **given: Any) -> None:
    """Send deliveries again: by id, or all that the options select. What is pending still is left alone.

    The events keep their ids, so Inngest ignores those it has run in the last 24 hours, unless --new-ids is given.

    \b
    bridge replay evt_1PXq2Kd
    bridge replay --state dead --source stripe --since 3d
    bridge replay --since 2026-01-31T12:00 --until 2026-01-31T13:00
    """
    if not ids and not any(value is not None for value in given.values()):
        raise click.UsageError("name ids, or select with --state, --source, --type, --since, --until")
    if ids and any(value is not None for name, value in given.items() if name != "source"):
        raise click.UsageError("either ids, or a selection: beside ids only --source says something")

    async def select(store: Journal) -> list[int]:
        if ids:
            return [(await one(store, id_, given["source"])).seq for id_ in dict.fromkeys(ids)]
        return [seq async for seq in _finished(store, _selection(given))]

    url = _journal_there()
    seqs = _within(url, select)
    if seqs and not ids and not yes and sys.stdin.isatty():
        anew = " with new ids, so that Inngest runs its functions once more" if new_ids else ""
        click.confirm(f"Replay {_deliveries(len(seqs))}{anew}?", abort=True, err=True)
    replayed = _within(url, lambda store: _replay(store, seqs, new_ids=new_ids, quiet=as_json))
    if as_json:
        json_line({"selected": len(seqs), "replayed": replayed})
    else:
        console.print(f"{replayed:,} replayed: {'; '.join(_what_became(replayed, len(seqs) - replayed))}")
    if ids and not replayed:
        raise SystemExit(1)


def _what_became(replayed: int, left: int) -> Iterator[str]:
    if replayed:
        yield "pending again, for the running bridge to forward"
    if left:
        yield f"{left:,} left alone, which are pending or purged"
    if not replayed and not left:
        yield "nothing that is finished matches"


def _deliveries(count: int) -> str:
    return f"{count:,} {'delivery' if count == 1 else 'deliveries'}"


async def _finished(store: Journal, selection: Selection) -> AsyncIterator[int]:
    """The oldest first, so that they go out in that order."""
    beyond = None
    while found := await store.find(selection, limit=_STEP, beyond=beyond, oldest_first=True):
        for entry in found:
            if entry.state is not State.PENDING:
                yield entry.seq
        beyond = found[-1].seq


async def _replay(store: Journal, seqs: Sequence[int], *, new_ids: bool, quiet: bool) -> int:
    replayed = 0
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = quiet or len(seqs) <= _STEP or not console.is_terminal
    with Progress(*columns, console=console, disable=hidden, transient=True) as progress:
        task = progress.add_task("", total=len(seqs))
        for start in range(0, len(seqs), _STEP):
            step = seqs[start : start + _STEP]
            replayed += await store.replay(step, new_ids=new_ids)
            progress.advance(task, len(step))
    return replayed


async def one(store: Journal, id_: str, source: str | None, *, unknown: str = "not in the journal") -> Entry:
    """The entry of a delivery's id. Raises BridgeError where there is none, or two."""
    found = await store.find(Selection(id=id_, source=source), limit=2)
    if not found:
        raise BridgeError(f"{id_}: {unknown}{'' if source is None else f' of source {source}'}")
    if len(found) > 1:
        raise BridgeError(f"{id_}: there are several: say which with --source {found[0].source} or {found[1].source}")
    return found[0]


def record(entry: Entry) -> dict[str, Any]:
    """An entry as `--json` prints it. Times in ISO 8601, UTC. Its headers hold the signature, so they stay inside."""
    return {
        "source": entry.source,
        "id": entry.id,
        "type": entry.type,
        "state": entry.state.value,
        "received_at": iso(entry.received_at),
        "occurred_at": iso(entry.occurred_at),
        "due": None if entry.due is None else iso(entry.due),
        "attempts": entry.attempts,
        "replays": entry.replays,
        "size": entry.size,
    }


def tried(attempt: Attempt) -> dict[str, Any]:
    """An attempt as `--json` prints it."""
    return {
        "at": iso(attempt.at),
        "outcome": attempt.outcome.value,
        "events": attempt.events,
        "error": attempt.error,
    }


def _readable(body: str) -> str:
    """JSON laid out, anything else as it is, less what would steer the terminal."""
    try:
        return json_document(json_object(body.encode()))
    except BridgeError:
        return printable(body, keep=LAYOUT)


def _journal_there() -> str:
    """The URL of the journal to look into. It must be there: to look into none is a slip, not a wish for a new one."""
    url = journal_of(configured())
    if not journal.exists(url):
        other = ""
        if journal.exists(JOURNAL):
            other = f". That of `bridge dev` is here: BRIDGE_JOURNAL={JOURNAL}"
        raise ConfigInvalid([f"journal: {url}: there is none yet; `bridge serve` makes it{other}"])
    return url


def _within(url: str, run: Callable[[Journal], Awaitable[T]]) -> T:
    """Run with this journal open."""

    async def opened() -> T:
        async with open_journal(url) as store:
            return await run(store)

    return asyncio.run(opened())


def journal_of(settings: Settings) -> str:
    """The journal to look into. Says so where it is that of `bridge dev`."""
    url = journal_at_hand(settings)
    if url != settings.journal:
        click.echo(f"bridge: in the journal of `bridge dev`, {url}", err=True)
    return url


@asynccontextmanager
async def open_journal(url: str, *, create: bool = False) -> AsyncIterator[Journal]:
    store = await journal.open(url, create=create)
    try:
        yield store
    finally:
        await store.close()

"""`make chaos`: breaks a running bridge in every known way, and counts what is lost. Exit status 1: something was."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.markdown import Markdown

from bench.rows import machine
from bench.steps import Steps, say
from chaos import report
from chaos.faults import FAULTS
from chaos.outcome import Outcome, Round
from chaos.rounds import survive
from chaos.troubles import TROUBLES, happening
from chaos.world import world

_JOURNALS = ("sqlite", "postgresql")


@click.command(
    epilog="\b\nExamples:\n  make chaos ROUNDS=20 SEED=7\n"
    "  PYTHONPATH=tests .venv/bin/python -m chaos --journal sqlite --trouble 'writer SIGKILL' --rounds 20"
)
@click.option("--rounds", default=200, show_default=True, help="Troubles, one after the other, on each journal.")
@click.option(
    "--seed", type=int, help="Of the dice: the same troubles in the same order. By default a new one, printed."
)
@click.option("--journal", "journals", type=click.Choice(_JOURNALS), multiple=True, help="By default both.")
@click.option(
    "--trouble",
    "names",
    type=click.Choice([trouble.name for trouble in TROUBLES if trouble.name]),
    metavar="NAME",
    multiple=True,
    help="Nothing but this; a wrong name tells which there are. By default all.",
)
@click.option("--fault", type=click.Choice(sorted(FAULTS)), help="Put into the bridge: losses must be found.")
@click.option("--into", type=click.Path(path_type=Path), help="Where tables, a plot and raw figures are written, too.")
def main(
    *,
    rounds: int,
    seed: int | None,
    journals: tuple[str, ...],
    names: tuple[str, ...],
    fault: str | None,
    into: Path | None,
) -> None:
    """Run `bridge serve` under load on a journal on its own disk; kill, stop and starve it; count what was acknowledged and
    did not arrive. Ctrl-C ends it after the trouble there is, and tells of the rounds there were. Exit status 1: the promise
    was broken.
    """
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    say(f"Seed {seed}: the same troubles again with SEED={seed}")
    outcomes = []
    for journal in journals or _concerned(names):
        outcomes.append(asyncio.run(_run(journal, names, rounds=rounds, seed=seed, fault=fault or "")))
        if len(outcomes[-1].rounds) < rounds:
            break
    text = report.whole(outcomes)
    if sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        print(text)  # noqa: T201 - what it is for
    if into is not None and min(len(outcome.rounds) for outcome in outcomes) == rounds:
        files = report.write(machine(), outcomes, into)
        say(f"Written: {_listed(files)}")
    if not all(outcome.is_kept for outcome in outcomes):
        sys.exit(1)


async def _run(journal: str, names: Sequence[str], *, rounds: int, seed: int, fault: str) -> Outcome:
    _end_on(signal.SIGTERM, signal.SIGHUP)
    folder = Path(tempfile.mkdtemp(prefix="bridge-chaos-"))
    with Steps(journal, rounds) as note, ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        async with world(journal, folder, seed=seed, fault=fault) as there:
            troubles = [each for each in happening(there, long=True) if each.name in names or not names]
            if not troubles:
                raise click.ClickException(
                    f"here, and to a journal of this kind, none of these can happen: {_listed(names)}"
                )
            if absent := there.absent:
                say(f"Not tried, because no disk can be mounted here, which takes root: {_listed(absent)}")
            outcome = await survive(there, troubles, rounds=rounds, note=lambda done: note(_line(done)))
            if not outcome.is_kept:
                stack.pop_all()  # the folder stays
                there.keep(folder)
                (folder / "outcome.json").write_text(json.dumps(asdict(outcome), indent=1))
                say(f"What is broken, with logs, and the journal where it is SQLite's: {folder}")
    return outcome


def _concerned(names: Sequence[str]) -> Sequence[str]:
    """The journals to which all of them can happen, so far as one knows before."""
    only = {trouble.journal for trouble in TROUBLES if trouble.name in names and trouble.journal}
    return sorted(only) or _JOURNALS


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))


def _end_on(*numbers: signal.Signals) -> None:
    """As Ctrl-C does."""
    task = asyncio.current_task()
    for number in numbers:
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _line(done: Round) -> str:
    return f"{done.what}: {f'not recovered, {done.why}' if done.recovery is None else f'{done.recovery:.1f} s'}"


if __name__ == "__main__":
    main()

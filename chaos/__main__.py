"""`make chaos`: breaks a running bridge in every known way, and counts what is lost. Exit status 1: something was."""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.markdown import Markdown

from bench.rows import machine
from bench.steps import Steps
from chaos import report
from chaos.faults import FAULTS
from chaos.rounds import Outcome, Round, survive
from chaos.troubles import happening
from chaos.world import world

_JOURNALS = ("sqlite", "postgresql")
_RESULTS = Path(__file__).parents[1] / "docs" / "chaos"


@click.command(
    epilog="\b\nExamples:\n  make chaos\n  make chaos ROUNDS=20 SEED=7\n  python -m chaos --journal sqlite --rounds 20"
)
@click.option("--rounds", default=200, show_default=True, help="Troubles, one after the other, on each journal.")
@click.option(
    "--seed", type=int, help="Of the dice: the same troubles in the same order. By default a new one, printed."
)
@click.option("--journal", "journals", type=click.Choice(_JOURNALS), multiple=True, help="By default both.")
@click.option(
    "--fault", type=click.Choice(sorted(FAULTS)), default=None, help="Put into the bridge: losses must be found."
)
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    help="Where the results are written; by default docs/chaos, without a fault.",
)
def main(*, rounds: int, seed: int | None, journals: tuple[str, ...], fault: str | None, into: Path | None) -> None:
    """Run `bridge serve` under load on a journal on its own disk; kill, stop and starve it; count what was acknowledged and
    did not arrive.
    """
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    console = Console(stderr=True)
    console.print(f"Seed {seed}: the same troubles again with SEED={seed}")
    outcomes = [
        asyncio.run(_run(journal, rounds=rounds, seed=seed, fault=fault or "")) for journal in journals or _JOURNALS
    ]
    text = report.whole(outcomes)
    if sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        print(text)  # noqa: T201 - what it is for
    if fault is None or into is not None:
        files = report.write(machine(), outcomes, into or _RESULTS)
        console.print(f"Written: {', '.join(map(str, files))}", style="dim")
    if not all(outcome.is_kept for outcome in outcomes):
        sys.exit(1)


async def _run(journal: str, *, rounds: int, seed: int, fault: str) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="bridge-chaos-") as folder, Steps(journal, rounds) as note:
        async with world(journal, Path(folder), seed=seed, fault=fault) as there:
            troubles = happening(there, long=True)
            return await survive(there, troubles, rounds=rounds, note=lambda done: note(_line(done)))


def _line(done: Round) -> str:
    return f"{done.what}: {'not recovered' if done.recovery is None else f'{done.recovery:.1f} s'}"


if __name__ == "__main__":
    main()

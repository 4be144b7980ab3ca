"""`make bench`, or `PYTHONPATH=tests python -m bench`: measures, and writes tables, plots and raw figures."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from bench import growth, latency, plots, report, subjects, throughput
from bench import purge as purging
from bench import replicas as replicating
from bench.rows import Row, file_system, machine
from bench.steps import Steps, say

_IN_MEMORY = {"tmpfs", "ramfs"}
_RESULTS = Path(__file__).parents[1] / "docs" / "bench"
# Into a pipe nothing is cut off.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


@click.group(
    epilog="\b\nExamples:\n  make bench\n  PYTHONPATH=tests .venv/bin/python -m bench measure --rounds 1 --into /tmp/figures"
)
def main() -> None:
    """Measure. A machine with nothing else to do gives steadier figures."""


@main.command()
@click.option("--rounds", default=7, show_default=True, help="Interleaved; the median counts.")
@click.option("--settled", default=5_000_000, show_default=True, help="Settled entries in the largest journal.")
@click.option("--pending", default=1_000_000, show_default=True, help="Pending entries in the fullest.")
@click.option("--into", type=click.Path(path_type=Path), default=_RESULTS, help="Where the results are written.")
def measure(*, rounds: int, settled: int, pending: int, into: Path) -> None:
    """The bridge beside what one would use instead.

    On both journals, new and with much in them. Written are tables, plots and raw figures.
    """
    if file_system() in _IN_MEMORY:
        say(f"{tempfile.gettempdir()} is in memory, where nothing is ever synced: name another by TMPDIR")
    rows: list[Row] = []
    try:
        found = asyncio.run(_measure(rows, rounds=rounds, settled=settled, pending=pending))
    except BaseException:
        left = _kept(machine(), rows, Path(tempfile.mkdtemp(prefix="bridge-bench-")))
        say(f"It ended early. What was measured: {left}")
        raise
    _kept(found, rows, into)
    _report(into)


@main.command("report")
@click.option("--of", "into", type=click.Path(path_type=Path), default=_RESULTS, help="Where the figures are.")
def report_(*, into: Path) -> None:
    """Tables and plots of figures measured before."""
    _report(into)


@main.command()
@click.option("--rounds", default=3, show_default=True, help="Interleaved; the median counts.")
@click.option("--backlog", default=50_000, show_default=True, help="Deliveries that wait.")
def replicas(*, rounds: int, backlog: int) -> None:
    """Two bridges on one PostgreSQL, beside one.

    What they forward of a backlog.
    """
    rows = asyncio.run(_replicas(rounds=rounds, backlog=backlog))
    console.print(Markdown(report.replicas(rows)))


@main.command()
@click.option("--seconds", default=180, show_default=True)
@click.option("--rate", default=1000, show_default=True, help="Deliveries a second.")
def purge(*, seconds: int, rate: int) -> None:
    """PostgreSQL's tables while they are purged.

    As much is forgotten as comes in: MB, and rows not vacuumed yet.
    """
    rows = asyncio.run(_purge(seconds=seconds, rate=rate))
    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(f"{value:,.1f}" for value in row.values()))
    console.print(table)


async def _measure(rows: list[Row], *, rounds: int, settled: int, pending: int) -> Row:
    """Adds rows as they are measured; the machine."""
    steps = throughput.steps(rounds) + latency.steps(rounds) + growth.steps()
    async with subjects.postgresql() as cluster:
        with Steps("Measuring", steps) as note:
            rows += await throughput.throughput(cluster, rounds=rounds, note=note)
            rows += await latency.latency(cluster, rows, rounds=rounds, note=note)
            rows += await latency.stored(cluster, note=note)
            rows += await growth.growth(cluster, settled=settled, pending=pending, note=note)
        return machine(postgresql=cluster.version)


def _kept(found: Row, rows: Sequence[Row], into: Path) -> Path:
    """The file with the raw figures."""
    into.mkdir(parents=True, exist_ok=True)
    file = into / "figures.json"
    file.write_text(json.dumps({"machine": found, "rows": rows}, indent=1) + "\n")
    return file


async def _replicas(*, rounds: int, backlog: int) -> list[Row]:
    async with subjects.postgresql() as cluster:
        with Steps("Measuring", replicating.steps(rounds)) as note:
            return await replicating.replicas(cluster, rounds=rounds, backlog=backlog, note=note)


async def _purge(*, seconds: int, rate: int) -> list[dict[str, float]]:
    async with subjects.postgresql(autovacuum_naptime="1s") as cluster:
        return await purging.purged(cluster, seconds=seconds, rate=rate)


def _report(into: Path) -> None:
    found = json.loads((into / "figures.json").read_text())
    text = report.whole(found["machine"], found["rows"])
    (into / "README.md").write_text(text)
    drawn = plots.draw(found["rows"], into)
    console.print(Markdown(text) if sys.stdout.isatty() else text)
    console.print(f"Written: {_names([into / 'figures.json', into / 'README.md', *drawn])}", style="dim")


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths)


if __name__ == "__main__":
    main()

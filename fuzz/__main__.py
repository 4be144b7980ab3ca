"""`make fuzz`, or `python -m fuzz`: fuzzes, and tries an input that failed once more."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import traceback
from importlib.util import find_spec
from pathlib import Path

import click
from rich.console import Console

from fuzz import seeds
from fuzz.cases import Case, check
from fuzz.report import Report, table

_ROOT = Path(__file__).parents[1]
# Of the whole process: Python, the corpus and what one input takes.
_MOST_MEMORY = 512
# Seconds an input may take; the slowest take milliseconds.
_LONGEST_RUN = 10
# Bytes of an input: room for what is nested too deep, and few enough to be quick.
_LONGEST_INPUT = 1 << 16
_SHOWN = 2000
# The exit status of what Ctrl-C ended.
_STOPPED = 130

console = Console(highlight=False, soft_wrap=True)


@click.group()
def main() -> None:
    """Give verification what nobody would think of, led by which of its branches that reaches.

    \b
    Examples:
      .venv/bin/python -m fuzz run
      .venv/bin/python -m fuzz run --seconds 3600
      .venv/bin/python -m fuzz repro .fuzz/failures/fault-0123456789abcdef
    """


@main.command()
@click.option("--seconds", type=click.IntRange(min=1), default=60, show_default=True, help="How long.")
@click.option("--runs", type=click.IntRange(min=1), help="How many inputs; those it begins with in any case.")
@click.option("--seed", type=click.IntRange(1, 2**32 - 1), help="Of the dice. The same gives the same inputs.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=_ROOT / ".fuzz",
    show_default=".fuzz",
    help="What was found is kept there, and carried on with by the next run.",
)
def run(*, seconds: int, runs: int | None, seed: int | None, folder: Path) -> None:
    """Fuzz every provider and every signature scheme. Exit status 1: something failed.

    \b
    Examples:
      .venv/bin/python -m fuzz run --seconds 600
      .venv/bin/python -m fuzz run --runs 100000 --seed 7 --folder /tmp/fuzz
    """
    if find_spec("atheris") is None:
        raise click.ClickException("atheris is not installed: `make fuzz` does that")
    folder = folder.resolve()
    started = time.monotonic()
    report, status = _fuzz(_flags(folder, seconds=seconds, runs=runs, seed=seed), folder)
    console.print(table(report, seconds=time.monotonic() - started))
    for file, fault in report.faults.items():
        console.print(f"\n{fault}\n  .venv/bin/python -m fuzz repro {file}", markup=False)
    if report.faults:
        sys.exit(1)
    if status not in {0, _STOPPED}:
        raise click.ClickException(f"the fuzzer ended with exit status {status}: see {folder / 'log'}")
    sys.exit(status)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def repro(*, file: Path) -> None:
    """Try an input once more, without atheris, and show what it is. Exit status 1: it fails still.

    \b
    Example:
      .venv/bin/python -m fuzz repro .fuzz/failures/fault-0123456789abcdef
    """
    case = Case.read(file.read_bytes())
    for name, value in (
        ("provider or scheme", case.subject),
        ("what is done", case.how.name),
        ("header, places", f"{case.header}, {case.start} to {case.end}"),
        ("text", ascii(case.text)[:_SHOWN]),
        ("body", f"{len(case.body):,} bytes: {ascii(case.body)[:_SHOWN]}"),
    ):
        console.print(f"{name:20}{value}", markup=False)
    try:
        check(case)
    except Exception:  # noqa: BLE001 - whatever it is, it is to be seen
        console.print(f"\n{traceback.format_exc()}", markup=False)
        sys.exit(1)
    console.print("\nEvery promise holds.")


def _flags(folder: Path, *, seconds: int, runs: int | None, seed: int | None) -> list[str]:
    """For the engine: where failures are kept, libFuzzer's flags, and its folders, the first of which it writes to."""
    corpus, seeded, failures = (folder / name for name in ("corpus", "seeds", "failures"))
    for each in (corpus, seeded, failures):
        each.mkdir(parents=True, exist_ok=True)
    seeds.write(seeded)
    (folder / "words").write_text(seeds.dictionary())
    flags = {
        "max_total_time": seconds,
        "runs": runs or -1,
        "seed": seed or 0,
        "max_len": _LONGEST_INPUT,
        "rss_limit_mb": _MOST_MEMORY,
        "timeout": _LONGEST_RUN,
        "dict": folder / "words",
        "artifact_prefix": f"{failures}/",
        "entropic_scale_per_exec_time": 1,  # quick inputs more often: three times as many runs
        "print_final_stats": 1,
    }
    given = [f"-{name}={value}" for name, value in flags.items()]
    # Those that failed before are tried again.
    return [str(failures), *given, str(corpus), str(seeded), str(failures)]


def _fuzz(flags: list[str], folder: Path) -> tuple[Report, int]:
    """Also what libFuzzer writes is kept: `log`."""
    report = Report()
    command = [sys.executable, "-m", "fuzz.engine", *flags]
    with (
        (folder / "log").open("w") as log,
        Console(stderr=True).status("Starting") as shown,
        subprocess.Popen(  # noqa: S603 - our own engine
            command, cwd=_ROOT, stderr=subprocess.PIPE, text=True, errors="replace"
        ) as engine,
    ):
        assert engine.stderr is not None  # noqa: S101 - for the type checker: it is a pipe
        # Ctrl-C ends the engine, which then says how far it came.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for line in engine.stderr:
            log.write(line)
            report.read(line)
            shown.update(f"{report.runs:,} runs, {report.features:,} features, {len(report.faults)} failed")
        signal.signal(signal.SIGINT, before)
    return report, engine.returncode


if __name__ == "__main__":
    main(prog_name=".venv/bin/python -m fuzz")

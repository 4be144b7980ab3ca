"""What a run found: tables in Markdown, a plot, and the raw figures."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.plots import COLOURS, GREY, style, written
from bench.report import table
from bench.throughput import JOURNALS
from chaos.outcome import Outcome, Round


def whole(outcomes: Sequence[Outcome]) -> str:
    """The table, and what made it hard to recover."""
    return "\n\n".join((totals(outcomes), by_trouble(outcomes), *_remarks(outcomes)))


def totals(outcomes: Sequence[Outcome]) -> str:
    head = ("deliveries", *(JOURNALS[outcome.journal] for outcome in outcomes))
    columns = [list(_totals(outcome)) for outcome in outcomes]
    return table(head, [[lines[0][0], *(value for _, value in lines)] for lines in zip(*columns, strict=True)])


def _totals(outcome: Outcome) -> Iterator[tuple[str, str]]:
    yield "sent", f"{outcome.sent:,}"
    yield "answered 2xx", f"{outcome.acknowledged:,}"
    yield "arrived, of those", f"{outcome.arrived:,}"
    yield "**lost**", f"**{len(outcome.lost):,}**" if outcome.pending >= 0 else "not known"
    yield "arrived more than once", f"{outcome.more_than_once:,}"
    yield "**ids that changed**", f"**{len(outcome.changed):,}**"
    yield "other content than was sent", f"{len(outcome.altered):,}"
    yield "dead by their own fault", f"{outcome.dead - len(outcome.dead_without_fault):,}"
    yield "dead otherwise", f"{len(outcome.dead_without_fault):,}"
    yield "arrived though the answer was lost", f"{outcome.unacknowledged:,}"
    yield "given up by the provider, unanswered", f"{outcome.given_up:,}"
    yield "still pending at the end", f"{outcome.pending:,}" if outcome.pending >= 0 else "not known"
    yield "requests not answered 2xx", f"{sum(each.refused for each in outcome.rounds):,}"
    longest = outcome.longest
    yield "longest time to recover", "-" if longest is None else f"{longest.recovery:.1f} s ({longest.what})"
    failed = [f"{each.what}: {each.why}" for each in outcome.rounds if each.recovery is None]
    yield (
        "rounds, seed",
        f"{len(outcome.rounds)}, {outcome.seed}" + "".join(f", not recovered: {why}" for why in failed),
    )
    yield "minutes", f"{outcome.seconds / 60:.1f}"


def by_trouble(outcomes: Sequence[Outcome]) -> str:
    """Median and longest time to recover; of what the Event API did, the rounds with nothing else."""
    found = {outcome.journal: _recoveries(outcome.rounds) for outcome in outcomes}
    names = sorted({name for recoveries in found.values() for name in recoveries})
    head = ("seconds to recover: median, longest (rounds)", *(JOURNALS[journal] for journal in found))
    return table(head, [[name, *(_spread(each.get(name, [])) for each in found.values())] for name in names])


def _recoveries(rounds: Sequence[Round]) -> Mapping[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for each in rounds:
        if each.recovery is not None:
            found[each.name].append(each.recovery)
    return found


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f}, {max(seconds):.1f} ({len(seconds)})" if seconds else "-"


def _remarks(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for outcome in outcomes:
        if outcome.absent:
            yield f"{JOURNALS[outcome.journal]}: not tried, because no disk can be mounted here, which takes root, loop devices and mkfs.ext4: {', '.join(outcome.absent)}."


def write(machine: Mapping[str, Any], outcomes: Sequence[Outcome], into: Path) -> list[Path]:
    """What was written."""
    into.mkdir(parents=True, exist_ok=True)
    raw = {"machine": machine, "outcomes": [asdict(outcome) for outcome in outcomes]}
    (into / "outcomes.json").write_text(json.dumps(raw, indent=1) + "\n")
    plot = _plot(outcomes, into / "recovery.svg")
    (into / "README.md").write_text(page(machine, outcomes, plot.name))
    return [into / "outcomes.json", into / "README.md", plot]


def page(machine: Mapping[str, Any], outcomes: Sequence[Outcome], plot: str) -> str:
    rounds = max(len(outcome.rounds) for outcome in outcomes)
    made = (
        f"{machine['date']}, {machine['cores']} cores of {machine['processor']}, {machine['system']}:"
        f" `make chaos ROUNDS={rounds} SEED={outcomes[0].seed}`."
    )
    return "\n\n".join(("# Chaos", made, whole(outcomes), f"![Seconds to recover]({plot})\n"))


def _plot(outcomes: Sequence[Outcome], path: Path) -> Path:
    """Each round a dot, an empty one where the Event API misbehaved as well: what happened, and how long until all was well."""
    style()
    names = sorted({each.name for outcome in outcomes for each in outcome.rounds}, reverse=True)
    figure = Figure(figsize=(9, 0.22 * len(names) + 0.8))
    axes = figure.add_subplot()
    for shift, outcome in enumerate(outcomes):
        colour = COLOURS[JOURNALS[outcome.journal]]
        recovered = [each for each in outcome.rounds if each.recovery is not None]
        axes.scatter(
            [each.recovery or 0.0 for each in recovered],
            [names.index(each.name) + 0.3 * (0.5 - shift) for each in recovered],
            s=14,
            linewidths=0.8,
            edgecolors=colour,
            facecolors=["none" if each.trouble and each.mood else colour for each in recovered],
        )
        axes.scatter([], [], s=14, color=colour, label=JOURNALS[outcome.journal])
    axes.scatter([], [], s=14, linewidths=0.8, edgecolors=GREY, facecolors="none", label="and the Event API misbehaved")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("seconds to recover")
    axes.set_xlim(left=0)
    axes.grid(axis="x", color=GREY, alpha=0.2)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return written(path, figure)

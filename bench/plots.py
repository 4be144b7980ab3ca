"""The plots, as SVG: for the README, on a white page and on a black one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.bodies import SIZES
from bench.latency import RATES
from bench.rows import Row, median, select
from bench.throughput import CEILING, HANDWRITTEN, JOURNALS, WEBHOOK

COLOURS = {
    CEILING: "#9aa0a6",
    JOURNALS["sqlite"]: "#1a73e8",
    JOURNALS["postgresql"]: "#12a594",
    HANDWRITTEN: "#e8710a",
    WEBHOOK: "#c5221f",
}
GREY = "#7f858b"
_THOUSANDS = mpl.ticker.StrMethodFormatter("{x:,.0f}")


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """What was written."""
    style()
    return [
        written(folder / "throughput.svg", _throughput(rows)),
        written(folder / "latency.svg", _latency(rows)),
        written(folder / "growth.svg", _growth(rows)),
    ]


def style() -> None:
    """For all plots drawn from now on."""
    mpl.rcParams.update(
        {
            "svg.hashsalt": "bridge",  # the same figures give the same file
            "font.size": 10,
            **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), GREY),
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


def written(path: Path, figure: Figure) -> Path:
    figure.savefig(path, transparent=True, metadata={"Date": None}, bbox_inches="tight")
    return path


def _throughput(rows: Sequence[Row]) -> Figure:
    """What is acknowledged, by the size of the body; hatched, what is also at the Event API."""
    figure = Figure(figsize=(9, 3.2))
    for place, (label, size) in enumerate(SIZES.items(), 1):
        axes = figure.add_subplot(1, len(SIZES), place)
        names = [name for name in COLOURS if select(rows, figure="acknowledged", subject=name, size=size)]
        for height, name in enumerate(reversed(names)):
            rate = median(rows, "rate", figure="acknowledged", subject=name, size=size) or 0
            through = median(rows, "rate", figure="end to end", subject=name, size=size)
            axes.barh(height, rate, color=COLOURS[name], height=0.7)
            if through is not None:
                axes.barh(height, through, color="none", edgecolor="white", hatch="////", height=0.7, linewidth=0)
            axes.text(rate, height, f" {rate:,.0f}", va="center", color=GREY, fontsize=9)
        axes.set_yticks(range(len(names)), reversed(names) if place == 1 else [""] * len(names))
        axes.set_title(f"{label}, a second", fontsize=10, color=GREY)
        axes.margins(x=0.25)
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        axes.xaxis.set_major_formatter(_THOUSANDS)
    return figure


def _latency(rows: Sequence[Row]) -> Figure:
    """From receipt to the Event API, and to the answer."""
    figure = Figure(figsize=(9, 3))
    for place, (what, title) in enumerate(
        (("ack", "receipt to answer, ms"), ("arrival", "receipt to Event API, ms")), 1
    ):
        axes = figure.add_subplot(1, 2, place)
        for name in JOURNALS.values():
            for quantile, style in (("p50", "-"), ("p99", "--")):
                found = [median(rows, f"{what}_{quantile}", figure="at a rate", subject=name, rate=r) for r in RATES]
                axes.plot(
                    RATES,
                    [(seconds or 0) * 1000 for seconds in found],
                    style,
                    marker="o",
                    markersize=4,
                    color=COLOURS[name],
                    label=f"{name}, {quantile}",
                )
        axes.set_xscale("log")
        axes.set_xticks(RATES, [f"{rate:,}/s" for rate in RATES])
        axes.minorticks_off()
        _from_nothing(axes, title)
    _named(figure, axes)
    return figure


def _growth(rows: Sequence[Row]) -> Figure:
    """What is acknowledged, and what a claim takes, by what is in the journal."""
    figure = Figure(figsize=(9, 3))
    for place, (field, scale, title) in enumerate(
        (("rate", 1, "acknowledged a second"), ("claim_and_settle", 1000, "claim 500 and settle, ms")), 1
    ):
        axes = figure.add_subplot(1, 2, place)
        for name in JOURNALS.values():
            found = select(rows, figure="growth", subject=name)
            labels = [_entries(row) for row in found]
            axes.plot(labels, [row[field] * scale for row in found], marker="o", color=COLOURS[name], label=name)
        axes.tick_params(axis="x", labelsize=8)
        _from_nothing(axes, title)
    _named(figure, axes)
    return figure


def _entries(row: Row) -> str:
    return f"{row['pending']:,}\npending" if row["pending"] else f"{row['settled']:,}\nsettled"


def _from_nothing(axes: Axes, title: str) -> None:
    """So that twice as high is twice as much."""
    axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
    axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(_THOUSANDS)
    axes.set_title(title, fontsize=10, color=GREY)


def _named(figure: Figure, axes: Axes) -> None:
    """What the colours are, below: no line runs through it there."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=4, frameon=False, fontsize=9)

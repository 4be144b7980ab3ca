"""Reads what libFuzzer says of a run (https://llvm.org/docs/LibFuzzer.html#output), and shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

# What a line of the engine's begins with that names an input and its fault, with a tab in between.
FAULT = "fuzz: fault: "
_STATUS = re.compile(r"#(?P<runs>[0-9]+)\s+(?P<what>[A-Za-z]+)\s+cov: (?P<coverage>[0-9]+) ft: (?P<features>[0-9]+)")
_CORPUS = re.compile(r" corp: ([0-9]+)/")
_MEMORY = re.compile(r" rss: ([0-9]+)Mb")
_FINAL = re.compile(r"stat::(?P<name>[a-z_]+):\s+(?P<value>[0-9]+)")
_ARTIFACT = re.compile(r"Test unit written to (?P<file>.+)$")


@dataclass(slots=True, kw_only=True)
class Report:
    """What is known of a run so far."""

    runs: int = 0
    coverage: int = 0
    coverage_at_first: int = 0
    """Of what it began with."""
    features: int = 0
    features_at_first: int = 0
    corpus: int = 0
    memory: int = 0
    """The most it took: MB."""
    final: dict[str, int] = field(default_factory=dict)
    """libFuzzer's own figures at the end."""
    faults: dict[Path, str] = field(default_factory=dict)
    """What is wrong, by the file that shows it."""

    def read(self, line: str) -> None:
        """A line the engine wrote."""
        if line.startswith(FAULT):
            file, _, fault = line.removeprefix(FAULT).rstrip("\n").partition("\t")
            self.faults[Path(file)] = fault
        elif status := _STATUS.match(line):
            self._status(status, line)
        elif stat := _FINAL.match(line):
            self.final[stat["name"]] = int(stat["value"])
        elif artifact := _ARTIFACT.search(line):
            # `timeout-...`, `oom-...`, `crash-...`: what ended the process.
            file = artifact["file"]
            self.faults[Path(file)] = f"{Path(file).name.partition('-')[0]}: it ended the process"

    def _status(self, status: re.Match[str], line: str) -> None:
        self.runs = int(status["runs"])
        self.coverage, self.features = int(status["coverage"]), int(status["features"])
        if status["what"] == "INITED":
            self.coverage_at_first, self.features_at_first = self.coverage, self.features
        if corpus := _CORPUS.search(line):
            self.corpus = int(corpus[1])
        if memory := _MEMORY.search(line):
            self.memory = max(self.memory, int(memory[1]))

    def figures(self, *, seconds: float) -> Mapping[str, str]:
        """In the words of the table."""
        runs = self.final.get("number_of_executed_units", self.runs)
        memory = max(self.memory, self.final.get("peak_rss_mb", 0))
        return {
            "runs": f"{runs:,}",
            "runs a second": f"{runs / max(seconds, 0.001):,.0f}",
            "branches reached": f"{self.coverage:,}, at first {self.coverage_at_first:,}",
            "features": f"{self.features:,}, at first {self.features_at_first:,}",
            "inputs in the corpus": f"{self.corpus:,}",
            "most memory": f"{memory:,} MB",
            "inputs that failed": f"{len(self.faults):,}",
        }


def table(report: Report, *, seconds: float) -> Table:
    """Two columns, no lines."""
    shown = Table("", "", box=None, pad_edge=False, show_header=False)
    for name, value in report.figures(seconds=seconds).items():
        shown.add_row(name, value)
    return shown

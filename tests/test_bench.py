"""The benchmark itself, at a small scale: what it measures is whole. What it finds is in docs/bench, and not tested."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from bench import bodies, growth, latency, subjects, throughput
from bench.__main__ import main
from bench.report import ratios

_SMALL: dict[ModuleType, dict[str, Any]] = {
    throughput: {"_SPAN": 0.1, "_FEWEST": 20},
    latency: {"SPAN": 0.3, "_STORED": {700: 50, 4_000: 50, 60_000: 20}},
    growth: {
        "_ROUNDS": 1,
        "_SENT": 200,
        "_CLAIMS": 2,
        "_CHURN": 500,
        "_HALTING": 40.0,
        "_UNTIL_KILLED": 2.0,
        "_REST": 0.0,
    },
}


@pytest.mark.timeout(300)
def test_it_measures_all_it_says_and_tells_it_in_tables_and_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, constants in _SMALL.items():
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)
    options = ["measure", "--rounds", "1", "--settled", "1000", "--pending", "1500", "--into", str(tmp_path)]
    result = CliRunner().invoke(main, options, catch_exceptions=False)
    assert result.exit_code == 0
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [measured for _, _, measured in ratios(rows) if "-" in measured.split()] == []
    assert {path.name for path in tmp_path.glob("*.svg")} == {"throughput.svg", "latency.svg", "growth.svg"}
    missing = [line for line in (tmp_path / "README.md").read_text().splitlines() if " - |" in line]
    # What is new waits behind what is pending: it is not measured when it would arrive.
    assert all("1,500 pending" in line for line in missing) and len(missing) == len(throughput.JOURNALS)
    assert (subjects.WEBHOOK_PROGRAM is not None) == any(row["subject"] == throughput.WEBHOOK for row in rows)


def test_no_two_of_its_deliveries_are_one() -> None:
    # With 32 random bits for every 5,000 of them two of these would be equal.
    assert len({*bodies.ids(60_000, "name 48"), *bodies.ids(60_000, "name 48", random=True)}) == 120_000


@pytest.mark.parametrize("size", bodies.SIZES.values())
def test_its_bodies_are_as_large_as_it_says(size: int) -> None:
    [id_] = bodies.ids(1, "name")
    body = bodies.body(id_, size)
    assert len(body) == size and json.loads(body)["id"] == id_

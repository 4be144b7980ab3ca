"""What the README and the pages in docs/ tell of runs of `make bench` and `make chaos` is what those runs wrote."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from readme import PROSE, ROOT

import bench.report
import chaos.report
from chaos.outcome import Outcome, Round

NEWER = "docs/ has the figures of a newer run: put its tables and its date into the README, or `git checkout docs`"
BENCH, CHAOS = ROOT / "docs" / "bench", ROOT / "docs" / "chaos"


@pytest.fixture(scope="module")
def figures() -> Any:
    return json.loads((BENCH / "figures.json").read_text())


@pytest.fixture(scope="module")
def machine_and_outcomes() -> tuple[dict[str, Any], list[Outcome]]:
    raw = json.loads((CHAOS / "outcomes.json").read_text())
    return raw["machine"], [
        Outcome(**{**outcome, "rounds": [Round(**each) for each in outcome["rounds"]]}) for outcome in raw["outcomes"]
    ]


def test_the_pages_say_what_the_runs_wrote(
    figures: Any, machine_and_outcomes: tuple[dict[str, Any], list[Outcome]]
) -> None:
    assert (BENCH / "README.md").read_text() == bench.report.whole(figures["machine"], figures["rows"])
    assert (CHAOS / "README.md").read_text() == chaos.report.page(*machine_and_outcomes, "recovery.svg")


def test_the_readme_shows_their_first_tables(
    figures: Any, machine_and_outcomes: tuple[dict[str, Any], list[Outcome]]
) -> None:
    for shown in itertools.islice(bench.report.tables(figures["rows"]), 2):
        assert shown in PROSE, NEWER
    assert chaos.report.totals(machine_and_outcomes[1]) in PROSE, NEWER
    for machine in (figures["machine"], machine_and_outcomes[0]):
        assert machine["date"] in PROSE, NEWER


def test_the_chaos_that_is_shown_was_a_long_one_on_both_journals_and_nothing_was_lost(
    machine_and_outcomes: tuple[dict[str, Any], list[Outcome]],
) -> None:
    _, outcomes = machine_and_outcomes
    assert [outcome.journal for outcome in outcomes] == ["sqlite", "postgresql"]
    for outcome in outcomes:
        assert len(outcome.rounds) == 200
        assert outcome.is_kept
        assert not outcome.absent

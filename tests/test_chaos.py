"""The promise: what was answered 2xx reaches the Event API, with the same id however often, whatever befalls the bridge. Here
for some rounds; `make chaos` goes on for hundreds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from chaos import report
from chaos.disk import Disk
from chaos.ledger import Ledger
from chaos.rounds import Outcome, Round, planned, survive
from chaos.troubles import ALONE, MOODS, TROUBLES, Trouble, happening
from chaos.world import world

SEED = 20261121
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk whose power can be cut")


def named(*names: str) -> list[Trouble]:
    found = [trouble for trouble in TROUBLES if trouble.name in names]
    assert len(found) == len(names)
    return found


@pytest.mark.parametrize("journal", ["sqlite", "postgresql"])
async def test_nothing_acknowledged_is_lost_whatever_happens(tmp_path: Path, journal: str) -> None:
    async with world(journal, tmp_path, seed=SEED) as there:
        outcome = await survive(there, happening(there, long=False), rounds=10)
    assert outcome.is_kept, outcome
    assert (outcome.lost, outcome.changed, outcome.dead_without_fault, outcome.pending) == (0, 0, 0, 0)
    assert outcome.acknowledged > 1000 and outcome.dead > 0


async def faulty(tmp_path: Path, fault: str, troubles: Sequence[Trouble], moods: Sequence[str]) -> Outcome:
    """A bridge with a fault put in, and what brings it to light."""
    async with world("sqlite", tmp_path, seed=SEED, fault=fault) as there:
        return await survive(there, troubles, rounds=2, moods=moods, moody=1.0, patience=5)


@needs_root
async def test_a_journal_that_does_not_sync_is_found_out(tmp_path: Path) -> None:
    outcome = await faulty(tmp_path, "synchronous-off", named("power cut"), ["Event API hangs"])
    assert outcome.lost and not outcome.is_kept


async def test_an_answer_before_the_commit_is_found_out(tmp_path: Path) -> None:
    outcome = await faulty(tmp_path, "answer-first", named("all processes SIGKILL"), ["Event API hangs"])
    assert outcome.lost and not outcome.is_kept


async def test_a_settlement_before_the_event_is_sent_is_found_out(tmp_path: Path) -> None:
    outcome = await faulty(tmp_path, "settle-first", named("forwarder SIGKILL"), ["Event API hangs"])
    assert outcome.lost and not outcome.is_kept


@needs_root
def test_a_power_cut_leaves_what_was_synced_and_nothing_else() -> None:
    disk = Disk()
    try:
        with (disk.path / "file").open("wb", buffering=0) as file:
            file.write(b"synced")
            os.fsync(file.fileno())
            file.write(b", and not synced")
            disk.cut_power()
            with pytest.raises(OSError, match="Input/output error"):
                os.fsync(file.fileno())
        disk.unmount()
        disk.mount()
        assert (disk.path / "file").read_bytes() == b"synced"
    finally:
        disk.remove()


def test_a_seed_gives_the_same_troubles_and_each_as_often_as_it_weighs() -> None:
    rounds = sum(trouble.weight for trouble in TROUBLES)
    plan, again, another = (
        list(planned(TROUBLES, list(MOODS), rounds=rounds, seed=seed, moody=0.5)) for seed in (SEED, SEED, SEED + 1)
    )
    assert plan == again != another
    troubles = [trouble for trouble, _ in plan]
    assert all(troubles.count(trouble) == trouble.weight for trouble in TROUBLES)
    assert {mood for trouble, mood in plan if trouble is ALONE}.isdisjoint({""})


def test_what_is_lost_repeated_changed_and_at_fault_is_told_apart() -> None:
    ledger = Ledger()
    for name in ("evt_kept", "evt_lost", "evt_faulty", "evt_unanswered"):
        ledger.send(name, at_fault=name == "evt_faulty")
    for name in ("evt_kept", "evt_lost", "evt_faulty"):
        ledger.acknowledge(name, bridge="a", began=1.0)
    assert ledger.waiting == {"evt_kept", "evt_lost"}
    for name, id_ in (("evt_kept", "1"), ("evt_kept", "1"), ("evt_unanswered", "2"), ("evt_unanswered", "3")):
        ledger.arrive({"id": id_, "data": {"id": name}})
    assert (ledger.lost, ledger.waiting) == ({"evt_lost"}, {"evt_lost"})
    assert (ledger.more_than_once, ledger.changed) == (2, {"evt_unanswered"})
    assert ledger.have_answered(["a"], since=0.5) and not ledger.have_answered(["a", "b"], since=0.5)


def outcome(**fields: Any) -> Outcome:
    """One in which the promise was kept, but for what is given."""
    rounds = [Round(trouble="power cut", mood="", recovery=1.25), Round(trouble="", mood="Event API 500", recovery=3.0)]
    counts = dict.fromkeys(("lost", "changed", "dead_without_fault", "pending", "given_up", "unacknowledged"), 0)
    usual: dict[str, Any] = {"journal": "sqlite", "seed": 7, "rounds": rounds, "seconds": 60.0, "absent": (), **counts}
    usual |= {"sent": 1001, "acknowledged": 1000, "arrived": 990, "more_than_once": 3, "dead": 10}
    return Outcome(**(usual | fields))


@pytest.mark.parametrize(
    "broken",
    [
        {"lost": 1},
        {"changed": 1},
        {"dead_without_fault": 1},
        {"pending": 1},
        {"rounds": [Round(trouble="power cut", mood="", recovery=None)]},
    ],
    ids=str,
)
def test_each_way_to_break_the_promise_counts(broken: dict[str, Any]) -> None:
    assert outcome().is_kept and not outcome(**broken).is_kept


def test_what_was_found_is_told_in_a_table_a_plot_and_raw(tmp_path: Path) -> None:
    failed = Round(trouble="disk full", mood="Event API 429", recovery=None)
    found = outcome(lost=2, absent=("power cut",), rounds=[*outcome().rounds, failed])
    written = report.write({"date": "2026-01-31", "cores": 2, "processor": "P", "system": "S"}, [found], tmp_path)
    assert [path.name for path in written] == ["outcomes.json", "README.md", "recovery.svg"]
    page = (tmp_path / "README.md").read_text()
    for line in (
        "2026-01-31, 2 cores of P, S: `make chaos ROUNDS=3 SEED=7`.",
        "| **lost** | **2** |",
        "| longest time to recover | 3.0 s (Event API 500) |",
        "| rounds | 3, not recovered: disk full + Event API 429 |",
        "| power cut | 1.2, 1.2 (1) |",
        "bridge, SQLite: not tried, because only root may mount a disk: power cut.",
    ):
        assert line in page
    assert "<svg" in (tmp_path / "recovery.svg").read_text()
    assert json.loads((tmp_path / "outcomes.json").read_text())["outcomes"][0]["lost"] == 2

"""The promise: what was answered 2xx reaches the Event API, with the same id however often, whatever befalls the bridge. Here
for some rounds; `make chaos` goes on for hundreds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from chaos.disk import Disk
from chaos.ledger import Ledger
from chaos.rounds import Outcome, planned, survive
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

"""The promise: what was answered 2xx reaches the Event API, with the same id however often, whatever befalls the bridge. Here
for some rounds; `make chaos` goes on for hundreds.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from chaos import report
from chaos.__main__ import main
from chaos.disk import Disk
from chaos.ledger import Ledger
from chaos.outcome import Outcome, Round
from chaos.rounds import _wholly, planned, survive
from chaos.senders import HABITS, Habit, expected
from chaos.troubles import ALONE, MOODS, TROUBLES, Trouble
from chaos.world import world

SEED = 20261121
# For `make test`: each that was ever found to matter, once.
SHORT = {
    "sqlite": (
        "receiver SIGKILL",
        "writer SIGKILL",
        "forwarder SIGKILL",
        "worker SIGKILL",
        "supervisor SIGKILL",
        "all processes SIGKILL",
        "forwarder SIGSTOP",
        "power cut",
        "disk full",
        "clock 2 h ahead",
    ),
    "postgresql": (
        "receiver SIGKILL",
        "forwarder SIGKILL",
        "supervisor SIGKILL",
        "power cut",
        "disk full",
        "clock 2 h behind",
        "PostgreSQL SIGKILL",
        "PostgreSQL backend SIGKILL",
        "PostgreSQL SIGSTOP",
        "PostgreSQL restarted",
    ),
}


@pytest.fixture(scope="module")
def disk() -> Iterator[Disk]:
    try:
        found = Disk()
    except OSError:
        pytest.skip("no disk whose power can be cut can be mounted here")
    yield found
    found.remove()


def named(*names: str) -> list[Trouble]:
    """Each once."""
    found = [replace(trouble, weight=1) for trouble in TROUBLES if trouble.name in names]
    assert len(found) == len(names)
    return found


@pytest.mark.timeout(300)  # what does not recover is told of, which takes its time
@pytest.mark.parametrize("journal", SHORT)
async def test_nothing_acknowledged_is_lost_whatever_happens(tmp_path: Path, journal: str) -> None:
    async with world(journal, tmp_path, seed=SEED) as there:
        troubles = [each for each in named(*SHORT[journal]) if there.disk is not None or not each.needs_disk]
        outcome = await survive(there, troubles, rounds=len(troubles))
    assert outcome.is_kept, outcome
    refused = {each.name for each in outcome.rounds if each.refused}
    assert refused >= {"supervisor SIGKILL", *({"disk full", "power cut"} if there.disk is not None else ())}
    assert not (outcome.lost or outcome.changed or outcome.altered or outcome.dead_without_fault or outcome.pending)
    assert len(outcome.rounds) == len(troubles)
    assert outcome.acknowledged > 1000 and outcome.dead > 0


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("journal", SHORT)
async def test_a_journal_that_does_not_sync_is_found_out(tmp_path: Path, journal: str) -> None:
    await found_out(tmp_path, "synchronous-off", "power cut", journal)


async def test_an_answer_before_the_commit_is_found_out(tmp_path: Path) -> None:
    await found_out(tmp_path, "answer-first", "all processes SIGKILL")


async def test_a_settlement_before_the_event_is_sent_is_found_out(tmp_path: Path) -> None:
    await found_out(tmp_path, "settle-first", "forwarder SIGKILL")


async def found_out(folder: Path, fault: str, trouble: str, journal: str = "sqlite") -> None:
    """A bridge with a fault put in, and what brings it to light, while much waits for the Event API."""
    async with world(journal, folder, seed=SEED, fault=fault) as there:
        outcome = await survive(there, named(trouble), rounds=2, moods=["Event API hangs"], moody=1.0, patience=5)
    assert outcome.lost and not outcome.is_kept


def test_a_power_cut_leaves_what_was_synced_and_nothing_else(disk: Disk) -> None:
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


def test_a_disk_that_was_full_has_room_for_good(disk: Disk) -> None:
    disk.fill()
    os.sync()
    with pytest.raises(OSError, match="No space left"):
        (disk.path / "more").write_bytes(bytes(1 << 20))
    disk.make_room()
    disk.cut_power()
    disk.unmount()
    disk.mount()
    assert shutil.disk_usage(disk.path).free > 100 << 20


def test_a_seed_gives_the_same_troubles_and_each_as_often_as_it_weighs() -> None:
    rounds = sum(trouble.weight for trouble in TROUBLES)
    plan, again, another = (
        list(planned(TROUBLES, list(MOODS), rounds=rounds, seed=seed, moody=0.5)) for seed in (SEED, SEED, SEED + 1)
    )
    assert plan == again != another
    troubles = [trouble for trouble, _ in plan]
    assert all(troubles.count(trouble) == trouble.weight for trouble in TROUBLES)
    assert {mood for trouble, mood in plan if trouble is ALONE}.isdisjoint({""})
    assert {mood for trouble, mood in plan if trouble.is_long} == {""}  # it has the Event API hang by itself


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--journal", "postgresql", "--trouble", "writer SIGKILL"), "none of these can happen: writer SIGKILL"),
        (("--trouble", "lightning"), "'lightning' is not one of 'receiver SIGKILL'"),
    ],
    ids=["nowhere", "unknown"],
)
def test_a_trouble_that_cannot_happen_is_refused(options: Sequence[str], said: str) -> None:
    result = CliRunner().invoke(main, ["--rounds", "1", *options])
    assert result.exit_code and said in result.output


async def test_a_trouble_that_has_begun_is_gone_through_with_when_the_run_is_to_end() -> None:
    done: list[str] = []

    async def trouble() -> None:
        await asyncio.sleep(0.1)
        done.append("all of it")

    running = asyncio.create_task(_wholly(trouble()))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert done == ["all of it"]


def event(id_: str, **other: Any) -> dict[str, Any]:
    return {"id": f"customer.created:{id_}", "name": "customer.created", "data": {"id": id_}} | other


def test_what_is_lost_repeated_changed_altered_and_at_fault_is_told_apart() -> None:
    ledger = Ledger(event)
    for name in ("kept", "lost", "faulty", "alive", "unanswered", "odd"):
        ledger.send(name, at_fault=name in {"faulty", "alive"})
    for name in ("kept", "lost", "faulty", "alive"):
        ledger.acknowledge(name, bridge="a", began=1.0)
    assert ledger.waiting == {"kept", "lost"}
    for arrived in (event("kept"), event("kept"), event("unanswered", id="other"), event("odd", name="other")):
        ledger.arrive(arrived)
    ledger.arrive({"id": "", "name": "", "data": {}})
    assert ledger.waiting == {"lost"} and ledger.more_than_once == 1
    assert (ledger.changed, ledger.altered) == ({"unanswered", ""}, {"odd", ""})
    # At fault and not dead; stored though its answer was lost, and settled without being sent.
    assert ledger.lost(forwarded={"kept", "unsent"}, dead={"faulty"}) == {"lost", "alive", "unsent"}
    assert ledger.have_answered(["a"], since=0.5) and not ledger.have_answered(["a", "b"], since=0.5)


@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.provider)
def test_what_is_to_arrive_is_what_was_sent(habit: Habit) -> None:
    wanted = expected(f"{habit.id}7")
    assert (wanted["id"], wanted["name"]) == (f"{habit.event}:{habit.id}7", habit.event)
    assert wanted["data"] == orjson.loads(habit.body(7, ""))
    assert expected("nobody's") == {"id": "", "name": "", "data": {}}


def outcome(**fields: Any) -> Outcome:
    """One in which the promise was kept, but for what is given."""
    rounds = [Round(trouble="power cut", mood="", recovery=1.25), Round(trouble="", mood="Event API 500", recovery=3.0)]
    counts: dict[str, Any] = dict.fromkeys(("pending", "given_up", "unacknowledged"), 0)
    counts |= dict.fromkeys(("lost", "changed", "altered", "dead_without_fault"), ())
    usual: dict[str, Any] = {"journal": "sqlite", "seed": 7, "rounds": rounds, "seconds": 60.0, "absent": (), **counts}
    usual |= {"sent": 1001, "acknowledged": 1000, "arrived": 990, "more_than_once": 3, "dead": 10}
    return Outcome(**(usual | fields))


@pytest.mark.parametrize(
    "broken",
    [
        {"lost": ["evt_1"]},
        {"changed": ["evt_1"]},
        {"altered": ["evt_1"]},
        {"dead_without_fault": ["evt_1"]},
        {"pending": 1},
        {"rounds": [Round(trouble="power cut", mood="", recovery=None)]},
    ],
    ids=str,
)
def test_each_way_to_break_the_promise_counts(broken: dict[str, Any]) -> None:
    assert outcome().is_kept and not outcome(**broken).is_kept


def test_what_was_found_is_told_in_a_table_a_plot_and_raw(tmp_path: Path) -> None:
    failed = Round(trouble="disk full", mood="Event API 429", recovery=None, why="TimeoutError")
    found = outcome(lost=["evt_1", "evt_2"], absent=("power cut",), rounds=[*outcome().rounds, failed])
    written = report.write({"date": "2026-01-31", "cores": 2, "processor": "P", "system": "S"}, [found], tmp_path)
    assert [path.name for path in written] == ["outcomes.json", "README.md", "recovery.svg"]
    page = (tmp_path / "README.md").read_text()
    for line in (
        "2026-01-31, 2 cores of P, S: `make chaos ROUNDS=3 SEED=7`.",
        "| **lost** | **2** |",
        "| longest time to recover | 3.0 s (Event API 500) |",
        "| rounds, seed | 3, 7, not recovered: disk full + Event API 429: TimeoutError |",
        "| power cut | 1.2, 1.2 (1) |",
        "mkfs.ext4: power cut.",
    ):
        assert line in page
    assert "<svg" in (tmp_path / "recovery.svg").read_text()
    assert json.loads((tmp_path / "outcomes.json").read_text())["outcomes"][0]["lost"] == ["evt_1", "evt_2"]


def test_where_the_journal_could_not_be_asked_nothing_is_said_of_what_is_in_it() -> None:
    unknown = outcome(pending=-1)
    assert not unknown.is_kept
    assert "| **lost** | not known |" in report.totals([unknown])

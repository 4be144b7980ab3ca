"""`bridge replay`: which deliveries are sent again, with which event ids, and whether one is asked before."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands import T0, XTERM, Process, Ran, delivery, fill, on_terminal, run

from bridge import journal
from bridge.model import Selection, State

MINUTE = 60_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five deliveries, a minute apart."""
    fill(
        tmp_path,
        [
            (delivery("evt_1", type="invoice.paid"), State.FORWARDED),
            (delivery("evt_2", received_at=T0 + MINUTE), State.SKIPPED),
            (delivery("evt_3", received_at=T0 + 2 * MINUTE, source="stripe-eu"), State.DEAD),
            (delivery("evt_4", received_at=T0 + 3 * MINUTE, type="invoice.paid"), State.DEAD),
            (delivery("evt_5", received_at=T0 + 4 * MINUTE), State.PENDING),
        ],
    )
    return tmp_path


AGAIN = "pending again, for the running bridge to forward"


def replays(folder: Path) -> dict[str, int]:
    """How often each was replayed, of those that were."""

    async def read() -> dict[str, int]:
        store = await journal.open(f"sqlite:///{folder}/bridge.db")
        entries = await store.find(Selection(), limit=1000)
        await store.close()
        assert all(entry.state is State.PENDING for entry in entries if entry.replays)
        return {entry.id: entry.replays for entry in entries if entry.replays}

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("evt_1", "evt_1"),
        ("evt_4 evt_1 evt_4", "evt_1 evt_4"),
        ("evt_3 --source stripe-eu", "evt_3"),
        ("--state dead", "evt_3 evt_4"),
        ("--state forwarded", "evt_1"),
        ("--source stripe", "evt_1 evt_2 evt_4"),
        ("--type invoice.paid", "evt_1 evt_4"),
        ("--since 2026-01-01T00:01 --until 2026-01-01T00:03", "evt_2 evt_3"),
        ("--since 2026-01-01", "evt_1 evt_2 evt_3 evt_4"),
        ("--state dead --source stripe-eu", "evt_3"),
        ("--state pending", ""),
        ("--since 1h", ""),
    ],
)
def test_ids_or_options_say_which_and_what_is_pending_is_left_alone(
    folder: Path, arguments: str, expected: str
) -> None:
    count = len(expected.split())
    told = AGAIN if count else "nothing that is finished matches"
    assert run("replay", *arguments.split(), cwd=folder) == Ran(0, f"{count} replayed: {told}\n")
    assert replays(folder) == dict.fromkeys(expected.split(), 1)


def test_that_it_is_the_journal_of_bridge_dev_is_said_once(tmp_path: Path) -> None:
    fill(tmp_path, [(delivery("evt_1"), State.FORWARDED)], name="bridge-dev.db")
    ran = run("replay", "evt_1", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "bridge: in the journal of `bridge dev`, sqlite:///bridge-dev.db\n")


def test_what_is_pending_or_purged_is_told_to_be_left_alone(folder: Path) -> None:
    assert run("replay", "evt_5", "evt_1", cwd=folder).out == (
        f"1 replayed: {AGAIN}; 1 left alone, which are pending or purged\n"
    )

    async def purge() -> None:
        store = await journal.open(f"sqlite:///{folder}/bridge.db")
        await store.prune(bodies=0, ids=T0 + 2 * MINUTE, now=T0 + 2 * MINUTE, limit=10)
        await store.close()

    asyncio.run(purge())
    assert run("replay", "--state", "skipped", cwd=folder).out == (
        "0 replayed: 1 left alone, which are pending or purged\n"
    )


def test_json_tells_how_many(folder: Path) -> None:
    ran = run("replay", "--since", "2026-01-01", "--json", cwd=folder)
    assert json.loads(ran.out) == {"selected": 4, "replayed": 4}
    ran = run("replay", "evt_1", "--json", cwd=folder)
    assert (ran.status, json.loads(ran.out)) == (1, {"selected": 1, "replayed": 0}), "it was asked for by name"


def event_ids(folder: Path, id_: str) -> list[str]:
    return [event["id"] for event in json.loads(run("transform", id_, "--json", cwd=folder).out)]


def test_the_events_keep_their_ids_unless_new_ones_are_asked_for(folder: Path) -> None:
    before = event_ids(folder, "evt_1"), event_ids(folder, "evt_4")
    run("replay", "evt_1", cwd=folder)
    run("replay", "evt_4", "--new-ids", cwd=folder)
    assert event_ids(folder, "evt_1") == before[0] == ["stripe/invoice.paid:evt_1"]
    assert event_ids(folder, "evt_4") == ["stripe/invoice.paid:evt_4::r1"] != before[1]


def test_an_id_nobody_has_replays_nothing_of_the_others_either(folder: Path) -> None:
    ran = run("replay", "evt_1", "evt_9", cwd=folder)
    assert ran == Ran(1, "", "bridge: evt_9: not in the journal\n")
    assert replays(folder) == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name ids, or select with --state, --source, --type, --since, --until"),
        (["--new-ids", "--yes"], "name ids, or select with --state"),
        (["evt_1", "--state", "dead"], "either ids, or a selection: beside ids only --source says something"),
        (["evt_1", "--since", "1d"], "either ids, or a selection"),
        (["--since", "soon"], "'soon' is no time"),
        (["--since", "1h", "--until", "2h"], "--since is not before --until"),
    ],
)
def test_a_slip_replays_nothing(folder: Path, arguments: list[str], told: str) -> None:
    ran = run("replay", *arguments, cwd=folder)
    assert (ran.status, ran.out) == (2, "")
    assert told in " ".join(ran.err.split())
    assert replays(folder) == {}


@pytest.mark.parametrize(("answer", "status", "expected"), [("y", 0, {"evt_3": 1, "evt_4": 1}), ("n", 1, {})])
def test_on_a_terminal_a_selection_is_asked_about(
    folder: Path, answer: str, status: int, expected: dict[str, int]
) -> None:
    with Process("replay", "--state", "dead", cwd=folder, **XTERM) as process:
        process.until("Replay 2 deliveries? [y/N]: ")
        assert replays(folder) == {}
        process.answer(f"{answer}\n")
        assert process.ended().status == status
    assert replays(folder) == expected


def test_it_is_said_that_new_ids_run_functions_again(folder: Path) -> None:
    with Process("replay", "--source", "stripe-eu", "--new-ids", cwd=folder, **XTERM) as process:
        process.until("Replay 1 delivery with new ids, so that Inngest runs its functions once more? [y/N]: ")
        process.answer("n\n")
        assert process.ended().status == 1


@pytest.mark.parametrize("arguments", [["--state", "dead", "--yes"], ["evt_1"], ["--source", "nobody"]])
def test_one_that_was_told_yes_or_which_or_has_nothing_to_do_is_not_asked(folder: Path, arguments: list[str]) -> None:
    ran = on_terminal("replay", *arguments, cwd=folder)
    assert ran.status == 0
    assert "?" not in ran.out
    assert "replaying" not in ran.out


async def fill_with_dead(folder: Path, count: int) -> None:
    store = await journal.open(f"sqlite:///{folder}/bridge.db")
    await asyncio.gather(*(store.append(replace(delivery(f"evt_{n}"), fault="for the test")) for n in range(count)))
    await store.close()


def test_a_long_replay_shows_on_a_terminal_how_far_it_is(tmp_path: Path) -> None:
    asyncio.run(fill_with_dead(tmp_path, 501))
    ran = on_terminal("replay", "--state", "dead", "--yes", cwd=tmp_path)
    assert "replaying" in ran.out and "501/501" in ran.out
    assert ran.out.endswith(f"501 replayed: {AGAIN}\r\n")


def test_elsewhere_it_says_no_more_than_what_came_of_it(tmp_path: Path) -> None:
    asyncio.run(fill_with_dead(tmp_path, 501))
    assert run("replay", "--state", "dead", cwd=tmp_path) == Ran(0, f"501 replayed: {AGAIN}\n")
    assert len(replays(tmp_path)) == 501

"""bridge journal copy: what one journal holds, into another, as often as it takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import postgres
import pytest
from commands import T0, delivery, fill, on_terminal, run

from bridge import journal
from bridge.journal import Journal
from bridge.journal.sqlite.journal import SqliteJournal
from bridge.model import Attempt, Entry, Selection, State

T = TypeVar("T")

STATES = (State.FORWARDED, State.SKIPPED, State.DEAD, State.PENDING)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal with three of each state, one of them purged, one replayed with new ids."""
    fill(tmp_path, [(delivery(f"evt_{state}_{n}"), state) for state in STATES for n in range(3)], error="no")

    async def more(store: Journal) -> None:
        [first] = await store.find(Selection(id="evt_forwarded_0"), limit=1)
        await store.prune(bodies=0, ids=T0 + 1, now=T0 + 1, limit=1)
        [dead] = await store.find(Selection(id="evt_dead_0"), limit=1)
        assert await store.replay([dead.seq], new_ids=True) == 1
        loaded = await store.load(first.seq)
        assert loaded is not None and loaded.body is None

    within(f"sqlite:///{tmp_path}/bridge.db", more)
    return tmp_path


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/new.db"
        return
    with postgres.schema() as url:
        yield url


def within(url: str, job: Callable[[Journal], Awaitable[T]]) -> T:
    async def opened() -> T:
        store = await journal.open(url)
        try:
            return await job(store)
        finally:
            await store.close()

    return asyncio.run(opened())


def held(url: str) -> dict[str, tuple[Entry, list[Attempt]]]:
    """All of a journal by id, less what is its own: seq and due."""

    async def read(store: Journal) -> dict[str, tuple[Entry, list[Attempt]]]:
        found = {}
        for entry in await store.find(Selection(), limit=1000):
            whole = await store.load(entry.seq)
            assert whole is not None
            found[entry.id] = (replace(whole, seq=0, due=None), list(await store.attempts(entry.seq)))
        return found

    return within(url, read)


def test_everything_is_copied_as_it_is(folder: Path, target: str) -> None:
    source = f"sqlite:///{folder}/bridge.db"
    before = held(source)
    ran = run("journal", "copy", source, target, cwd=folder)
    assert (ran.status, ran.out) == (
        0,
        "12 copied: 4 pending, 2 dead, 3 skipped, 3 forwarded; 0 were there already\n",
    )
    assert held(target) == before == held(source)


def test_the_same_command_goes_on_where_it_was_interrupted(
    folder: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"sqlite:///{folder}/bridge.db"
    monkeypatch.setattr("bridge.cli.journal._STEP", 2)
    real, calls = SqliteJournal.load, 0

    async def interrupted(store: SqliteJournal, seq: int) -> Entry | None:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return await real(store, seq)

    monkeypatch.setattr(SqliteJournal, "load", interrupted)
    assert run("journal", "copy", source, target, cwd=folder).status == 1
    monkeypatch.setattr(SqliteJournal, "load", real)
    assert len(held(target)) == 6
    ran = run("journal", "copy", source, target, "--json", cwd=folder)
    assert json.loads(ran.out) == {
        "copied": {"pending": 0, "dead": 0, "skipped": 3, "forwarded": 3},
        "there_already": 6,
    }
    assert held(target) == held(source)


def test_only_the_pending_where_that_is_asked(folder: Path, target: str) -> None:
    ran = run("journal", "copy", f"sqlite:///{folder}/bridge.db", target, "--pending", cwd=folder)
    assert ran.out == "4 copied: 4 pending; 0 were there already\n"
    assert set(held(target)) == {"evt_dead_0", "evt_pending_0", "evt_pending_1", "evt_pending_2"}


def test_a_generation_goes_along_so_new_ids_stay_those(folder: Path, target: str) -> None:
    run("journal", "copy", f"sqlite:///{folder}/bridge.db", target, cwd=folder)
    entry, _ = held(target)["evt_dead_0"]
    assert (entry.state, entry.generation, entry.replays) == (State.PENDING, 1, 1)


def test_a_url_may_come_from_a_variable(folder: Path) -> None:
    target = f"sqlite:///{folder}/new.db"
    ran = run("journal", "copy", f"sqlite:///{folder}/bridge.db", "env:TARGET", cwd=folder, TARGET=target)
    assert ran.status == 0
    assert len(held(target)) == 12


def test_or_from_a_file(folder: Path) -> None:
    (folder / "target").write_text(f"sqlite:///{folder}/new.db\n")
    ran = run("journal", "copy", f"sqlite:///{folder}/bridge.db", f"file:{folder}/target", cwd=folder)
    assert ran.status == 0
    assert len(held(f"sqlite:///{folder}/new.db")) == 12


def test_no_bridge_may_be_running_on_what_is_copied(folder: Path) -> None:
    async def refused(store: Journal) -> None:
        await store.reserve()
        url = f"sqlite:///{folder}/bridge.db"
        ran = await asyncio.to_thread(run, "journal", "copy", url, f"sqlite:///{folder}/new.db", cwd=folder)
        assert ran.status == 1
        assert "another bridge is running on it" in ran.err

    within(f"sqlite:///{folder}/bridge.db", refused)


@pytest.mark.parametrize(
    ("source", "target", "fault"),
    [
        ("sqlite:///none.db", "sqlite:///new.db", "FROM: there is no journal at sqlite:///none.db"),
        ("sqlite:///bridge.db", "sqlite:///bridge.db", "FROM and TO are the same journal"),
        ("mysql://u:hidden@h", "sqlite:///new.db", "FROM: unknown scheme `mysql`, expected "),
        ("sqlite:///bridge.db", "postgresql://u:hid/den@h/d", "TO: not understood: special characters in a password"),
        ("sqlite:///bridge.db", "env:NOWHERE", "TO: NOWHERE is not set"),
        ("sqlite:///bridge.db", "file:nowhere", "TO: nowhere: No such file or directory"),
        ("sqlite:///bridge.db", "file:/dev/null", "TO: /dev/null is empty"),
        ("sqlite://[", "sqlite:///new.db", "FROM: no URL, expected "),
    ],
)
def test_what_is_no_journal_is_told_in_a_line(folder: Path, source: str, target: str, fault: str) -> None:
    ran = run("journal", "copy", source, target, cwd=folder)
    assert (ran.status, len(ran.err.splitlines())) == (2, 1)
    assert ran.err.startswith(f"bridge: {fault}")
    assert "hid" not in ran.err


def test_on_a_terminal_it_shows_how_far_it_is(folder: Path) -> None:
    ran = on_terminal("journal", "copy", f"sqlite:///{folder}/bridge.db", f"sqlite:///{folder}/new.db", cwd=folder)
    assert ran.status == 0
    assert "copying" in ran.out and "12/12" in ran.out

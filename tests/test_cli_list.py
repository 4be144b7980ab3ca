"""`bridge list` and `bridge show`: what the journal holds, for people and for programs."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from commands import T0, Ran, delivery, fill, on_terminal, run

from bridge import journal
from bridge.cli.output import Moment
from bridge.clock import wall_clock
from bridge.model import State

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
        error="Traceback: \x1b[2J\n  KeyError: '[bold]x[/]'",
    )
    return tmp_path


def ids(ran: Ran) -> list[str]:
    assert (ran.status, ran.err) == (0, "")
    return [json.loads(line)["id"] for line in ran.out.splitlines()]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("", "evt_5 evt_4 evt_3 evt_2 evt_1"),
        ("--state dead", "evt_4 evt_3"),
        ("--state forwarded", "evt_1"),
        ("--state skipped", "evt_2"),
        ("--state pending", "evt_5"),
        ("--source stripe-eu", "evt_3"),
        ("--type invoice.paid", "evt_4 evt_1"),
        ("--type invoice.paid --state dead", "evt_4"),
        ("--since 2026-01-01T00:03", "evt_5 evt_4"),
        ("--until 2026-01-01T00:01", "evt_1"),
        ("--since 2026-01-01T01:01+01:00 --until 2026-01-01T00:03:00.000", "evt_3 evt_2"),
        ("--since 2026-01-01 --until 2026-01-02 --limit 2", "evt_5 evt_4"),
        ("--since 2h", ""),
        ("--source nobody", ""),
    ],
)
def test_each_option_selects_and_the_newest_comes_first(folder: Path, options: str, found: str) -> None:
    assert ids(run("list", *options.split(), "--json", cwd=folder)) == found.split()


def test_what_came_lately_is_found_by_how_long_ago(folder: Path) -> None:
    fill(folder, [(delivery("evt_new", received_at=wall_clock() - 60 * MINUTE), State.PENDING)])
    assert ids(run("list", "--since", "2h", "--json", cwd=folder)) == ["evt_new"]
    assert ids(run("list", "--since", "59m", "--json", cwd=folder)) == []
    assert len(ids(run("list", "--until", "3601s", "--json", cwd=folder))) == 5


def test_the_table_has_a_line_for_each_and_how_many_are_in_each_state(folder: Path) -> None:
    ran = run("list", "--limit", "2", cwd=folder)
    assert [line.split() for line in ran.out.splitlines()] == [
        ["RECEIVED", "(UTC)", "SOURCE", "TYPE", "ID", "STATE", "ATTEMPTS"],
        ["2026-01-01", "00:04:00", "stripe", "customer.created", "evt_5", "pending", "0"],
        ["2026-01-01", "00:03:00", "stripe", "invoice.paid", "evt_4", "dead", "1"],
        ["the", "newest", "2:", "--limit", "shows", "more"],
        ["in", "the", "whole", "journal:", "1", "pending,", "1", "forwarded,", "1", "skipped,", "2", "dead"],
    ]
    assert "--limit" not in run("list", cwd=folder).out


def test_on_a_pipe_a_line_is_never_cut_however_long(tmp_path: Path) -> None:
    long = delivery("evt_" + "x" * 251, type="y" * 255, source="z" * 63)
    fill(tmp_path, [(long, State.PENDING)])
    [line] = [line for line in run("list", cwd=tmp_path).out.splitlines() if long.id in line]
    assert line.split()[2:5] == [long.source, long.type, long.id]
    assert f"id           {long.id}\n" in run("show", long.id, cwd=tmp_path).out


def test_on_a_terminal_states_have_their_colours_and_nothing_is_cut_however_narrow(folder: Path) -> None:
    said = on_terminal("list", cwd=folder, COLUMNS="40").out
    assert "stripe-eu  customer.created  evt_3" in said
    for word, colour in (("dead", 31), ("forwarded", 32), ("pending", 33), ("skipped", 90)):
        assert f"\x1b[{colour}m{word}" in said


def record(**more: Any) -> dict[str, Any]:
    return {
        "source": "stripe",
        "id": "evt_4",
        "type": "invoice.paid",
        "state": "dead",
        "received_at": "2026-01-01T00:03:00.000Z",
        "occurred_at": "2026-01-01T00:02:59.000Z",
        "due": None,
        "attempts": 1,
        "replays": 0,
        "size": 95,
    } | more


def test_json_has_all_of_an_entry_but_its_headers(folder: Path) -> None:
    ran = run("list", "--type", "invoice.paid", "--limit", "1", "--json", cwd=folder)
    assert json.loads(ran.out) == record()


def test_show_has_every_attempt_and_the_body(folder: Path) -> None:
    told = json.loads(run("show", "evt_4", "--json", cwd=folder).out)
    body = delivery("evt_4", type="invoice.paid").body.decode()
    attempt = {"at": "2026-01-01T00:03:00.050Z", "outcome": "raised", "events": 0}
    attempt["error"] = "Traceback: \x1b[2J\n  KeyError: '[bold]x[/]'"
    assert told == record(attempts_made=[attempt], body=body)


def test_show_is_readable_and_nothing_in_it_steers_the_terminal(folder: Path) -> None:
    ran = run("show", "evt_4", cwd=folder)
    assert (ran.status, ran.err) == (0, "")
    assert "received_at  2026-01-01T00:03:00.000Z\n" in ran.out
    assert "due          -\n" in ran.out
    assert (
        "attempt      2026-01-01T00:03:00.050Z raised\n"
        "             Traceback: \ufffd[2J\n               KeyError: '[bold]x[/]'\n"
    ) in ran.out
    assert json.loads(ran.out.partition("body")[2]) == json.loads(delivery("evt_4", type="invoice.paid").body)
    assert "stripe-signature" not in ran.out
    said = on_terminal("show", "evt_4", cwd=folder).out
    assert "\x1b[31m             Traceback: \ufffd[2J\x1b[0m" in said
    assert "\x1b[2J" not in said


def test_show_tells_how_many_events_were_accepted(folder: Path) -> None:
    assert (
        "attempt      2026-01-01T00:00:00.050Z forwarded, events accepted: 1\n" in run("show", "evt_1", cwd=folder).out
    )


def test_a_body_that_is_no_json_is_shown_as_it_is_less_what_steers_the_terminal(tmp_path: Path) -> None:
    fill(tmp_path, [(delivery("evt_1", body=b"command=%2Fdeploy\x1b[2J\xff&a=:tada:[/b]"), State.PENDING)])
    assert run("show", "evt_1", cwd=tmp_path).out.endswith("command=%2Fdeploy\ufffd[2J\ufffd&a=:tada:[/b]\n")


def test_an_unusable_delivery_and_a_purged_body_are_shown_too(tmp_path: Path) -> None:
    fill(tmp_path, [(delivery("evt_1"), State.FORWARDED)])

    async def purge() -> None:
        store = await journal.open(f"sqlite:///{tmp_path}/bridge.db")
        await store.prune(bodies=0, ids=T0 + 1, now=T0 + 1, limit=10)
        await store.close()

    asyncio.run(purge())
    assert run("show", "evt_1", cwd=tmp_path).out.endswith("body         purged\n")
    assert json.loads(run("show", "evt_1", "--json", cwd=tmp_path).out)["body"] is None


def test_show_wants_to_know_which_of_two_sources(tmp_path: Path) -> None:
    fill(tmp_path, [(delivery("evt_1", source=source), State.PENDING) for source in ("stripe-eu", "stripe-us")])
    ran = run("show", "evt_1", cwd=tmp_path)
    assert ran == Ran(1, "", "bridge: evt_1: there are several: say which with --source stripe-us or stripe-eu\n")
    assert "source       stripe-eu\n" in run("show", "evt_1", "--source", "stripe-eu", cwd=tmp_path).out


def test_an_id_nobody_has_ends_with_1(folder: Path) -> None:
    assert run("show", "evt_9", cwd=folder) == Ran(1, "", "bridge: evt_9: not in the journal\n")
    ran = run("show", "evt_1", "--source", "x", cwd=folder)
    assert ran == Ran(1, "", "bridge: evt_1: not in the journal of source x\n")


@pytest.mark.parametrize("arguments", [["list"], ["show", "evt_1"], ["replay", "evt_1"], ["replay", "--state", "dead"]])
def test_where_there_is_no_journal_none_is_made(tmp_path: Path, arguments: list[str]) -> None:
    ran = run(*arguments, cwd=tmp_path, BRIDGE_JOURNAL=f"sqlite:///{tmp_path}/none.db")
    told = f"journal: sqlite:///{tmp_path}/none.db: there is none yet; `bridge serve` makes it"
    assert ran == Ran(2, "", f"bridge: {told}\n")
    assert list(tmp_path.iterdir()) == []


def test_the_journal_of_bridge_dev_is_looked_into_where_there_is_no_other(tmp_path: Path) -> None:
    fill(tmp_path, [(delivery("evt_dev"), State.PENDING)], name="bridge-dev.db")
    told = "bridge: in the journal of `bridge dev`, sqlite:///bridge-dev.db\n"
    for arguments in (["list"], ["show", "evt_dev"], ["transform", "evt_dev"]):
        ran = run(*arguments, cwd=tmp_path)
        assert (ran.status, ran.err, "evt_dev" in ran.out) == (0, told, True)
    ran = run("list", cwd=tmp_path, BRIDGE_JOURNAL="sqlite:///./other.db")
    assert (ran.status, "That of `bridge dev` is here: BRIDGE_JOURNAL=sqlite:///bridge-dev.db" in ran.err) == (2, True)
    fill(tmp_path, [(delivery("evt_1"), State.PENDING)])
    assert ids(run("list", "--json", cwd=tmp_path)) == ["evt_1"]


def test_a_file_that_is_no_journal_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "bridge.db").write_bytes(b"not a database" * 100)
    assert run("list", cwd=tmp_path) == Ran(1, "", f"bridge: {tmp_path}/bridge.db: not a SQLite database\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31 12:00:00.5+02:00", datetime(2026, 1, 31, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31T12:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(text: str, expected: datetime) -> None:
    assert Moment().convert(text, None, None) == expected.timestamp() * 1000


@pytest.mark.parametrize("text", ["yesterday", "", "12", "1w", "-1d", "999999d", "2026-13-01", "１２h"])
def test_what_is_no_time_is_a_slip(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time: write 2026-01-31T12:00"):
        Moment().convert(text, None, None)

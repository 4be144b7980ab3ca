"""`bridge check`: all that `bridge serve` needs is tried, and each fault is told, without sending an event."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Ran, closed_url, on_terminal, run, standing_in

from bridge.stand_in import PAGE, Refuse

KEY = "key_NeverToBeShown"
STRIPE = {"STRIPE_WEBHOOK_SECRET": "whsec_NeverToBeShown"}


async def check(folder: Path, **variables: str) -> Ran:
    """In a thread: the stand-in for the Event API is served by this one."""
    ran = await asyncio.to_thread(run, "check", cwd=folder, **STRIPE, **variables)
    assert "NeverToBeShown" not in ran.out + ran.err
    return ran


def marks(ran: Ran) -> dict[str, str]:
    """What stands before each thing that is checked."""
    names = ("configuration", "transforms", "journal", "Event API")
    return {name: line.split()[0] for line in ran.out.splitlines() for name in names if line[5:].startswith(name)}


RIGHT = {"configuration": "ok", "transforms": "ok", "journal": "ok", "Event API": "ok"}


@pytest.fixture
def closed() -> Iterator[str]:
    """A URL where nothing listens, and nothing else will."""
    with closed_url() as url:
        yield url


async def test_all_is_right_with_a_dev_server(tmp_path: Path) -> None:
    (tmp_path / "stripe.py").write_text("def transform(delivery): return None")
    async with standing_in() as api:
        ran = await check(tmp_path, INNGEST_DEV=api.url, BRIDGE_TRANSFORMS=".")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == (
        "ok   configuration  1 source: stripe\n"
        "ok   transforms     built in: intercom, slack, stripe; of your own: stripe\n"
        "ok   journal        sqlite:///bridge.db\n"
        f"ok   Event API      {api.url}\n"
    )
    assert api.events == []
    assert os.listdir(tmp_path) == ["stripe.py"], "no journal is made"  # noqa: PTH208 - nothing else runs here


async def test_json_has_a_line_for_each_thing(tmp_path: Path) -> None:
    async with standing_in() as api:
        ran = await asyncio.to_thread(run, "check", "--json", cwd=tmp_path, INNGEST_DEV=api.url)
    told = {line["what"]: (line["ok"], line["faults"]) for line in map(json.loads, ran.out.splitlines())}
    assert (ran.status, {what for what, (right, _) in told.items() if right}) == (2, RIGHT.keys() - {"configuration"})
    [[fault]] = [faults for _, faults in told.values() if faults]
    assert f"bridge: {fault}\n" == ran.err
    assert fault.startswith("sources: none is configured")


async def test_a_module_nothing_comes_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "strpe.py").write_text("def transform(delivery): return None")
    async with standing_in() as api:
        ran = await check(tmp_path, INNGEST_DEV=api.url, BRIDGE_TRANSFORMS=".")
    assert (ran.status, "named after no source and no provider, so not used: strpe.py" in ran.out) == (0, True)


async def test_all_is_right_with_the_right_key(tmp_path: Path) -> None:
    async with standing_in(KEY) as api:
        ran = await check(tmp_path, INNGEST_EVENT_KEY=KEY, INNGEST_BASE_URL=api.url)
        assert (ran.status, ran.err, marks(ran)) == (0, "", RIGHT)
        assert [request.body for request in api.requests] == [b"[]"]
    assert api.events == []


async def test_a_wrong_key_is_told_without_it(tmp_path: Path) -> None:
    async with standing_in(KEY) as api:
        ran = await check(tmp_path, INNGEST_EVENT_KEY="other_NeverToBeShown", INNGEST_BASE_URL=api.url)
    assert (ran.status, marks(ran)) == (2, RIGHT | {"Event API": "FAIL"})
    assert ran.err.startswith(f"bridge: event_api: {api.url}: ")
    assert "Event key not found" in ran.err


async def test_an_event_api_that_is_away_is_told_by_its_address_alone_and_is_no_fault(
    tmp_path: Path, closed: str
) -> None:
    with_key = closed.replace("http://", "http://user:password@") + f"/{KEY}"
    ran = await check(tmp_path, INNGEST_EVENT_KEY=KEY, INNGEST_BASE_URL=with_key)
    assert (ran.status, marks(ran)) == (1, RIGHT | {"Event API": "FAIL"})
    assert ran.err.startswith(f"bridge: event_api: {closed}: connection refused")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    "answer", [PAGE, Refuse(status=404, body="no"), Refuse(status=302, headers={"Location": "/x"})]
)
async def test_what_is_no_event_api_is_told(tmp_path: Path, answer: Refuse) -> None:
    async with standing_in() as api:
        api.always = answer
        ran = await check(tmp_path, INNGEST_DEV=api.url)
    assert (ran.status, marks(ran)["Event API"]) == (2, "FAIL")
    assert ran.err.startswith(f"bridge: event_api: {api.url}: ")


def test_what_is_missing_is_told_and_the_rest_checked(tmp_path: Path) -> None:
    ran = run("check", cwd=tmp_path)
    assert ran.status == 2
    assert marks(ran) == {"configuration": "FAIL", "transforms": "ok", "journal": "ok", "Event API": "FAIL"}
    assert [line.split(": ")[1] for line in ran.err.splitlines()] == ["sources", "INNGEST_EVENT_KEY"]


def test_every_fault_is_told_once_and_at_once(tmp_path: Path) -> None:
    (tmp_path / "slack.py").write_text("def transform(")
    ran = run(
        "check",
        cwd=tmp_path,
        BRIDGE_PORT="x",
        BRIDGE_TRANSFORMS=".",
        BRIDGE_JOURNAL="sqlite:///./nowhere/x.db",
        INNGEST_BASE_URL="inn.gs",
        INNGEST_EVENT_KEY=KEY,
        **STRIPE,
    )
    assert (ran.status, set(marks(ran).values())) == (2, {"FAIL"})
    assert [line.split(": ")[1] for line in ran.err.splitlines()] == [
        "BRIDGE_PORT",
        "INNGEST_BASE_URL",
        "slack.py",
        "journal",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:password_NeverTo/BeShown@host/db",
        "postgresql://user:password_NeverTo@BeShown@host/db",
        "postgresql://host/db?password_NeverToBeShown=1",
        "mysql://user:password_NeverToBeShown@host/db",
        "sqlite://[",
        "sqlite:///tmp/",
        "bridge.db",
    ],
)
async def test_a_journal_that_is_none_is_told_once_without_a_password(tmp_path: Path, url: str) -> None:
    async with standing_in() as api:
        ran = await check(tmp_path, BRIDGE_JOURNAL=url, INNGEST_DEV=api.url)
    assert (ran.status, marks(ran)["journal"]) == (2, "FAIL")
    assert [line.split(": ")[1] for line in ran.err.splitlines()] == ["BRIDGE_JOURNAL"]
    assert "NeverTo" not in ran.err and "BeShown" not in ran.err


def test_on_a_terminal_right_and_wrong_have_their_colours(tmp_path: Path) -> None:
    ran = on_terminal("check", cwd=tmp_path, **STRIPE)
    assert ran.status == 2
    assert "\x1b[32mok\x1b[0m" in ran.out
    assert "\x1b[31mFAIL\x1b[0m" in ran.out

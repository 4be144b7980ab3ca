"""`bridge dev`: a whole bridge in an empty folder, its events shown, and never one sent to production."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import XTERM, Process, Ran, closed_url, run, standing_in

ANY_PORT = {"BRIDGE_PORT": "0", "BRIDGE_ADMIN_PORT": "0"}
RUNNING = "Ctrl-C stops it."
LAST_LINE = "stripe listen --forward-to"
THREE = {"stripe/customer.created", "slack/app.mentioned", "intercom/conversation.created"}
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def closed() -> Iterator[str]:
    """A URL where nothing listens, and nothing else will: no dev server of this machine's is found."""
    with closed_url() as url:
        yield url


def shown(said: str) -> list[dict[str, object]]:
    """The events: on a pipe a line of JSON each. The log's lines have no name."""
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [line for line in lines if "name" in line]


def base_of(said: str) -> str:
    """Where the bridge listens."""
    found = re.search(r"stripe +(http://127\.0\.0\.1:[0-9]+)/webhooks/stripe", said)
    assert found is not None, said
    return found[1]


def interrupted(process: Process) -> Ran:
    """Once it got Ctrl-C; and within ten seconds."""
    started = time.monotonic()
    process.signal(signal.SIGINT)
    ran = process.ended(within=10)
    assert time.monotonic() - started < 10
    return ran


def test_in_an_empty_folder_three_sources_are_tried_and_their_events_shown(tmp_path: Path, closed: str) -> None:
    with Process("dev", "--try", cwd=tmp_path, INNGEST_DEV=closed, **ANY_PORT) as process:
        said = process.until(LAST_LINE)
        base = base_of(said)
        for name in ("stripe", "slack", "intercom"):
            assert re.search(rf"^POST /webhooks/{name}  \S+: 200 in [0-9]+ ms$", said, re.MULTILINE)
            assert f"{base}/webhooks/{name}\n" in said
        events = shown(said)
        assert {event["name"] for event in events} == THREE
        assert f"no dev server answers at {closed}" in said
        ran = run("list", "--json", cwd=tmp_path)
        assert {json.loads(line)["id"] for line in ran.out.splitlines()} == {
            str(event["id"]).partition(":")[2] for event in events
        }
        assert interrupted(process).status == 0
    assert "Traceback" not in process.said
    assert {path.name[: len("bridge-dev.db")] for path in tmp_path.iterdir()} == {"bridge-dev.db"}


def test_what_is_sent_from_another_terminal_is_shown(tmp_path: Path, closed: str) -> None:
    with Process("dev", cwd=tmp_path, INNGEST_DEV=closed, **ANY_PORT) as process:
        base = base_of(process.until(LAST_LINE))
        assert run("send", "stripe", "invoice.paid", "--to", base, cwd=tmp_path).status == 0
        process.until('"name":"stripe/invoice.paid"')
        sent = json.loads(run("list", "--json", cwd=tmp_path).out)["id"]
        # Known to be settled once it can be replayed.
        while not run("replay", sent, cwd=tmp_path).out.startswith("1 replayed"):
            pass
        process.until('"name":"stripe/invoice.paid"', times=2)
        assert len({event["id"] for event in shown(process.said)}) == 1
        assert interrupted(process).status == 0


async def test_a_running_dev_server_gets_the_events_and_production_none(tmp_path: Path) -> None:
    async with standing_in() as server, standing_in("production") as production:
        configured = {"INNGEST_EVENT_KEY": "production", "INNGEST_BASE_URL": production.url}
        with Process("dev", "--try", cwd=tmp_path, INNGEST_DEV=server.url, **configured, **ANY_PORT) as process:
            said = await asyncio.to_thread(process.until, LAST_LINE)
            assert f"sent to the dev server, {server.url}\n" in said
            assert {event["name"] for event in await server.received(3)} == THREE
            assert shown(said) == []
            assert f"on their way to the dev server: look for them at {server.url}\n" in said
            assert (await asyncio.to_thread(interrupted, process)).status == 0
        assert production.asked == 0


async def test_production_gets_nothing_though_its_key_and_its_url_are_set(tmp_path: Path, closed: str) -> None:
    async with standing_in("production") as production:
        (tmp_path / "bridge.toml").write_text(f"[event_api]\nkey = 'env:KEY'\nbase_url = '{production.url}'")
        configured = {"KEY": "production", "INNGEST_DEV": closed}
        with Process("dev", "--try", cwd=tmp_path, **configured, **ANY_PORT) as process:
            said = await asyncio.to_thread(process.until, LAST_LINE)
            assert len(shown(said)) == 3
            assert (await asyncio.to_thread(interrupted, process)).status == 0
        assert production.asked == 0


def test_the_secrets_and_transforms_one_has_are_used(tmp_path: Path, closed: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "stripe.py").write_text(
        "from bridge import Event\ndef transform(delivery): return Event(name='mine/' + delivery.type)"
    )
    given = {"STRIPE_WEBHOOK_SECRET": "whsec_mine", "BRIDGE_TRANSFORMS": "mine"}
    with Process("dev", "--try", cwd=tmp_path, INNGEST_DEV=closed, **given, **ANY_PORT) as process:
        said = process.until(LAST_LINE)
        assert "mine/customer.created" in {event["name"] for event in shown(said)}
        refused = run("send", "stripe", "invoice.paid", "--to", base_of(said), cwd=tmp_path)
        assert (refused.status, "401" in refused.out) == (1, True)
        assert interrupted(process).status == 0
    assert "whsec_mine" not in process.said


def test_faults_are_told_as_by_serve(tmp_path: Path, closed: str) -> None:
    (tmp_path / "stripe.py").write_text("def transform(")
    given = {"BRIDGE_PORT": "x", "BRIDGE_TRANSFORMS": ".", "INNGEST_BASE_URL": "http://[", "INNGEST_DEV": closed}
    with Process("dev", cwd=tmp_path, BRIDGE_ADMIN_PORT="0", SLACK_SIGNING_SECRET="", **given) as process:
        ran = process.ended()
    assert ran.status == 2
    told = [line.split(": ")[1] for line in ran.out.splitlines()]
    assert told[:2] == ["SLACK_SIGNING_SECRET", "BRIDGE_PORT"]
    assert "stripe.py" in told
    assert "Traceback" not in ran.out


def test_a_configuration_without_its_secrets_will_do_and_what_to_try_next_works(tmp_path: Path, closed: str) -> None:
    (tmp_path / "bridge.toml").write_text(
        "journal = 'sqlite:///mine.db'\n[event_api]\nkey = 'env:NOWHERE'\n"
        "[sources.stripe-live]\nprovider = 'stripe'\nsecrets = ['env:NOWHERE']"
    )
    with Process("dev", "--try", cwd=tmp_path, INNGEST_DEV=closed, **ANY_PORT) as process:
        said = process.until(LAST_LINE)
        assert {event["name"] for event in shown(said)} == THREE
        assert re.search(r"stripe listen --forward-to 127\.0\.0\.1:[0-9]+/webhooks/stripe-live$", said, re.MULTILINE)
        [told] = re.findall(r"^  (\S+=\S+) \S+bridge list ", said, re.MULTILINE)
        ran = run("list", "--json", cwd=tmp_path, **dict([told.split("=")]))
        assert (ran.status, len(ran.out.splitlines())) == (0, 3)
        assert interrupted(process).status == 0


def test_ctrl_c_does_not_wait_for_a_trial_that_hangs(tmp_path: Path, closed: str) -> None:
    (tmp_path / "slack.py").write_text("def transform(delivery):\n    while True: pass")
    (tmp_path / "bridge.toml").write_text("transform_timeout = 60")
    with Process("dev", "--try", cwd=tmp_path, INNGEST_DEV=closed, BRIDGE_TRANSFORMS=".", **ANY_PORT) as process:
        process.until("conversation.user.created: 200")
        ran = interrupted(process)
    assert ran.status == 0
    assert RUNNING not in ran.out
    assert "Traceback" not in ran.out


def test_on_a_terminal_an_event_is_laid_out_and_steers_nothing(tmp_path: Path, closed: str) -> None:
    (tmp_path / "body").write_bytes(
        b'{"id":"evt_1","object":"event","type":"a.b","x":"\\u001b[2J\xc2\x9b2J [bold]:tada:[/] \xe2\x80\xae"}'
    )
    with Process("dev", cwd=tmp_path, INNGEST_DEV=closed, **XTERM, **ANY_PORT) as process:
        base = base_of(process.until(LAST_LINE))
        assert run("send", "stripe", "--file", "body", "--to", base, cwd=tmp_path).status == 0
        process.until(r"\u202e")
        ran = interrupted(process)
    assert ran.status == 0
    assert "\x1b[1;32mevent\x1b[0m \x1b[1mstripe/a.b\x1b[0m" in ran.out
    assert "id \x1b[2mstripe/a.b:evt_1\x1b[0m" in ran.out
    plain = ESCAPE.sub("", ran.out)
    assert r"\u001b[2J\u009b2J [bold]:tada:[/] \u202e" in plain
    assert "\x1b[2J" not in ran.out
    assert plain.replace("\r\n", "").isprintable()

"""A configuration that changes while the bridge runs: taken whole, without a webhook refused, or left as it was."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import postgres
import pytest
from commands import standing_in
from load import load
from service import SECRETS, Answer, Service, delivery, service, until

from bridge import providers
from bridge.clock import wall_clock
from bridge.stand_in import StandIn

TRANSFORM = """
from bridge import Event

def transform(delivery):
    return Event(name="{name}", data={{}})
"""


@pytest.fixture
async def api() -> AsyncIterator[StandIn]:
    async with standing_in() as found:
        yield found


def without_secret(folder: Path) -> dict[str, str]:
    """An environment that leaves Stripe's secret to a file."""
    secret = folder / "secret"
    secret.write_text("whsec_old\n")
    return {"STRIPE_WEBHOOK_SECRET_FILE": str(secret)}


async def post(to: Service, n: int | str, secret: str) -> Answer:
    body = delivery(n)
    headers = providers.load()["stripe"].scheme.sign(body, secret=secret.encode(), now=wall_clock())
    return await to.ask("POST", f"{to.public}/webhooks/stripe", data=body, headers=headers)


def told(of: Service, event: str) -> list[str]:
    return [line.get("changed") or line["reason"] for line in of.log() if line["event"] == event]


async def taken(by: Service, times: int = 1) -> list[str]:
    """What changed, each time."""
    await until(lambda: len(told(by, "configuration.taken")) >= times)
    return told(by, "configuration.taken")


async def refused(by: Service, times: int = 1) -> list[str]:
    """Why."""
    await until(lambda: len(told(by, "configuration.refused")) >= times)
    return told(by, "configuration.refused")


async def test_a_secret_is_rotated_without_a_restart_and_without_a_webhook_refused(
    tmp_path: Path, api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does: both for a while, then the new one alone."""
    monkeypatch.delitem(SECRETS, "STRIPE_WEBHOOK_SECRET")
    async with service(tmp_path, api.url, without_secret(tmp_path)) as running:
        monkeypatch.setitem(SECRETS, "STRIPE_WEBHOOK_SECRET", "whsec_old")
        supervisor = running.pid
        receiver = running.child("receiver")
        async with load(running) as acknowledged:
            await until(lambda: len(acknowledged) > 20)
            (tmp_path / "secret").write_text("whsec_new\nwhsec_old\n")
            assert await taken(running) == ["sources"]
            monkeypatch.setitem(SECRETS, "STRIPE_WEBHOOK_SECRET", "whsec_new")
            await until(lambda: running.child("receiver") not in {0, receiver})
            before = len(acknowledged)
            await until(lambda: len(acknowledged) > before + 20)
            (tmp_path / "secret").write_text("whsec_new\n")
            assert await taken(running, 2) == ["sources"] * 2
        found = await running.metrics()
        assert found["bridge_deliveries_total", "rejected", "stripe"] == 0
        assert found["bridge_deliveries_total", "failed", "stripe"] == 0
        assert found["bridge_deliveries_total", "accepted", "stripe"] >= len(acknowledged), "the count goes on"
        assert (await post(running, "too late", "whsec_old")).status == 401
        assert running.pid == supervisor and not running.ended
        await running.until_finished(len(acknowledged))
        assert acknowledged <= {event["id"].rpartition(":")[2] for event in api.events}
        assert "whsec" not in running.logged


async def test_nobody_waits_and_it_is_ready_all_the_time_while_processes_are_replaced(
    tmp_path: Path, api: StandIn
) -> None:
    unready: list[str] = []

    async def look(at: Service) -> None:
        while True:
            answered = await at.ready()
            if answered.status != 200:
                unready.append(answered.text)

    async with service(tmp_path, api.url) as running:
        looking = asyncio.create_task(look(running))
        async with load(running) as acknowledged:
            for times in range(1, 4):
                os.kill(running.pid, signal.SIGHUP)
                assert await taken(running, times) == ["nothing; transforms are loaded anew"] * times
        looking.cancel()
        assert unready == []
        found = await running.metrics()
        answered = sum(found["bridge_deliveries_total", each, "stripe"] for each in ("accepted", "duplicate"))
        assert answered >= len(acknowledged) > 0
        slow = found["bridge_ack_seconds_count", "stripe"] - found["bridge_ack_seconds_bucket", "1.0", "stripe"]
        assert slow == 0
        assert {line["event"] for line in running.log()} == {"service.started", "configuration.taken"}


async def test_at_sighup_the_file_and_the_transforms_are_read_again(tmp_path: Path, api: StandIn) -> None:
    (tmp_path / "mine").mkdir()
    module = tmp_path / "mine" / "stripe.py"
    module.write_text(TRANSFORM.format(name="shop/before"))
    settings = tmp_path / "bridge.toml"
    settings.write_text('transforms = ["mine"]\n')
    async with service(tmp_path, api.url) as running:
        assert (await running.post(delivery(1))).status == 200
        await api.received(1)
        module.write_text(TRANSFORM.format(name="shop/after"))
        settings.write_text(settings.read_text() + '[sources.two]\nprovider = "stripe"\nsecrets = ["env:PATH"]\n')
        os.kill(running.pid, signal.SIGHUP)
        assert await taken(running) == ["sources"]
        assert (await running.post(delivery(2))).status == 200
        await api.received(2)
        assert [event["name"] for event in api.events] == ["shop/before", "shop/after"]
        assert (await running.ask("HEAD", f"{running.public}/webhooks/two")).status == 200
        assert (await running.metrics())["bridge_source_info", "stripe", "two"] == 1


async def test_a_bad_configuration_is_refused_with_a_line_for_each_fault_and_the_old_one_stays(
    tmp_path: Path, api: StandIn
) -> None:
    settings = tmp_path / "bridge.toml"
    async with service(tmp_path, api.url) as running:
        children = running.child("receiver"), running.child("forwarder")
        settings.write_text("prot = 1\n[sources.x]\nprovider = 'stripe'\nsecrets = ['whsec_NeverToBeShown']\n")
        os.kill(running.pid, signal.SIGHUP)
        assert await refused(running, 2) == [
            "sources.x.secrets: expected `env:NAME` or `file:PATH`: secrets do not belong in this file",
            "prot: unknown key; did you mean port?",
        ]
        (tmp_path / "stripe.py").write_text("def transform(")
        settings.write_text('transforms = ["."]\n')
        os.kill(running.pid, signal.SIGHUP)
        assert (await refused(running, 3))[2] == "stripe.py: line 1: SyntaxError: '(' was never closed"
        assert (await running.post(delivery(1))).status == 200
        await api.received(1)
        assert (running.child("receiver"), running.child("forwarder")) == children
        assert "NeverToBeShown" not in running.logged
        settings.unlink()
        os.kill(running.pid, signal.SIGHUP)
        assert await taken(running) == ["nothing; transforms are loaded anew"]


async def test_what_is_taken_hold_of_at_the_start_can_not_change(tmp_path: Path, api: StandIn) -> None:
    async with service(tmp_path, api.url, {"BRIDGE_JOURNAL": "", "BRIDGE_ADMIN_HOST": ""}) as running:
        text = 'admin_host = "::1"\njournal = "sqlite:///other.db"\n'
        (tmp_path / "bridge.toml").write_text(text)
        os.kill(running.pid, signal.SIGHUP)
        expected = [f"{name}: restart the bridge to change it" for name in ("journal", "admin_host")]
        assert await refused(running, 2) == expected
        assert not (tmp_path / "other.db").exists()


async def test_a_secrets_file_that_is_emptied_or_gone_is_refused_once_and_a_good_one_is_taken(
    tmp_path: Path, api: StandIn
) -> None:
    environment = without_secret(tmp_path)
    async with service(tmp_path, api.url, {**environment, "STRIPE_WEBHOOK_SECRET": ""}, start=False) as running:
        del running.environment["STRIPE_WEBHOOK_SECRET"]
        await running.start()
        secret = tmp_path / "secret"
        secret.write_text("\n")
        expected = ["STRIPE_WEBHOOK_SECRET_FILE: the file it names: blank"]
        assert await refused(running) == expected
        secret.unlink()
        expected.append("STRIPE_WEBHOOK_SECRET_FILE: the file it names: No such file or directory")
        assert await refused(running, 2) == expected
        assert (await post(running, 1, "whsec_old")).status == 200
        (tmp_path / "new").write_text("whsec_new")
        secret.symlink_to("new")
        assert await taken(running) == ["sources"]
        assert (await post(running, 2, "whsec_new")).status == 200
        assert told(running, "configuration.refused") == expected, "not again at each look"


async def test_a_key_that_is_mended_in_its_file_is_used_at_once(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("mistyped")
    api = StandIn(key="right")
    await api.start()
    more = {"INNGEST_DEV": "", "INNGEST_EVENT_API_BASE_URL": api.url, "INNGEST_EVENT_KEY_FILE": str(key)}
    async with service(tmp_path, api.url, more) as running:
        assert (await running.post(delivery(1))).status == 200
        await until(lambda: "event_api.misconfigured" in running.logged)
        assert (await running.ready()).status == 503
        key.write_text("right")
        assert await taken(running) == ["event_api"]
        await api.received(1)
        await running.until_ready()
        assert "mistyped" not in running.logged
    await api.stop()


async def test_a_token_is_rotated(tmp_path: Path, api: StandIn) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    async with service(tmp_path, api.url, {"BRIDGE_ADMIN_TOKEN_FILE": str(token)}) as running:
        token.write_text("new")
        assert await taken(running) == ["admin_token"]
        for given, status in (("old", 401), ("new", 200)):
            headers = {"Authorization": f"Bearer {given}"}
            assert (await running.ask("GET", f"{running.private}/metrics", headers=headers)).status == status


async def test_the_password_of_a_postgresql_is_rotated_and_a_wrong_one_refused(tmp_path: Path, api: StandIn) -> None:
    place = tmp_path / "journal"
    with postgres.schema() as url:
        place.write_text(url)
        more = {"BRIDGE_JOURNAL": "", "BRIDGE_JOURNAL_FILE": str(place)}
        async with service(tmp_path, api.url, more) as running:
            assert (await running.post(delivery(1))).status == 200
            place.write_text(f"{url}&dbname=nowhere")
            [why] = await refused(running)
            assert "nowhere" in why
            assert (await running.post(delivery(2))).status == 200
            place.write_text(f"{url}&application_name=rotated")
            assert await taken(running) == ["journal"]
            assert (await running.post(delivery(3))).status == 200
            await api.received(3)
            assert (await running.ready()).status == 200


async def test_asked_to_read_again_while_it_starts_it_starts(tmp_path: Path, api: StandIn) -> None:
    async with service(tmp_path, api.url, start=False) as running:
        starting = asyncio.create_task(running.start())
        await until(lambda: running._process is not None and running.child("bridge.config"))
        os.kill(running.pid, signal.SIGHUP)
        await starting
        assert await taken(running) == ["nothing; transforms are loaded anew"]

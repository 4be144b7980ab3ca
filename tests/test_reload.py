"""A configuration that changes while the bridge runs: taken whole, without a webhook refused, or left as it was."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from load import load
from processes import environment
from reloading import TRANSFORM, hang_up, post, refused, taken, told, without_secret
from service import SECRETS, delivery, service, until

from bridge.model import State
from bridge.stand_in import StandIn


async def test_a_secret_is_rotated_without_a_restart_and_without_a_webhook_refused(
    tmp_path: Path, api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does: both for a while, then the new one alone."""
    monkeypatch.delitem(SECRETS, "STRIPE_WEBHOOK_SECRET")
    async with service(tmp_path, api.url, without_secret(tmp_path)) as running:
        monkeypatch.setitem(SECRETS, "STRIPE_WEBHOOK_SECRET", "whsec_old")
        supervisor = running.pid
        receiver = running.child("receiver")
        unanswered: list[str] = []
        async with load(running, kept=4, unanswered=unanswered) as acknowledged:
            await until(lambda: len(acknowledged) > 20)
            (tmp_path / "secret").write_text("whsec_new\nwhsec_old\n")
            assert await taken(running) == ["sources"]
            monkeypatch.setitem(SECRETS, "STRIPE_WEBHOOK_SECRET", "whsec_new")
            await until(lambda: running.child("receiver") not in {0, receiver})
            before = len(acknowledged)
            await until(lambda: len(acknowledged) > before + 20)
            (tmp_path / "secret").write_text("whsec_new\n")
            assert await taken(running, 2) == ["sources"] * 2
        assert unanswered == []
        found = await running.metrics()
        assert found["bridge_deliveries_total", "rejected", "stripe"] == 0
        assert found["bridge_deliveries_total", "failed", "stripe"] == 0
        assert found["bridge_deliveries_total", "accepted", "stripe"] >= len(acknowledged), "the count goes on"
        assert (await post(running, "too late", "whsec_old")).status == 401
        assert running.pid == supervisor and not running.ended
        entries = await running.until_finished(len(acknowledged))
        assert acknowledged <= {entry.id for entry in entries.values() if entry.state is State.FORWARDED}
        assert "whsec" not in running.logged


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
        hang_up(running)
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
        hang_up(running)
        assert await refused(running, 2) == [
            "sources.x.secrets: expected `env:NAME` or `file:PATH`: secrets do not belong in this file",
            "prot: unknown key; did you mean port?",
        ]
        (tmp_path / "stripe.py").write_text("def transform(")
        settings.write_text('transforms = ["."]\n')
        hang_up(running)
        assert (await refused(running, 3))[2] == "stripe.py: line 1: SyntaxError: '(' was never closed"
        assert (await running.post(delivery(1))).status == 200
        await api.received(1)
        assert (running.child("receiver"), running.child("forwarder")) == children
        assert "NeverToBeShown" not in running.logged
        settings.unlink()
        hang_up(running)
        assert await taken(running) == ["nothing; transforms are loaded anew"]


async def test_what_is_taken_hold_of_at_the_start_can_not_change(tmp_path: Path, api: StandIn) -> None:
    async with service(tmp_path, api.url, {"BRIDGE_JOURNAL": "", "BRIDGE_ADMIN_HOST": ""}) as running:
        text = 'admin_host = "::1"\njournal = "sqlite:///other.db"\n'
        (tmp_path / "bridge.toml").write_text(text)
        hang_up(running)
        assert await refused(running, 2) == [
            "journal: restart the bridge to change it; what is pending stays in this one",
            "admin_host: restart the bridge to change it",
        ]
        (tmp_path / "bridge.toml").write_text(f"{text}[no_table]\n")
        hang_up(running)
        assert (await refused(running, 3))[2:] == ["no_table: unknown key"]
        assert not (tmp_path / "other.db").exists()


async def test_a_secrets_file_that_is_emptied_or_gone_is_refused_once_and_a_good_one_is_taken(
    tmp_path: Path, api: StandIn
) -> None:
    async with service(
        tmp_path, api.url, {**without_secret(tmp_path), "STRIPE_WEBHOOK_SECRET": ""}, start=False
    ) as running:
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


async def test_a_rotated_secret_waits_for_a_transform_that_does_not_load(tmp_path: Path, api: StandIn) -> None:
    (tmp_path / "mine").mkdir()
    module = tmp_path / "mine" / "stripe.py"
    module.write_text(TRANSFORM.format(name="shop/one"))
    token = tmp_path / "token"
    token.write_text("old")
    more = {"BRIDGE_ADMIN_TOKEN_FILE": str(token), "BRIDGE_TRANSFORMS": "mine"}
    async with service(tmp_path, api.url, more) as running:
        module.write_text("def transform(")
        token.write_text("new")
        expected = ["mine/stripe.py: line 1: SyntaxError: '(' was never closed"]
        assert await refused(running) == expected
        hang_up(running)
        assert await refused(running, 2) == expected * 2, "who asks is told"
        module.write_text(TRANSFORM.format(name="shop/two"))
        assert await taken(running) == ["admin_token"]


async def test_the_same_journal_by_another_name_stays_open(tmp_path: Path, api: StandIn) -> None:
    async with service(tmp_path, api.url, {"BRIDGE_JOURNAL": ""}) as running:
        (tmp_path / "bridge.toml").write_text('journal = "sqlite:///./bridge.db"\n')
        hang_up(running)
        assert await taken(running) == ["journal"]
        assert (await running.post(delivery(1))).status == 200
        await api.received(1)
        await running.until_ready()


async def test_a_file_that_is_put_right_again_is_told(tmp_path: Path, api: StandIn) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    async with service(tmp_path, api.url, {"BRIDGE_ADMIN_TOKEN_FILE": str(token)}) as running:
        children = running.child("receiver"), running.child("forwarder")
        token.write_text("\n")
        assert await refused(running) == ["BRIDGE_ADMIN_TOKEN_FILE: the file it names: blank"]
        token.write_text("old")
        assert await taken(running) == ["nothing; it is as it was"]
        assert (running.child("receiver"), running.child("forwarder")) == children


async def test_secrets_that_are_gone_take_no_source_along_unless_somebody_asks(tmp_path: Path, api: StandIn) -> None:
    """A volume that is mounted anew is empty for a moment."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "INTERCOM_CLIENT_SECRET").write_text(SECRETS["INTERCOM_CLIENT_SECRET"])
    (credentials / "BRIDGE_ADMIN_TOKEN").write_text("token")
    async with service(tmp_path, api.url, {"CREDENTIALS_DIRECTORY": str(credentials)}, start=False) as running:
        del running.environment["INTERCOM_CLIENT_SECRET"]
        await running.start()
        shutil.rmtree(credentials)
        assert await refused(running, 2) == [
            "sources.intercom: not configured any more; on SIGHUP the bridge does without",
            "admin_token: not configured any more; on SIGHUP the bridge does without",
        ]
        await until(lambda: running.child("bridge.config"))  # it is read again
        await until(lambda: not running.child("bridge.config"))
        await asyncio.sleep(0.5)
        assert len(told(running, "configuration.refused")) == 2, "what was said is not said again"
        assert (await running.ask("GET", f"{running.private}/metrics")).status == 401
        assert (await running.ask("HEAD", f"{running.public}/webhooks/intercom")).status == 200
        hang_up(running)
        assert await taken(running) == ["admin_token, sources"]
        assert (await running.ask("HEAD", f"{running.public}/webhooks/intercom")).status == 404


TELLING = """
import os
with open("seen", "a") as seen:
    print(*os.environ, file=seen)

def transform(delivery):
    return []
"""


async def test_a_variable_that_the_file_names_later_is_kept_from_transforms_too(tmp_path: Path, api: StandIn) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "stripe.py").write_text(TELLING)
    more = {"LATER": "whsec_later", "OTEL_EXPORTER_OTLP_HEADERS": "key=secret", "BRIDGE_TRANSFORMS": "mine"}
    async with service(tmp_path, api.url, more) as running:
        assert environment(running.child("forwarder"))["LATER"] == "whsec_later"
        text = '[sources.two]\nprovider = "stripe"\nsecrets = ["env:LATER"]\n'
        (tmp_path / "bridge.toml").write_text(text)
        hang_up(running)
        assert await taken(running) == ["sources"]
        for name in ("receiver", "forwarder"):
            assert "LATER" not in environment(running.child(name))
        (tmp_path / "seen").unlink()
        hang_up(running)
        await taken(running, 2)
        assert (await running.post(delivery(1))).status == 200
        await running.until_finished()
    seen = (tmp_path / "seen").read_text()
    assert seen.count("BRIDGE_TRANSFORMS") >= 2, "when they were tried, and when they were used"
    assert "LATER" not in seen and "OTEL_EXPORTER_OTLP_HEADERS" not in seen


async def test_asked_to_read_again_while_it_starts_it_starts(tmp_path: Path, api: StandIn) -> None:
    async with service(tmp_path, api.url, start=False) as running:
        starting = asyncio.create_task(running.start())
        await until(lambda: running._process is not None and running.child("bridge.config"))
        hang_up(running)
        await starting
        assert await taken(running) == ["nothing; transforms are loaded anew"]

"""Secrets and configuration that change as they do in a pod: no file is ever written to, but links lead to other ones."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubelet import project
from reloading import TRANSFORM, post, refused, taken
from service import Service, service

from bridge.stand_in import StandIn

TOML = 'transforms = ["transforms"]\n'
OLD = {"STRIPE_WEBHOOK_SECRET": "whsec_old", "INTERCOM_CLIENT_SECRET": "i"}


@pytest.fixture
async def running(tmp_path: Path, api: StandIn) -> AsyncIterator[Service]:
    """With all it reads in three volumes, as a pod has them."""
    for volume, files in (
        ("secrets", OLD),
        ("config", {"bridge.toml": TOML}),
        ("transforms", {"stripe.py": TRANSFORM.format(name="shop/before")}),
    ):
        (tmp_path / volume).mkdir()
        project(tmp_path / volume, files)
    more = {"CREDENTIALS_DIRECTORY": f"{tmp_path}/secrets", "BRIDGE_CONFIG": f"{tmp_path}/config/bridge.toml"}
    async with service(tmp_path, api.url, more, start=False) as found:
        for name in ("STRIPE_WEBHOOK_SECRET", "SLACK_SIGNING_SECRET", "INTERCOM_CLIENT_SECRET"):
            del found.environment[name]
        await found.start()
        yield found


async def test_a_secret_is_rotated(running: Service, tmp_path: Path) -> None:
    project(tmp_path / "secrets", OLD | {"STRIPE_WEBHOOK_SECRET": "whsec_old\nwhsec_new"})
    assert await taken(running) == ["sources"]
    for n, secret in enumerate(("whsec_old", "whsec_new")):
        assert (await post(running, n, secret)).status == 200
    project(tmp_path / "secrets", OLD | {"STRIPE_WEBHOOK_SECRET": "whsec_new"})
    assert await taken(running, 2) == ["sources"] * 2
    assert (await post(running, 2, "whsec_new")).status == 200
    assert (await post(running, 3, "whsec_old")).status == 401


async def test_a_provider_comes_by_itself_and_goes_on_sighup(running: Service, tmp_path: Path) -> None:
    project(tmp_path / "secrets", OLD | {"SLACK_SIGNING_SECRET": "s"})
    assert await taken(running) == ["sources"]
    project(tmp_path / "secrets", {"STRIPE_WEBHOOK_SECRET": "whsec_old", "SLACK_SIGNING_SECRET": "s"})
    assert await refused(running) == ["sources.intercom: not configured any more; on SIGHUP the bridge does without"]
    os.kill(running.pid, signal.SIGHUP)
    assert await taken(running, 2) == ["sources"] * 2
    for source, status in {"stripe": 200, "slack": 200, "intercom": 404}.items():
        assert (await running.ask("HEAD", f"{running.public}/webhooks/{source}")).status == status, source


async def test_a_blank_secret_is_refused_and_the_old_one_stays(running: Service, tmp_path: Path) -> None:
    project(tmp_path / "secrets", OLD | {"STRIPE_WEBHOOK_SECRET": "\n"})
    assert await refused(running) == [f"{tmp_path}/secrets/STRIPE_WEBHOOK_SECRET: blank"]
    assert (await post(running, 1, "whsec_old")).status == 200


async def test_configuration_and_transforms_wait_for_sighup_and_bad_ones_are_refused(
    running: Service, api: StandIn, tmp_path: Path
) -> None:
    assert (await post(running, 1, "whsec_old")).status == 200
    await api.received(1)
    project(tmp_path / "transforms", {"stripe.py": "def transform("})
    project(tmp_path / "config", {"bridge.toml": f"{TOML}prot = 1\n"})
    os.kill(running.pid, signal.SIGHUP)
    assert await refused(running) == ["prot: unknown key; did you mean port?"]
    project(tmp_path / "config", {"bridge.toml": f"{TOML}transform_timeout = 4.0\n"})
    os.kill(running.pid, signal.SIGHUP)
    assert (await refused(running, 2))[1] == "transforms/stripe.py: line 1: SyntaxError: '(' was never closed"
    project(tmp_path / "transforms", {"stripe.py": TRANSFORM.format(name="shop/after")})
    assert (await post(running, 2, "whsec_old")).status == 200
    await api.received(2)
    os.kill(running.pid, signal.SIGHUP)
    assert await taken(running) == ["transform_timeout"]
    assert (await post(running, 3, "whsec_old")).status == 200
    await api.received(3)
    assert [event["name"] for event in api.events] == ["shop/before", "shop/before", "shop/after"]

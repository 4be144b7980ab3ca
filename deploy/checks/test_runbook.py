"""What deploy/README.md tells to type works as it stands there: each command against a real bridge with a dead delivery."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from rules import ALERTS, rules
from runbook import README, blocks, commands, section
from service import Service, delivery, service
from tools import DEPLOY, PLACES, path_of, run

from bridge.model import State
from bridge.stand_in import StandIn

TOKEN = "token-of-the-tests"
WATCH = section("Watch it")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """evt_1 is dead: the Event API does not want it."""
    api = StandIn(key="k")
    api.unwanted = {"stripe/customer.created": "event name is reserved for internal use"}
    await api.start()
    more = {"INNGEST_EVENT_KEY": "k", "INNGEST_EVENT_API_BASE_URL": api.url, "BRIDGE_ADMIN_TOKEN": TOKEN}
    async with service(tmp_path_factory.mktemp("runbook"), "", more) as found:
        assert (await found.post(delivery(1))).status == 200
        assert (await found.until_finished())["evt_1"].state is State.DEAD
        yield found
    await api.stop()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("command", commands())
async def test_a_command_on_a_page_does_what_it_is_there_for(running: Service, command: str) -> None:
    for there, here in {
        "https://hooks.example.com": running.public,
        "http://127.0.0.1:8081": running.private,
        "NAME": "stripe",
        "ID": "evt_1",
    }.items():
        command = re.sub(rf"(?<![A-Z_]){re.escape(there)}\b", here, command)
    process = await asyncio.create_subprocess_exec(
        path_of("bash"),
        *("-o", "pipefail", "-c", command),
        cwd=running.folder,
        env={**os.environ, "PATH": PLACES, **running.environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0 and said, said
    if "curl" in command:
        assert re.search(r'200 OK|^ready$|_total{.*source="stripe"', said, re.MULTILINE), said
    if "show" in command or ("list" in command and "pending" not in command):
        assert "evt_1" in said


def test_the_configuration_of_prometheus_is_six_lines_and_valid(tmp_path: Path) -> None:
    scraping, loading = blocks("yaml", WATCH)
    assert len(scraping.splitlines()) == 6
    (tmp_path / "prometheus.yml").write_text(scraping + loading)
    (tmp_path / "alerts.yaml").write_text(ALERTS.read_text())
    run("promtool", "check", "config", "--syntax-only", tmp_path / "prometheus.yml")
    mine, whole = yaml.safe_load(scraping), yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    [[short], [long]] = mine["scrape_configs"], whole["scrape_configs"]
    assert all(short[key] == long[key] for key in ("job_name", "authorization"))


def test_as_many_rules_are_told_of_as_there_are() -> None:
    assert f"the {len(rules('alert'))} of them" in WATCH


def test_its_links_can_be_led_elsewhere_by_one_command(tmp_path: Path) -> None:
    [[command]] = [line.splitlines() for line in blocks("sh", WATCH)]
    for folder in ("prometheus", "grafana"):
        (tmp_path / folder).mkdir()
    for file in ("prometheus/alerts.yaml", "grafana/bridge.json"):
        (tmp_path / file).write_text((DEPLOY / file).read_text())
    subprocess.run([path_of("bash"), "-c", command], cwd=tmp_path, check=True)
    for file in ("prometheus/alerts.yaml", "grafana/bridge.json"):
        text = (tmp_path / file).read_text()
        assert "https://wiki.example.com/bridge#" in text and "deploy/README.md#" not in text


def test_every_link_leads_somewhere() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", section("Watch it") + section("When an alert comes")):
        path, _, heading = link.partition("#")
        if "://" not in link:
            assert (DEPLOY / path).exists(), link
            assert not heading or heading in _headings((DEPLOY / path).read_text() if path else README), link


def _headings(text: str) -> set[str]:
    """As links name them."""
    written = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in written}

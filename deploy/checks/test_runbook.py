"""What deploy/README.md tells to type works as it stands there: each command against a real bridge with a dead delivery."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shlex
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import yaml
from host import ROTATE
from rendered import copied, one, rendered
from rules import ALERTS, rules
from runbook import README, blocks, commands, pages, section
from service import BRIDGE, Service, delivery, service
from tools import DEPLOY, PLACES, path_of, run

from bridge.model import State
from bridge.stand_in import StandIn

TOKEN = "token-of-the-tests"
WATCH = section("Watch it")
# How far a selector looks back: its range and its offset.
BACK = re.compile(r"(?:\[(\w+)\])?(?: offset (\w+))?")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """evt_1 is dead: the Event API does not want it. The token is in a file, as in a container."""
    api = StandIn(key="k")
    api.unwanted = {"stripe/customer.created": "event name is reserved for internal use"}
    await api.start()
    folder = tmp_path_factory.mktemp("runbook")
    (folder / "BRIDGE_ADMIN_TOKEN").write_text(f"{TOKEN}\n")
    more = {
        "INNGEST_EVENT_KEY": "k",
        "INNGEST_EVENT_API_BASE_URL": api.url,
        "BRIDGE_ADMIN_TOKEN_FILE": f"{folder}/BRIDGE_ADMIN_TOKEN",
    }
    async with service(folder, "", more) as found:
        assert (await found.post(delivery(1))).status == 200
        assert (await found.until_finished())["evt_1"].state is State.DEAD
        _bridge_where_it_runs(found)
        yield found
    await api.stop()


def _bridge_where_it_runs(running: Service) -> None:
    """A `bridge` for the shell of whoever is woken, which has none of its variables: as `docker compose exec bridge bridge`."""
    ports = {f"{name}_PORT": str(urlsplit(url).port) for name, url in _listeners(running).items()}
    inside = [f"{name}={value}" for name, value in (running.environment | ports).items()]
    (running.folder / "bin").mkdir()
    command = running.folder / "bin/bridge"
    command.write_text(f'#!/bin/sh\ncd {running.folder} && exec env {shlex.join(inside)} {BRIDGE} "$@"\n')
    command.chmod(0o755)


def _listeners(running: Service) -> dict[str, str]:
    return {"BRIDGE": running.public, "BRIDGE_ADMIN": running.private}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("command", commands())
async def test_a_command_on_a_page_does_what_it_is_there_for(running: Service, command: str) -> None:
    for there, here in {"https://hooks.example.com": running.public, "NAME": "stripe", "ID": "evt_1"}.items():
        command = re.sub(rf"(?<![A-Z_]){re.escape(there)}\b", here, command)
    shell = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "INNGEST_"))}
    process = await asyncio.create_subprocess_exec(
        path_of("bash"),
        *("-o", "pipefail", "-c", command),
        env={**shell, "PATH": f"{running.folder}/bin:{PLACES}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0 and said, said
    for program, answer in {"curl": "200 OK", "health": "readyz: ready", "metrics": 'source="stripe"'}.items():
        assert program not in command or answer in said, said
    if "show" in command or ("list" in command and "pending" not in command):
        assert "evt_1" in said


def test_what_is_asked_from_outside_is_what_is_reached_from_there() -> None:
    """Nobody publishes the private port, images have no curl, and an Ingress leads to no more than the URLs of sources."""
    [rule] = one(rendered("sqlite"), "Ingress")["spec"]["rules"]
    [path] = [each["path"] for each in rule["http"]["paths"]]
    asked = [url for command in commands() if "curl" in command for url in re.findall(r"https?://\S+", command)]
    assert asked
    assert [url for url in asked if not url.startswith(f"https://hooks.example.com{path}")] == []


def test_whoever_changes_a_secret_is_told_how_it_is_taken() -> None:
    """Files are read again by themselves, but systemd hands out a credential only when the service starts."""
    sentences = [each for page in pages().values() for each in re.split(r"(?<=[.;:]) ", page) if "in its file" in each]
    assert sentences
    assert all("(#take-a-change)" in each for each in sentences)
    [row] = [line for line in pages()["Take a change"].splitlines() if line.startswith("| [systemd]")]
    assert "systemctl restart bridge" in row.split(" | ")[1] and "systemctl restart bridge" in ROTATE
    assert not [page for page in pages().values() if "read again" in page]


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


def test_as_much_history_is_asked_for_as_the_rules_look_back() -> None:
    """And a day, so that the edge of it is never missing."""
    asked = [each["expr"] for each in (rules("alert") | rules("record")).values()]
    back = [days(range_) + days(offset) for expression in asked for range_, offset in BACK.findall(expression)]
    assert f"at least {math.ceil(max(back)) + 1} days of history" in WATCH


def days(duration: str) -> float:
    return int(duration[:-1]) * {"m": 1 / 1440, "h": 1 / 24, "d": 1, "w": 7}[duration[-1]] if duration else 0


def test_its_links_can_be_led_elsewhere_by_one_command(tmp_path: Path) -> None:
    [[command]] = [line.splitlines() for line in blocks("sh", WATCH)]
    deploy = copied(tmp_path)
    subprocess.run([path_of("bash"), "-c", command], cwd=deploy, check=True)
    for file in ("prometheus/alerts.yaml", "grafana/bridge.json", "kubernetes/components/rules/prometheusrule.yaml"):
        text = (deploy / file).read_text()
        assert "https://wiki.example.com/bridge#" in text and "deploy/README.md#" not in text, file


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

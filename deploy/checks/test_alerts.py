"""The alert rules: valid, proven by unit tests that can fail, about metrics there are, and each with its page for the night."""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from exported import unknown
from rules import ALERTS, PROMETHEUS, UNIT_TESTS, Yaml, mutants, only, recorded, rules, scraped_every
from runbook import pages
from tools import path_of, run

NAMES = sorted(rules("alert"))
DAYS = PROMETHEUS / "alerts.days.test.yaml"
# 16 days have 276,480 times 5 s.
SCRAPES = [(path, seconds) for path in UNIT_TESTS for seconds in ([60] if path == DAYS else [5, 15, 60])]
PARTS = ("**What it means**", "**What to look at**", "**What to do**")


def unit_tests(path: Path) -> Yaml:
    read: Yaml = yaml.safe_load(path.read_text())
    return read


def written(folder: Path, tests: Yaml, rules_: Yaml) -> Path:
    """Both as files: where the tests are."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules_, sort_keys=False))
    (folder / "tests.yaml").write_text(yaml.safe_dump({**tests, "rule_files": ["rules.yaml"]}, width=1_000_000))
    return folder / "tests.yaml"


def about(alert: str) -> list[Yaml]:
    """The files of unit tests, each with what it asks of this alert."""
    files = [unit_tests(path) for path in UNIT_TESTS]
    for file in files:
        for test in file["tests"]:
            test["alert_rule_test"] = [each for each in test.get("alert_rule_test", ()) if each["alertname"] == alert]
            test["promql_expr_test"] = [
                each for each in test.get("promql_expr_test", ()) if f'"{alert}"' in each["expr"]
            ]
        file["tests"] = [test for test in file["tests"] if test["alert_rule_test"] or test["promql_expr_test"]]
    return [file for file in files if file["tests"]]


def test_the_rules_are_valid() -> None:
    assert f"{len(NAMES) + len(rules('record'))} rules found" in run("promtool", "check", "rules", "--lint=all", ALERTS)


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.name)
def test_the_unit_tests_of_the_rules_pass(path: Path) -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", path)


@pytest.mark.parametrize(("path", "seconds"), SCRAPES, ids=lambda each: getattr(each, "name", None))
def test_they_pass_however_often_the_bridge_is_scraped(path: Path, seconds: int, tmp_path: Path) -> None:
    tests = unit_tests(path)
    if path != DAYS:
        tests["evaluation_interval"] = "30s"
    tests["tests"] = [scraped_every(seconds, test) for test in tests["tests"]]
    changed = written(tmp_path, tests, yaml.safe_load(ALERTS.read_text()))
    assert "SUCCESS" in run("promtool", "test", "rules", changed)


def test_every_alert_has_a_unit_test_that_fires_and_one_that_does_not() -> None:
    asked = [
        each for path in UNIT_TESTS for test in unit_tests(path)["tests"] for each in test.get("alert_rule_test", ())
    ]
    assert {each["alertname"] for each in asked if each["exp_alerts"]} == set(NAMES)
    assert {each["alertname"] for each in asked if not each["exp_alerts"]} == set(NAMES)


@pytest.mark.timeout(600)  # some of them are given 16 days
@pytest.mark.parametrize("alert", NAMES)
def test_no_change_of_an_alert_passes_its_unit_tests(alert: str, tmp_path: Path) -> None:
    tests = about(alert)
    changes = [("as it is", rules("alert")[alert]), *mutants(rules("alert")[alert])]
    with ThreadPoolExecutor(os.cpu_count()) as several:
        passed = several.map(lambda n: passes(tests, only(changes[n][1]), tmp_path / str(n)), range(len(changes)))
        assert [what for (what, _), passes_ in zip(changes, passed, strict=True) if passes_] == ["as it is"]


def passes(files: list[Yaml], rules_: Yaml, folder: Path) -> bool:
    """Whether promtool finds nothing wrong. Where it can't even read the rules, that tells nothing."""
    folder.mkdir()
    for tests in files:
        path = written(folder, tests, rules_)
        run("promtool", "check", "rules", folder / "rules.yaml")
        if subprocess.run([path_of("promtool"), "test", "rules", path], capture_output=True, check=False).returncode:
            return False
    return True


@pytest.mark.parametrize("alert", NAMES)
def test_an_alert_says_how_urgent_it_is_and_has_its_numbers_and_its_page(alert: str) -> None:
    rule = rules("alert")[alert]
    assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"})
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"deploy/README.md#{alert.lower()}"
    said = rule["annotations"]["summary"] + rule["annotations"]["description"]
    # Where there is no metric, or it is 0 and says all, there is no number.
    assert "$value" in said or alert in {"BridgeDown", "BridgeNotReceiving", "BridgeJournalUnreadable"}
    assert "$labels.namespace" in rule["annotations"]["summary"]
    assert "$labels.source" in said or "source)" not in rule["expr"]


def test_every_alert_has_its_page_for_the_night_and_every_page_its_alert() -> None:
    written = pages()
    assert sorted(set(written) - {"Take a change", "What was missed meanwhile"}) == NAMES
    for alert in NAMES:
        places = [written[alert].find(part) for part in PARTS]
        assert -1 not in places and places == sorted(places), alert


def test_what_the_rules_ask_for_is_what_the_bridge_exports() -> None:
    named = {
        name: unknown(rule["expr"], beside=recorded()) for name, rule in (rules("alert") | rules("record")).items()
    }
    assert {name: names for name, names in named.items() if names} == {}


def test_no_rule_mixes_namespaces_or_jobs() -> None:
    for name, rule in (rules("alert") | rules("record")).items():
        kept = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", rule["expr"])
        assert all(labels in {"namespace, job", "namespace, job, source"} for labels in kept), name
        # What no list of labels leads to is compared with all its own.
        assert kept or rule["expr"].startswith("avg_over_time(namespace_job_source:"), name


def test_what_prometheus_is_told_is_valid(tmp_path: Path) -> None:
    """With a token where it looks for one: promtool wants to see the file."""
    told = (PROMETHEUS / "prometheus.yml").read_text()
    token = tmp_path / "token"
    token.write_text("x")
    (tmp_path / "prometheus.yml").write_text(told.replace("/run/secrets/BRIDGE_ADMIN_TOKEN", str(token)))
    (tmp_path / "alerts.yaml").write_text(ALERTS.read_text())
    said = run("promtool", "check", "config", tmp_path / "prometheus.yml")
    assert str(token) in (tmp_path / "prometheus.yml").read_text()
    assert "1 rule files found" in said and f"{len(NAMES) + len(rules('record'))} rules found" in said

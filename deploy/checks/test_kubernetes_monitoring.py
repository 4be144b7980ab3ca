"""What deploy/kubernetes has for the Prometheus Operator: it collects everything, may do so, and has the alerts Prometheus has."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rendered import KUBERNETES, OVERLAYS, Object, copied, of_kind, one, rendered, selects
from tools import DEPLOY, run

MADE = "kubernetes/components/rules/prometheusrule.yaml"


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return rendered(request.param)


def test_prometheus_collects_all_metrics_of_every_pod_with_the_token_of_the_secret(objects: list[Object]) -> None:
    monitor = one(objects, "ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    spec = dict(monitor["spec"])
    found = [
        each
        for each in of_kind(objects, "Service")
        if selects(spec["selector"]["matchLabels"], each["metadata"]["labels"])
    ]
    [service] = found
    assert service["metadata"]["name"] == "bridge-private"
    # No address of its own, or each collection would be of some pod, and the others' metrics of none.
    assert service["spec"]["clusterIP"] == "None"
    [port] = service["spec"]["ports"]
    # All there is: nothing here relabels, drops or limits.
    assert spec == {
        "jobLabel": "app.kubernetes.io/name",
        "selector": spec["selector"],
        "endpoints": [
            {
                "port": port["name"],
                "path": "/metrics",
                "authorization": {
                    "type": "Bearer",
                    "credentials": {"name": "bridge-secrets", "key": "BRIDGE_ADMIN_TOKEN"},
                },
            }
        ],
    }
    assert service["metadata"]["labels"][spec["jobLabel"]] == "bridge"


def test_the_rules_are_those_of_prometheus(objects: list[Object]) -> None:
    rule = one(objects, "PrometheusRule")
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())
    assert rule["spec"] == rules, "run deploy/kubernetes/components/rules/update"
    assert [each for group in rule["spec"]["groups"] for each in group["rules"]], "there are some"


def test_the_rules_are_made_by_a_program_and_by_nobody_else(tmp_path: Path) -> None:
    run(str(KUBERNETES / "components/rules/update"), tmp_path / "made.yaml")
    assert (tmp_path / "made.yaml").read_text() == (DEPLOY / MADE).read_text(), (
        "run deploy/kubernetes/components/rules/update"
    )


HARD = r"""
groups:
- name: a
  rules:
  - alert: B
    expr: |
      up

        == 0
    annotations:
      text: '{{ $labels.instance }}: --- # no comment'
# the end
"""


@pytest.mark.parametrize("rules", [HARD, f"---{HARD}"])
def test_whatever_the_rules_are_they_come_through_as_they_are(tmp_path: Path, rules: str) -> None:
    deploy = copied(tmp_path)
    (deploy / "prometheus/alerts.yaml").write_text(rules)
    run(str(deploy / "kubernetes/components/rules/update"))
    assert yaml.safe_load((deploy / MADE).read_text())["spec"] == yaml.safe_load(rules)

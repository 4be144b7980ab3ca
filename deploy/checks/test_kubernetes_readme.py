"""What the README says of Kubernetes: its kustomization renders, its commands are right, and its changes reach the pods."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from rendered import (
    OVERLAYS,
    SECTION,
    TRANSFORM,
    as_in_the_readme,
    of_kind,
    one,
    pod,
    rendered,
    secret_in_the_readme,
    workload,
    write,
)
from tools import run

from bridge.config import secrets
from bridge.settings import Settings


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_its_command_makes_the_secret_that_pods_mount_with_names_the_bridge_reads(overlay: str, tmp_path: Path) -> None:
    made = secret_in_the_readme(tmp_path, overlay)
    files = {"db.pem"} if overlay == "postgresql" else set()
    assert made.keys() - files <= secrets.variables({})
    assert {"INNGEST_EVENT_KEY", "BRIDGE_ADMIN_TOKEN"} <= made.keys()
    assert len(made["BRIDGE_ADMIN_TOKEN"]) == 64 and not made["BRIDGE_ADMIN_TOKEN"].endswith("\n")
    [volume] = [each for each in pod(rendered(overlay))["spec"]["volumes"] if "secret" in each]
    assert volume["secret"]["secretName"] == "bridge-secrets"
    if overlay == "postgresql":
        assert f"/run/secrets/{next(iter(files))}" in made["BRIDGE_JOURNAL"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_its_kustomization_renders_with_what_it_says(overlay: str, tmp_path: Path) -> None:
    objects = as_in_the_readme(tmp_path, overlay)
    ingress = one(objects, "Ingress")["spec"]
    assert ingress["tls"] == [{"hosts": ["hooks.example.com"], "secretName": "hooks-example-com-tls"}]
    assert [each["host"] for each in ingress["rules"]] == ["hooks.example.com"]
    assert ".invalid" not in yaml.safe_dump_all(objects)
    mounted = {
        each["name"]: each["configMap"]["name"] for each in pod(objects)["spec"]["volumes"] if "configMap" in each
    }
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(objects, "ConfigMap")}
    assert maps.keys() == set(mounted.values())
    assert maps[mounted["transforms"]] == {"stripe.py": TRANSFORM}
    assert maps[mounted["config"]].keys() == {"bridge.toml"}


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("changed", [{"toml": "port = 8080\n"}, {"transform": f"{TRANSFORM}\n"}])
def test_a_change_of_its_files_makes_new_pods_and_nothing_else_new(
    overlay: str, changed: dict[str, str], tmp_path: Path
) -> None:
    before, after = as_in_the_readme(tmp_path, overlay), as_in_the_readme(tmp_path, overlay, **changed)
    assert pod(before) != pod(after)
    assert {**workload(before)["spec"], "template": {}} == {**workload(after)["spec"], "template": {}}
    assert pod(before)["metadata"] == pod(after)["metadata"]
    others = [
        [each for each in objects if each not in (*of_kind(objects, "ConfigMap"), workload(objects))]
        for objects in (before, after)
    ]
    assert others[0] == others[1]
    assert as_in_the_readme(tmp_path, overlay, **changed) == after, "the same files, the same pods"


@pytest.mark.parametrize(("name", "behavior"), [("bridge-transform", "merge"), ("bridge-toml", "replace")])
def test_a_misspelled_name_is_refused_and_not_left_out(name: str, behavior: str, tmp_path: Path) -> None:
    """Without its transforms a bridge would send events of other names, and nobody would know."""
    generator = {"name": name, "behavior": behavior, "literals": ["stripe.py="]}
    for overlay in OVERLAYS:
        folder = write(tmp_path, overlay, more={"configMapGenerator": [generator]})
        assert "does not exist" in run("kubectl", "kustomize", folder, status=1)


def test_its_commands_name_what_there_is() -> None:
    there = {f"{each['kind'].lower()}/{each['metadata']['name']}" for overlay in OVERLAYS for each in rendered(overlay)}
    named = set(re.findall(r"\b(?:statefulset|deployment|service)/[a-z-]+", SECTION))
    assert named == {"statefulset/bridge", "deployment/bridge", "service/bridge-private"} and named <= there
    assert "horizontalpodautoscaler/bridge" in there and "kubectl get hpa bridge" in SECTION
    assert f"service/bridge-private {Settings().admin_port}" in SECTION
    # The pod of a StatefulSet is named after it.
    assert set(re.findall(r"bridge-\d\b", SECTION)) == {"bridge-0"}
    assert set(re.findall(r"`((?:overlays|components)/[a-z-]+)`", SECTION)) == {
        "overlays/sqlite",
        "overlays/postgresql",
        "components/ingress",
        "components/service-monitor",
        "components/rules",
    }


def test_its_patch_of_the_secret_rotates_a_secret_the_bridge_reads() -> None:
    [patch] = [json.loads(each) for each in re.findall(r"kubectl patch secret bridge-secrets -p '(.*)'", SECTION)]
    assert patch["stringData"].keys() <= secrets.variables({})
    [value] = patch["stringData"].values()
    assert len(value.split(",")) == 2

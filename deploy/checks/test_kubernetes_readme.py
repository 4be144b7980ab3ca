"""What the README says of Kubernetes: its kustomization renders, its commands are right, and its changes reach the pods."""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path

import pytest
import yaml
from rendered import (
    OVERLAYS,
    SECTION,
    TOML,
    TRANSFORM,
    as_in_the_readme,
    blocks,
    command,
    container,
    of_kind,
    one,
    pod,
    rendered,
    secret_in_the_readme,
    typed,
    workload,
    write,
)
from tools import DEPLOY, run

from bridge.config import secrets


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_its_commands_make_the_secret_that_pods_mount_with_names_the_bridge_reads(overlay: str, tmp_path: Path) -> None:
    made = secret_in_the_readme(tmp_path, overlay)
    files = {"db.pem"} if overlay == "postgresql" else set()
    others = {"BRIDGE_JOURNAL"} if overlay == "sqlite" else set()
    assert made.keys() - files == secrets.variables({}) - others
    assert len(made["BRIDGE_ADMIN_TOKEN"]) == 64 and not made["BRIDGE_ADMIN_TOKEN"].endswith("\n")
    assert made["INNGEST_EVENT_KEY"] == "pasted\n"
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    [volume] = [each for each in pod(rendered(overlay))["spec"]["volumes"] if "secret" in each]
    assert volume["secret"]["secretName"] == "bridge-secrets"
    if overlay == "postgresql":
        assert f"/run/secrets/{next(iter(files))}" in made["BRIDGE_JOURNAL"]


def test_no_secret_gets_into_a_history() -> None:
    for text in blocks("sh"):
        assert not re.search(r"--from-literal|stringData|whsec|password", text), text


def test_its_command_rotates_a_secret_and_leaves_the_others(tmp_path: Path) -> None:
    before = secret_in_the_readme(tmp_path, "sqlite")
    (tmp_path / "secrets/STRIPE_WEBHOOK_SECRET").write_text("new\nold\n")
    replaced = yaml.safe_load(typed(command("kubectl replace"), tmp_path))
    assert replaced["metadata"]["name"] == "bridge-secrets"
    after = {name: b64decode(value).decode() for name, value in replaced["data"].items()}
    assert after == before | {"STRIPE_WEBHOOK_SECRET": "new\nold\n"}


def test_the_image_it_has_built_and_pushed_is_the_one_that_is_pulled(tmp_path: Path) -> None:
    built, pushed = command("docker build").splitlines()
    image = container(as_in_the_readme(tmp_path, "sqlite"))["image"]
    assert built == f"docker build --file deploy/Dockerfile --tag {image} ."
    assert (DEPLOY / "Dockerfile").exists()
    assert pushed == f"docker push {image}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_as_it_stands_it_needs_nothing_that_a_cluster_may_not_have(overlay: str, tmp_path: Path) -> None:
    """`kubectl apply` would do the rest, and end with "no matches for kind"."""
    kinds = {each["kind"] for each in as_in_the_readme(tmp_path, overlay, operator=False)}
    known = {each["kind"] for each in rendered(overlay, ("ingress",))}
    assert kinds == known
    assert {each["kind"] for each in as_in_the_readme(tmp_path, overlay)} - kinds == {
        "ServiceMonitor",
        "PrometheusRule",
    }
    assert "an ingress controller" in SECTION


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


CHANGES = (("port = 8080\n", TRANSFORM), (TOML, f"{TRANSFORM}\n"))


@pytest.mark.parametrize(("toml", "transform"), CHANGES)
def test_on_sqlite_a_change_of_its_files_leaves_the_pod_and_changes_what_is_mounted(
    toml: str, transform: str, tmp_path: Path
) -> None:
    """A new pod that does not start would be an outage; the one that runs refuses what is bad."""
    before, after = (
        as_in_the_readme(tmp_path, "sqlite"),
        as_in_the_readme(tmp_path, "sqlite", toml=toml, transform=transform),
    )
    different = [each for each in after if each not in before]
    assert [each["kind"] for each in different] == ["ConfigMap"]
    assert [each["metadata"]["name"] for each in different] == [
        "bridge-transforms" if toml == TOML else "bridge-config"
    ]


@pytest.mark.parametrize(("toml", "transform"), CHANGES)
def test_on_postgresql_a_change_of_its_files_makes_new_pods_and_nothing_else_new(
    toml: str, transform: str, tmp_path: Path
) -> None:
    overlay = "postgresql"
    before, after = (
        as_in_the_readme(tmp_path, overlay),
        as_in_the_readme(tmp_path, overlay, toml=toml, transform=transform),
    )
    assert pod(before) != pod(after)
    assert {**workload(before)["spec"], "template": {}} == {**workload(after)["spec"], "template": {}}
    assert pod(before)["metadata"] == pod(after)["metadata"]
    others = [
        [each for each in objects if each not in (*of_kind(objects, "ConfigMap"), workload(objects))]
        for objects in (before, after)
    ]
    assert others[0] == others[1]
    assert as_in_the_readme(tmp_path, overlay, toml=toml, transform=transform) == after, "the same files, the same pods"


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
    assert named == {"statefulset/bridge", "deployment/bridge"} and named <= there
    assert "horizontalpodautoscaler/bridge" in there and "kubectl get hpa bridge" in SECTION
    # The pod of a StatefulSet is named after it.
    assert set(re.findall(r"bridge-\d\b", SECTION)) == {"bridge-0"}
    tainted, freed = re.findall(r"^kubectl taint node NODE (\S+)$", SECTION, re.MULTILINE)
    assert freed == f"{tainted}-"
    assert set(re.findall(r"`((?:overlays|components)/[a-z-]+)`", SECTION)) == {
        "overlays/sqlite",
        "overlays/postgresql",
        "components/ingress",
        "components/service-monitor",
        "components/rules",
    }

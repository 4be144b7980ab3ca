"""What deploy/kubernetes promises, held against what kubectl renders of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from rendered import (
    OVERLAYS,
    SECTION,
    VARIANTS,
    Object,
    as_in_the_readme,
    container,
    is_let,
    of_kind,
    one,
    pod,
    probes,
    rendered,
    selects,
    workload,
)
from tools import DEPLOY, ROOT, run

from bridge.config import secrets
from bridge.settings import Settings, declared

# The first that knows all fields we use: `unhealthyPodEvictionPolicy` is the newest.
OLDEST = (1, 27)
NAME = {"app.kubernetes.io/name": "bridge"}
# Their schemas are the Prometheus Operator's: tests of their own look at them.
OTHERS = {"ServiceMonitor", "PrometheusRule"}
# Seconds in which SIGTERM ends a bridge, as the README has it.
DRAIN = 10


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    """Everything there is with an overlay."""
    return rendered(request.param)


@pytest.mark.parametrize(("overlay", "components"), VARIANTS)
def test_kubectl_renders_each_overlay_with_each_component(overlay: str, components: tuple[str, ...]) -> None:
    found = {each["kind"] for each in rendered(overlay, components)}
    added = {"ingress": "Ingress", "service-monitor": "ServiceMonitor", "rules": "PrometheusRule"}
    assert found & set(added.values()) == {added[component] for component in components}
    assert {"Service", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget", "ConfigMap"} < found


def releases() -> list[str]:
    """Those it has schemas of, the oldest first."""
    known = dict.fromkeys(kubernetes_validate.utils.all_versions())
    return [each for each in known if _numbers(each) >= OLDEST]


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")[:2]))


@pytest.mark.parametrize("release", releases())
def test_every_object_is_what_this_release_of_kubernetes_takes(objects: list[Object], release: str) -> None:
    """An object of a kind that it does not know, or with a field that it does not know, is a failure too."""
    for each in objects:
        if each["kind"] not in OTHERS:
            kubernetes_validate.validate(each, release, strict=True)
    assert _numbers(releases()[0]) == OLDEST
    assert "Kubernetes {}.{} or newer".format(*OLDEST) in SECTION


def test_all_yaml_is_clean() -> None:
    run("yamllint", "--strict", "--config-file", DEPLOY / ".yamllint", DEPLOY)


def test_no_secret_is_in_it(objects: list[Object]) -> None:
    """Where one is needed, it is named: no Secret, and no value of a variable that holds one."""
    assert not of_kind(objects, "Secret")
    given = {each["name"] for each in container(objects)["env"] if "value" in each}
    # The journal of SQLite is no secret.
    assert given & secrets.variables({}) <= {"BRIDGE_JOURNAL"}
    said = yaml.safe_dump_all(objects)
    assert not re.search(r"whsec_|postgres(ql)?://|password|BEGIN ", said), said


def test_the_variables_it_sets_are_ones_the_bridge_reads(objects: list[Object]) -> None:
    known = {name for _, field in declared() for name in field.metadata["env"].split(", else ")}
    known |= {f"{name}_FILE" for name in secrets.variables({})} | {"BRIDGE_CONFIG"}
    assert {each["name"] for each in container(objects)["env"]} <= known


def test_every_pod_meets_the_pod_security_standard_restricted(objects: list[Object]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    spec, inside = pod(objects)["spec"], container(objects)["securityContext"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "ephemeralContainers"} & spec.keys()
    taken = {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}}
    assert taken <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
    assert not any("hostPort" in port for port in container(objects)["ports"])
    assert inside == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,  # more than it asks for
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_no_pod_can_ask_kubernetes_anything(objects: list[Object]) -> None:
    account, spec = one(objects, "ServiceAccount"), pod(objects)["spec"]
    assert spec["serviceAccountName"] == account["metadata"]["name"]
    assert account["automountServiceAccountToken"] is spec["automountServiceAccountToken"] is False
    assert not [each for each in objects if each["kind"].endswith(("Role", "RoleBinding"))]


def test_a_pod_has_the_time_to_end_by_itself(objects: list[Object]) -> None:
    program, seconds = container(objects)["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert pod(objects)["spec"]["terminationGracePeriodSeconds"] >= int(seconds) + DRAIN + 5
    assert f"SIGTERM ends it within {DRAIN} seconds" in (ROOT / "README.md").read_text()


def test_ports_are_the_bridges_own_and_probes_and_services_lead_to_them(objects: list[Object]) -> None:
    ports = {each["name"]: each["containerPort"] for each in container(objects)["ports"]}
    assert ports == {"public": Settings().port, "private": Settings().admin_port}
    assert {probe["httpGet"]["port"] for probe in probes(objects).values()} <= ports.keys()
    for service in of_kind(objects, "Service"):
        assert selects(service["spec"]["selector"], pod(objects)["metadata"]["labels"])
    leads = {each["metadata"]["name"]: each["spec"]["ports"] for each in of_kind(objects, "Service")}
    assert {name: [port["targetPort"] for port in list_] for name, list_ in leads.items()} == {
        "bridge": ["public"],
        "bridge-private": ["private"],
    }
    assert {service["spec"].get("type", "ClusterIP") for service in of_kind(objects, "Service")} == {"ClusterIP"}


def test_the_ingress_leads_to_webhooks_on_the_public_service_and_to_nothing_else(objects: list[Object]) -> None:
    ingress = one(objects, "Ingress")
    [rule] = ingress["spec"]["rules"]
    [path] = rule["http"]["paths"]
    assert (path["path"], path["pathType"]) == ("/webhooks/", "Prefix")
    leads = path["backend"]["service"]
    assert leads["name"] == "bridge"
    assert leads["port"]["name"] in {port["name"] for port in one(objects, "Service")["spec"]["ports"]}
    assert "defaultBackend" not in ingress["spec"]
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]
    # Nothing that would change a path or a body.
    assert ingress["metadata"]["annotations"] == {"nginx.ingress.kubernetes.io/proxy-body-size": "32m"}
    [largest] = [field for key, field in declared() if key == "sources.NAME.max_body"]
    assert "at most 32 MiB" in largest.metadata["help"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_others_reach_what_they_need_and_no_more(overlay: str) -> None:
    objects = rendered(overlay)
    assert {way for each in of_kind(objects, "NetworkPolicy") for way in each["spec"]["policyTypes"]} == {
        "Ingress",
        "Egress",
    }
    everything = range(65536)
    assert [port for port in everything if is_let(objects, "ingress", port)] == [8080]
    assert [port for port in everything if is_let(objects, "ingress", port, namespace="monitoring")] == [8080, 8081]
    out = [53, 443, 5432] if overlay == "postgresql" else [53, 443]
    assert [port for port in everything if is_let(objects, "egress", port)] == out
    assert [port for port in everything if is_let(objects, "egress", port, protocol="UDP")] == [53]


def test_drains_go_on_and_take_one_pod_at_a_time(objects: list[Object]) -> None:
    budget = one(objects, "PodDisruptionBudget")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert selects(budget["selector"]["matchLabels"], pod(objects)["metadata"]["labels"])


def test_secrets_are_files_that_change_when_the_secret_does(objects: list[Object]) -> None:
    mounts = container(objects)["volumeMounts"]
    assert not any("subPath" in each for each in mounts)
    [secret] = [each for each in pod(objects)["spec"]["volumes"] if "secret" in each]
    # All of it, readable for the bridge's group and nobody else.
    assert secret["secret"] == {"secretName": "bridge-secrets", "defaultMode": 0o440}
    [mounted] = [each for each in mounts if each["name"] == secret["name"]]
    assert (mounted["mountPath"], mounted["readOnly"]) == ("/run/secrets", True)


def test_sqlite_is_one_bridge_with_a_disk_of_its_own() -> None:
    objects = rendered("sqlite")
    spec = one(objects, "StatefulSet")["spec"]
    assert (spec["replicas"], spec["podManagementPolicy"]) == (1, "Parallel")
    assert not of_kind(objects, "HorizontalPodAutoscaler")
    [claim] = spec["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] in (["ReadWriteOnce"], ["ReadWriteOncePod"])
    assert {"name": claim["metadata"]["name"], "mountPath": "/data"} in container(objects)["volumeMounts"]
    assert spec["serviceName"] in {each["metadata"]["name"] for each in of_kind(objects, "Service")}


def test_on_postgresql_there_are_always_enough_bridges_and_never_too_many() -> None:
    objects = rendered("postgresql")
    deployment, scaler = one(objects, "Deployment")["spec"], one(objects, "HorizontalPodAutoscaler")["spec"]
    assert "replicas" not in deployment, "it would undo what the autoscaler did"
    assert deployment["strategy"]["type"] == "RollingUpdate"
    rolling = deployment["strategy"]["rollingUpdate"]
    assert rolling == {"maxUnavailable": 0, "maxSurge": 1}
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "bridge"}
    assert scaler["minReplicas"] >= 2
    assert "Count on 8 a bridge" in (ROOT / "README.md").read_text()
    assert (scaler["maxReplicas"] + rolling["maxSurge"]) * 8 < 97, (
        "what PostgreSQL's default leaves for all but its superuser"
    )
    spread = pod(objects)["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    for each in spread:
        assert each["whenUnsatisfiable"] == "ScheduleAnyway"
        assert selects(each["labelSelector"]["matchLabels"], pod(objects)["metadata"]["labels"])


def test_what_can_never_be_changed_in_a_cluster_is_what_it_was(objects: list[Object]) -> None:
    """A change of one of these makes `kubectl apply` fail for everybody who has it: they would have to delete it first."""
    spec = workload(objects)["spec"]
    assert spec["selector"] == {"matchLabels": NAME}
    assert pod(objects)["metadata"]["labels"] == NAME
    if workload(objects)["kind"] == "StatefulSet":
        assert (spec["serviceName"], spec["podManagementPolicy"]) == ("bridge-private", "Parallel")
        [claim] = spec["volumeClaimTemplates"]
        assert claim["metadata"] == {"name": "data", "labels": NAME}
        assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    assert one(objects, "Service", "bridge-private")["spec"]["clusterIP"] == "None"


def test_everything_has_its_name_and_goes_where_its_user_says(tmp_path: Path) -> None:
    for overlay in OVERLAYS:
        objects = rendered(overlay)
        assert not [each for each in objects if "namespace" in each["metadata"]]
        made = [each for each in objects if each["kind"] != "ConfigMap"]
        assert all(selects(NAME, each["metadata"]["labels"]) for each in made)
        theirs = as_in_the_readme(tmp_path, overlay)
        assert {each["metadata"]["namespace"] for each in theirs} == {"webhooks"}
        assert len(theirs) == len(objects)


def test_the_image_is_this_version_unless_somebody_names_another(tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for overlay in OVERLAYS:
        assert container(rendered(overlay))["image"] == f"webhook-event-bridge:{version}"
        named = container(as_in_the_readme(tmp_path, overlay))["image"]
        assert named == f"registry.example.com/webhook-event-bridge:{version}"

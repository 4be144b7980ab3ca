"""The patches that deploy/README.md has for a cluster: each does what it is there for, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from rendered import OVERLAYS, Object, as_in_the_readme, command, container, is_let, one, patches, pod, typed

OPERATORS = {"ServiceMonitor", "PrometheusRule"}


def patched(folder: Path, overlay: str, word: str) -> tuple[list[Object], list[Object]]:
    """What there is without and with the patch that has this word; and whether Kubernetes knows it."""
    [patch] = [text for text in patches() if word in text]
    before, after = as_in_the_readme(folder, overlay), as_in_the_readme(folder, overlay, added=[patch])
    for each in after:
        if each["kind"] not in OPERATORS:
            kubernetes_validate.validate(each, "1.27", strict=True)
    return before, after


def changed(before: list[Object], after: list[Object]) -> set[str]:
    return {each["kind"] for each in after if each not in before}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_image_is_pulled_with_the_login_that_a_command_brings(overlay: str, tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text('{"auths": {"registry.example.com": {"auth": "dTpw"}}}')
    secret = yaml.safe_load(typed(command("dockerconfigjson"), tmp_path))
    assert (secret["type"], *secret["data"]) == ("kubernetes.io/dockerconfigjson", ".dockerconfigjson")
    before, after = patched(tmp_path, overlay, "imagePullSecrets")
    assert changed(before, after) == {"ServiceAccount"}
    assert one(after, "ServiceAccount")["imagePullSecrets"] == [{"name": secret["metadata"]["name"]}]
    assert pod(after)["spec"]["serviceAccountName"] == one(after, "ServiceAccount")["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_prometheus_of_another_namespace_is_let_in(overlay: str, tmp_path: Path) -> None:
    before, after = patched(tmp_path, overlay, "/spec/ingress/-")
    assert changed(before, after) == {"NetworkPolicy"}
    for objects, let in ((before, False), (after, True)):
        assert is_let(objects, "ingress", 8081, namespace="observability") is let
    assert is_let(after, "ingress", 8081, namespace="monitoring")
    assert not is_let(after, "ingress", 8081)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_traces_are_sent_where_they_are_let_out_to(overlay: str, tmp_path: Path) -> None:
    before, after = patched(tmp_path, overlay, "OTEL_EXPORTER_OTLP_ENDPOINT")
    assert changed(before, after) == {pod_of(overlay), "NetworkPolicy"}
    [added] = [each for each in container(after)["env"] if each not in container(before)["env"]]
    namespace, port = re.findall(r"http://collector\.(.*):(\d+)", added["value"])[0]
    for objects, let in ((before, False), (after, True)):
        assert is_let(objects, "egress", int(port), namespace=namespace) is let
    assert not is_let(after, "egress", int(port))


def pod_of(overlay: str) -> str:
    return {"sqlite": "StatefulSet", "postgresql": "Deployment"}[overlay]


def test_the_volume_of_sqlite_is_made_larger_where_it_is_and_where_it_is_described(tmp_path: Path) -> None:
    """Else the StatefulSet that is made anew would not be what runs, or `kubectl apply` would fail for ever."""
    before, after = patched(tmp_path, "sqlite", "volumeClaimTemplates")
    assert changed(before, after) == {"StatefulSet"}
    [described] = one(after, "StatefulSet")["spec"]["volumeClaimTemplates"]
    larger, deleted, _ = command("kubectl patch pvc").splitlines()
    [(claim, patch)] = re.findall(r"kubectl patch pvc (\S+) -p '(.*)'", larger)
    assert json.loads(patch)["spec"]["resources"] == described["spec"]["resources"] == {"requests": {"storage": "50Gi"}}
    name = one(after, "StatefulSet")["metadata"]["name"]
    assert claim == f"{described['metadata']['name']}-{name}-0"
    assert deleted == f"kubectl delete statefulset {name} --cascade=orphan"
    described["spec"]["resources"]["requests"]["storage"] = "10Gi"
    assert before == after, "nothing else: the pod must go on"


def test_every_patch_is_tried_here() -> None:
    words = ("imagePullSecrets", "/spec/ingress/-", "OTEL_EXPORTER_OTLP_ENDPOINT", "volumeClaimTemplates")
    assert [[word for word in words if word in text] for text in patches()] == [[word] for word in words]

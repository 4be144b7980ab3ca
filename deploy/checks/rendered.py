"""What `kubectl kustomize` makes of deploy/kubernetes, as objects, and what the README tells people to write and to run."""

from __future__ import annotations

import os
import re
import shutil
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import yaml
from tools import DEPLOY, run

Object: TypeAlias = dict[str, Any]

KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("sqlite", "postgresql")
COMPONENTS = ("ingress", "service-monitor", "rules")
# Each overlay by itself, with each component, and with all.
VARIANTS = tuple(product(OVERLAYS, ((), *((each,) for each in COMPONENTS), COMPONENTS)))
SECTION = (DEPLOY / "README.md").read_text().split("\n## Kubernetes\n")[-1].split("\n## ")[0]
# What a user has beside the kustomization of the README.
TOML = '[sources.stripe-live]\nprovider = "stripe"\nsecrets = ["env:STRIPE_WEBHOOK_SECRET"]\n'
TRANSFORM = """from bridge import Delivery, Event


def transform(delivery: Delivery) -> Event:
    return Event(name="mine/transformed", data=delivery.payload)
"""


def blocks(language: str) -> list[str]:
    """The code of this language in the README's section, also where it belongs to an item of a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", SECTION, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def render(folder: Path) -> list[Object]:
    """Fails where kubectl has something to say beside the objects."""
    printed = run("kubectl", "kustomize", folder)
    assert "# " not in re.sub(r"^ .*$", "", printed, flags=re.MULTILINE), printed
    return [each for each in yaml.safe_load_all(printed) if each is not None]


@cache
def rendered(overlay: str, components: Sequence[str] = COMPONENTS) -> list[Object]:
    """Not to be changed: all ask for the same."""
    with TemporaryDirectory() as folder:
        return render(write(Path(folder), overlay, components=components))


def write(
    folder: Path, overlay: str, *, components: Iterable[str] = (), more: Mapping[str, object] | None = None
) -> Path:
    """A kustomization of a user's."""
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(KUBERNETES / "overlays" / overlay, folder)],
        "components": [os.path.relpath(KUBERNETES / "components" / each, folder) for each in components],
        **(more or {}),
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return folder


def patches() -> list[str]:
    """What the README has to add at the end of its kustomization."""
    return [block for block in blocks("yaml") if "kind: Kustomization" not in block]


def as_in_the_readme(
    folder: Path,
    overlay: str,
    *,
    toml: str = TOML,
    transform: str = TRANSFORM,
    operator: bool = True,
    added: Iterable[str] = (),
) -> list[Object]:
    """What comes of the README's kustomization, once somebody has followed it. `operator`: with what is commented out in it,
    which is for the Prometheus Operator. `added`: of its patches.
    """
    [text] = [block for block in blocks("yaml") if "kind: Kustomization" in block]
    assert text.count("../webhook-event-bridge/deploy/kubernetes/") == 4
    text = text.replace("../webhook-event-bridge/deploy/kubernetes", os.path.relpath(KUBERNETES, folder))
    text = text.replace("overlays/postgresql", f"overlays/{overlay}")
    text = text.replace("  # - ", "  - ") if operator else text
    (folder / "kustomization.yaml").write_text("".join([text, *added]))
    (folder / "bridge.toml").write_text(toml)
    (folder / "transforms").mkdir(exist_ok=True)
    (folder / "transforms/stripe.py").write_text(transform)
    return render(folder)


def command(word: str) -> str:
    """The block of commands that has it."""
    [found] = [text for text in blocks("sh") if word in text]
    return found


def typed(commands: str, folder: Path, *, stdin: str = "") -> str:
    """What they print in this folder. Nothing is sent anywhere: what is to be made or replaced is printed instead."""
    only_print = """kubectl() {
        case $1 in
            replace) cat; return ;;
            create) ;;
            *) return 1 ;;
        esac
        case " $* " in
            *" --dry-run=client -o yaml "*) command kubectl "$@" ;;
            *" -o "*) return 1 ;;
            *) command kubectl "$@" --dry-run=client -o yaml ;;
        esac
    }"""
    script = f"set -euo pipefail\ncd {folder}\n{only_print}\n{commands}"
    return run("bash", "-c", script, stdin=stdin, environment={"KUBECONFIG": "/dev/null", "HOME": str(folder)})


def secret_in_the_readme(folder: Path, overlay: str) -> dict[str, str]:
    """What is in the Secret of somebody who has followed the README, and has all the providers it names."""
    typed(command("mkdir -m 700 secrets"), folder, stdin="pasted\n")
    [journal] = re.findall(r"`secrets/BRIDGE_JOURNAL`, which is `(.*?)`", SECTION)
    likewise = set(re.findall(r"`secrets/([A-Z_]+)`", SECTION)) - {"BRIDGE_JOURNAL"}
    more = dict.fromkeys(likewise, "pasted\n")
    if overlay == "postgresql":
        more |= {"BRIDGE_JOURNAL": f"{journal}\n", "db.pem": "a certificate\n"}
    for name, text in more.items():
        (folder / "secrets" / name).write_text(text)
    made = yaml.safe_load(typed(command("kubectl create secret generic bridge-secrets --from-file=secrets\n"), folder))
    assert (made["kind"], made["metadata"]["name"]) == ("Secret", "bridge-secrets")
    return {name: b64decode(value).decode() for name, value in made["data"].items()}


def copied(folder: Path) -> Path:
    """All of it, to be changed."""
    return Path(shutil.copytree(DEPLOY, folder / "deploy"))


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def one(objects: Iterable[Object], kind: str, name: str = "bridge") -> Object:
    [found] = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


def workload(objects: Iterable[Object]) -> Object:
    """What makes the pods."""
    [found] = [each for each in objects if each["kind"] in {"StatefulSet", "Deployment", "DaemonSet", "Job", "Pod"}]
    return found


def pod(objects: Iterable[Object]) -> Object:
    template: Object = workload(objects)["spec"]["template"]
    return template


def container(objects: Iterable[Object]) -> Object:
    """The only one there is."""
    spec = pod(objects)["spec"]
    assert not spec.get("initContainers")
    [found] = spec["containers"]
    return dict(found)


def probes(objects: Iterable[Object]) -> dict[str, Object]:
    found = {name: each for name, each in container(objects).items() if name.endswith("Probe")}
    assert set(found) == {"startupProbe", "readinessProbe", "livenessProbe"}
    return found


def is_let(objects: list[Object], way: str, port: int, *, namespace: str = "any", protocol: str = "TCP") -> bool:
    """Whether the NetworkPolicies let it through: `ingress` from a namespace, or `egress` into one. They add up."""
    labels = {"kubernetes.io/metadata.name": namespace}
    for policy in of_kind(objects, "NetworkPolicy"):
        assert selects(policy["spec"]["podSelector"]["matchLabels"], pod(objects)["metadata"]["labels"])
        for rule in policy["spec"].get(way, []):
            peers = rule.get("from" if way == "ingress" else "to")
            if peers is not None and not any(
                selects(each["namespaceSelector"]["matchLabels"], labels) for each in peers
            ):
                continue
            if any((each["port"], each.get("protocol", "TCP")) == (port, protocol) for each in rule["ports"]):
                return True
    return False


def selects(labels: Mapping[str, str], chosen: Mapping[str, str]) -> bool:
    """Whether who looks for `labels` finds what has `chosen`."""
    return bool(labels) and labels.items() <= chosen.items()

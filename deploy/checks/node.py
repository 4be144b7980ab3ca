"""A pod of deploy/kubernetes on this machine: its files in a folder, as a kubelet lays them out, and its bridge's environment."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kubelet import project
from rendered import Object, container, of_kind, one, pod
from service import BRIDGE
from tools import run

# What the image sets by itself, and has in it.
IMAGE = {"BRIDGE_CONFIG": "/etc/bridge/bridge.toml", "BRIDGE_TRANSFORMS": "/transforms"}
PLACES = ("/etc/bridge", "/transforms", "/data", "/run/secrets", "/tmp")  # noqa: S108 - of the pod, not ours
# Ports that are free, and nobody else's machine.
HERE = {"BRIDGE_HOST": "127.0.0.1", "BRIDGE_ADMIN_HOST": "127.0.0.1", "BRIDGE_PORT": "0", "BRIDGE_ADMIN_PORT": "0"}


@dataclass
class Node:
    """Lays out one pod's files in a folder, as a kubelet does, and knows the environment of its bridge."""

    objects: list[Object]
    root: Path
    secret: dict[str, str]
    event_api: str
    """Its URL. Every pod has one here, or its bridge would ask the real one."""

    def __post_init__(self) -> None:
        for place in PLACES:
            Path(f"{self.root}{place}").mkdir(parents=True)
        self._project()

    def _project(self) -> None:
        """The image has a bridge.toml too; what is mounted over it hides it."""
        sources = {each["name"]: each for each in pod(self.objects)["spec"]["volumes"]}
        for each in container(self.objects)["volumeMounts"]:
            assert each["mountPath"] in PLACES, "the image has nothing there"
            volume, at = sources.get(each["name"], {}), Path(f"{self.root}{each['mountPath']}")
            if "secret" in volume:
                project(at, self.secret)
            elif "configMap" in volume:
                project(at, one(self.objects, "ConfigMap", volume["configMap"]["name"]).get("data", {}))

    def change_secret(self, name: str, value: str | None) -> None:
        """None: it goes."""
        if value is None:
            self.secret.pop(name)
        else:
            self.secret[name] = value
        self._project()

    def apply(self, objects: list[Object]) -> None:
        """What another `kubectl apply` changes in the volumes of the pod that is there. Another pod is a failure."""
        assert pod(objects) == pod(self.objects), "this one would be replaced"
        self.objects = objects
        self._project()

    def here(self, text: str) -> str:
        """With the paths of the pod as ours."""
        return re.sub(rf"(?<![\w.])({'|'.join(PLACES)})(?=[/'\"; ]|$)", rf"{self.root}\1", text, flags=re.MULTILINE)

    def environment(self) -> dict[str, str]:
        given = {each["name"]: each["value"] for each in container(self.objects)["env"]}
        found = {name: self.here(value) for name, value in (IMAGE | self._links() | given).items()}
        found["INNGEST_EVENT_API_BASE_URL"] = self.event_api
        return {**found, "CREDENTIALS_DIRECTORY": f"{self.root}/run/secrets", "TMPDIR": f"{self.root}/tmp"}  # noqa: S108 - the pod's, which is a folder of ours

    def _links(self) -> dict[str, str]:
        """https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables"""
        if pod(self.objects)["spec"].get("enableServiceLinks", True) is False:
            return {}
        found = dict[str, str]()
        for each in of_kind(self.objects, "Service"):
            name = each["metadata"]["name"].upper().replace("-", "_")
            if each["spec"].get("clusterIP") != "None":
                found |= {f"{name}_SERVICE_HOST": "10.96.0.7", f"{name}_PORT": "tcp://10.96.0.7:80"}
        return found

    def run(self, command: str, *, init: int | None = None) -> str:
        """What a README's line with `kubectl exec` prints, with what stands behind its `--` run here. `init`: who is process 1."""
        if init is not None:
            command = re.sub(r"(?<=kill -HUP )1\b", str(init), command)
        assert not re.search(r"\bkill\b.* 1\b", command), "that would be the process 1 of this machine"
        as_if_inside = 'kubectl() { while [ "$1" != -- ]; do shift; done; shift; "$@"; }'
        environment = self.environment() | {"PATH": f"{BRIDGE.parent}:{os.environ['PATH']}"}
        script = f"set -euo pipefail\ncd {self.root}/..\n{as_if_inside}\n{self.here(command)}"
        return run("bash", "-c", script, environment=environment)

"""Containers without a Docker daemon: what `docker` here does is done by Debian's podman and buildah, as root.

Images are kept in .deploy/ from one run to the next. The base that deploy/Dockerfile names is in a registry; in its place
is one that debootstrap makes, of the same Debian and the same Python, without what the other is without.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tools import PLACES, ROOT, path_of, run

KEPT = ROOT / ".deploy"
DEBIAN = "trixie"
PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
# Not in the official image either.
LEFT_OUT = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
)
# cgroups are the machine's own affair, and podman would raise limits that are not ours to raise.
CONFIGURATION = """
[containers]
cgroups = "disabled"
default_ulimits = ["nofile={files}:{files}", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{kept}/storage"
runroot = "{kept}/run"
"""


class Engine:
    """Used by `with`: no container, network or volume outlives it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="engine-"))
        self.environment: dict[str, str] = {}
        self._holder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        KEPT.mkdir(exist_ok=True)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        (self.folder / "containers.conf").write_text(CONFIGURATION.format(files=files))
        (self.folder / "storage.conf").write_text(STORAGE.format(kept=KEPT))
        (self.folder / "docker").symlink_to(Path(__file__).with_name("docker"))
        # All mounts in a namespace of their own, which ends with this process. In it no cgroups are to be seen: crun
        # wants none of the kind that some machines have, and here needs none.
        held = "mount -t tmpfs none /sys/fs/cgroup && echo ready && exec sleep infinity"
        self._holder = subprocess.Popen(
            [path_of("unshare"), "--mount", "--propagation", "private", "--kill-child", "sh", "-c", held],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        with self._holder.stdout as said:
            assert said.readline() == b"ready\n"
        self.environment = {
            "ENGINE": str(self._holder.pid),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "PATH": f"{self.folder}:{PLACES}",
        }
        self._tidy()
        return self

    def __exit__(self, *_: object) -> None:
        self._tidy()
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()
        shutil.rmtree(self.folder)

    def _tidy(self) -> None:
        for what in (
            ("rm", "--all", "--force", "--time", "0"),
            ("pod", "rm", "--all", "--force"),
            ("volume", "prune", "--force"),
            ("network", "prune", "--force"),
        ):
            self.docker(*what)

    def docker(self, *arguments: str | Path, status: int | None = 0, stdin: str = "") -> str:
        """What it prints on both outputs, less what podman says of a systemd that is not here."""
        said = run("bash", self.folder / "docker", *arguments, environment=self.environment, status=status, stdin=stdin)
        return "".join(line for line in said.splitlines(keepends=True) if "systemd" not in line)

    def shell(self, script: str, *, cwd: Path, environment: Mapping[str, str] | None = None, stdin: str = "") -> str:
        """What a user types, with `docker` being this one."""
        return run(
            "bash",
            "-euo",
            "pipefail",
            "-c",
            f"cd {cwd}\n{script}",
            environment=self.environment | dict(environment or {}),
            stdin=stdin,
        )

    def has(self, image: str) -> bool:
        return bool(self.docker("images", "--quiet", image).strip())

    def base(self) -> None:
        """The image that others are built on: made when there is none."""
        if self.has("localhost/base"):
            return
        root = self.folder / "base"
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", DEBIAN, root, "http://deb.debian.org/debian")
        for each in LEFT_OUT:
            shutil.rmtree(root / each, ignore_errors=True)
        for compiled in [*root.glob("usr/lib/python3*/**/*.pyc"), *root.glob("var/cache/*.bin")]:
            compiled.unlink()
        for arguments in (
            ["from", "--name", "base", "scratch"],
            ["add", "base", root, "/"],
            ["commit", "--rm", "base", "localhost/base"],
        ):
            self.docker("buildah", *arguments)
        shutil.rmtree(root)

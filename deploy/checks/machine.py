"""A machine with systemd, made from this one in a moment and gone without a trace: for what only a booted system can show."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from processes import children, command_line, kill
from tools import path_of, run, until

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Seconds until it has started, or ended.
_PATIENCE = 60.0


class Machine:
    """`pid`: of its systemd."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def run(self, command: str, *, stdin: str = "", status: int = 0, online: bool = False) -> str:
        """What bash prints, as root in there, in this working directory. `online`: with this machine's network."""
        namespaces = ["--mount", "--pid", "--ipc", "--uts", "--cgroup", *([] if online else ["--net"])]
        inside = ["nsenter", f"--target={self.pid}", *namespaces, "--root", f"--wdns={Path.cwd()}"]
        shell = [path_of("bash"), "-euo", "pipefail", "-c", command]
        return run(*inside, *shell, stdin=stdin, status=status, environment={"PATH": _PATH})


@contextmanager
def machine() -> Iterator[Machine]:
    """One that has started. Nothing of it is left at the end."""
    with TemporaryDirectory(prefix="bridge-machine-") as folder:
        group = _cgroups() / Path(folder).name
        group.mkdir()
        boot = [path_of("setpriv"), "--pdeathsig=KILL", str(Path(__file__).with_name("boot")), folder, str(group)]
        starting = subprocess.Popen(boot, stdin=subprocess.DEVNULL)
        try:
            yield _started(starting)
        finally:
            kill(starting.pid)
            starting.wait()
            until(partial(_remove, group), patience=_PATIENCE, otherwise=lambda: "it is not gone")


def _cgroups() -> Path:
    mounts = (line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines())
    return next(Path(where) for where, kind in mounts if kind == "cgroup2")


def _started(starting: subprocess.Popen[bytes]) -> Machine:
    def is_systemd() -> bool:
        assert starting.poll() is None, "it did not start"
        return any(command_line(child)[:1] == ["/lib/systemd/systemd"] for child in children(starting.pid))

    until(is_systemd, patience=_PATIENCE, otherwise=lambda: "no systemd has started")
    found = Machine(children(starting.pid)[0])
    until(
        lambda: found.run("test -S /run/systemd/private && echo yes || true"),
        patience=_PATIENCE,
        otherwise=lambda: "its systemd does not answer",
    )
    found.run("systemctl is-system-running --wait")
    return found


def _remove(group: Path) -> bool:
    """What is in a cgroup are its children, and files that go with it."""
    for each in sorted(group.glob("**/"), reverse=True):  # the group itself is among them, the last
        try:
            each.rmdir()
        except OSError:  # a process has not quite ended
            return False
    return True

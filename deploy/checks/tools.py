"""Runs the programs that what is in deploy/ is for. One that is not here is a failure: a check that is left out tells nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
# Those from PyPI are beside Python; /usr/sbin has nginx, and is not in everybody's PATH.
PLACES = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"


def path_of(program: str) -> str:
    found = shutil.which(program, path=PLACES)
    assert found, f"{program} is not installed: deploy/checks/install installs what Debian has of it"
    return found


def run(
    program: str,
    *arguments: str | Path,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    status: int | None = 0,
) -> str:
    """What it prints, on standard output and standard error. Fails where it ends with another exit status. None: any will do."""
    done = subprocess.run(
        [path_of(program), *arguments],
        input=stdin,
        env={**os.environ, "PATH": PLACES, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert status in {None, done.returncode}, (
        f"{program} {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}"
    )
    return done.stdout


def until(
    wanted: Callable[[], object], *, patience: float = 30.0, otherwise: Callable[[], str] = lambda: "not in time"
) -> None:
    """Look again and again until it is so, for so many seconds; then fail with what there is to say."""
    deadline = time.monotonic() + patience
    while not wanted():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)

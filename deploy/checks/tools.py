"""Runs the programs that what is in deploy/ is for. One that is not here is a failure: a check that is left out tells nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def path_of(program: str) -> str:
    """Where it is. /usr/sbin too, which has nginx and is not in everybody's PATH."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found, f"{program} is not installed: deploy/checks/install installs what Debian has of it"
    return found


def run(
    program: str, *arguments: str | Path, stdin: str = "", environment: Mapping[str, str] | None = None, status: int = 0
) -> str:
    """What it prints, on standard output and standard error. Fails where it ends with another exit status."""
    done = subprocess.run(
        [path_of(program), *arguments],
        input=stdin,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == status, f"{program} {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}"
    return done.stdout

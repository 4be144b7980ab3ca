"""The fuzzer itself, for a few thousand runs, over the bridge as it is and over one that is broken.

`make fuzz` installs atheris and runs these. Where it is not installed they are skipped, and pytest says so.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="atheris is not installed: `make fuzz` installs it and runs this")

ROOT = Path(__file__).parents[1]


def fuzz(tree: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fuzz", *arguments, *(["--folder", str(folder)] if arguments[0] == "run" else [])],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def figure(said: str, name: str) -> int:
    found = re.search(rf"^{name} +([0-9,]+)", said, re.MULTILINE)
    assert found is not None, said
    return int(found[1].replace(",", ""))


def broken(folder: Path, module: str, *, old: str, new: str) -> Path:
    """A copy of what is fuzzed, with something else in it."""
    for part in ("bridge", "fuzz"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    right = (folder / module).read_text()
    assert old in right
    (folder / module).write_text(right.replace(old, new))
    return folder


def features(said: str) -> tuple[int, int]:
    """At the end, and at first."""
    found = re.search(r"^features +([0-9,]+), at first ([0-9,]+)", said, re.MULTILINE)
    assert found is not None, said
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


def test_a_short_run_breaks_no_promise_in_bounded_memory(tmp_path: Path) -> None:
    done = fuzz(ROOT, tmp_path, "run", "--runs", "6000", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert figure(done.stdout, "runs") >= 6000
    assert figure(done.stdout, "branches reached") > 150
    assert figure(done.stdout, "inputs that failed") == 0
    assert 20 < figure(done.stdout, "most memory") < 256
    log = (tmp_path / "log").read_text()
    for module in ("verify", "schemes", "payload", "model", "providers.stripe", "providers.slack"):
        assert f"INFO: Instrumenting bridge.{module}\n" in log


def test_ctrl_c_ends_it_and_it_says_how_far_it_came(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fuzz", "run", "--seconds", "100", "--folder", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, text=True) as run:
        log = tmp_path / "log"
        while run.poll() is None and not (log.exists() and "INITED" in log.read_text()):
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGINT)
        said, _ = run.communicate(timeout=60)
    assert run.returncode == 130
    assert figure(said, "runs") > 0


def test_the_next_run_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    first, second = (fuzz(ROOT, tmp_path, "run", "--runs", "9000", "--seed", seed) for seed in ("1", "2"))
    assert features(second.stdout)[1] > features(first.stdout)[1]


def test_a_bridge_that_is_broken_is_found_out_and_what_shows_it_can_be_tried_again(tmp_path: Path) -> None:
    tree = broken(tmp_path / "tree", "bridge/providers/stripe.py", old='text(payload, "id")', new='payload["id"]')
    done = fuzz(tree, tmp_path, "run", "--runs", "6000", "--seed", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "KeyError in stripe.py" in done.stdout
    command = re.search(r"python -m fuzz (repro) (\S+)$", done.stdout, re.MULTILINE)
    assert command is not None
    again = fuzz(tree, tmp_path, *command.groups())
    assert (again.returncode, "KeyError" in again.stdout) == (1, True)
    assert fuzz(ROOT, tmp_path, *command.groups()).returncode == 0


@pytest.mark.parametrize(
    ("instead", "fault"),
    [("while found: pass", "timeout: "), ('return (b"x" * (600 << 20)).decode()', "oom: ")],
    ids=["a hang", "too much memory"],
)
def test_a_hang_and_what_takes_too_much_memory_are_found_too(tmp_path: Path, instead: str, fault: str) -> None:
    """`INNGEST/a` is a type the fuzzer begins with."""
    old = "    if found is None:\n"
    new = f"    if found == 'INNGEST/a':\n        {instead}\n{old}"
    tree = broken(tmp_path / "tree", "bridge/payload.py", old=old, new=new)
    done = fuzz(tree, tmp_path, "run", "--seconds", "30", "--seed", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert fault in done.stdout
    assert figure(done.stdout, "inputs that failed") == 1

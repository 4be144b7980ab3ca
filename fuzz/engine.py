"""The process that fuzzes: libFuzzer, which atheris brings, led by what the bridge's own code does with each input.

Started by `python -m fuzz run`: `python -m fuzz.engine FAILURES [flag of libFuzzer]... [folder]...`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import atheris

from fuzz.report import FAULT

# Imported first, so that they are watched: what is imported later is not.
_WATCHED = ("model", "errors", "payload", "schemes", "verify", "providers", "event")


def main() -> None:
    """Until libFuzzer has done what its flags say. It ends the process itself."""
    program, failures, *flags = sys.argv
    with atheris.instrument_imports(include=["bridge"]):
        for name in _WATCHED:
            import_module(f"bridge.{name}")
        import_module("bridge.providers").load()
    target = import_module("fuzz.target").Target(Path(failures), tell=_tell)
    atheris.Setup([program, *flags], target)
    atheris.Fuzz()


def _tell(file: Path, fault: str) -> None:
    sys.stderr.write(f"{FAULT}{file}\t{fault}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()

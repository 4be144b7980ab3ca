"""The function the fuzzer gives its bytes to: keeps what breaks a promise, one input a fault, and goes on.

Had it raised, the fuzzer would end at the first fault and never see the others.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from fuzz.cases import Case, check
from fuzz.promises import Broken


class Target:
    """`folder`: where inputs are kept. `tell` gets the file and what is wrong with it."""

    def __init__(self, folder: Path, *, tell: Callable[[Path, str], None]) -> None:
        self._folder = folder
        self._tell = tell
        self._seen: set[str] = set()

    def __call__(self, data: bytes) -> None:
        fault = fault_of(data)
        if fault and fault not in self._seen:
            self._seen.add(fault)
            file = self._folder / f"fault-{sha256(data).hexdigest()[:16]}"
            file.write_bytes(data)
            self._tell(file, fault)


def fault_of(data: bytes) -> str:
    """The promise that is broken for these bytes, or the exception and where it came from. Empty: all is well."""
    try:
        check(Case.read(data))
    except Broken as broken:
        return f"broken: {broken}"
    except Exception as error:  # noqa: BLE001 - which one it is, is what is looked for
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"
    return ""

"""Figures as they are measured, a row each: what is written to `figures.json`, and what tables and plots are made of."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import psutil

Row: TypeAlias = dict[str, Any]
"""`figure`: which measurement; `subject`: of what; the rest as the measurement has it. Seconds, bytes, MB."""
Note: TypeAlias = Callable[[str], None]
"""Is told each step that is done."""

_LIBRARIES = ("aiohttp", "uvloop", "orjson", "psycopg", "fastapi", "uvicorn", "stripe", "inngest")


def machine(*, postgresql: str = "") -> Row:
    """What it was measured on. `postgresql`: its version."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(memory / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "disk": {"file_system": file_system(), "sync": _sync()},
        "versions": {
            "Python": platform.python_version(),
            "SQLite": sqlite3.sqlite_version,
            "PostgreSQL": postgresql,
            **{name: version(name) for name in _LIBRARIES},
        },
    }


def file_system() -> str:
    """Its kind, where temporary files are, and so all journals."""
    folder = Path(tempfile.gettempdir()).resolve()
    mounted = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    return next((mounted[place] for place in (folder, *folder.parents) if place in mounted), "unknown")


def _sync() -> float:
    """Seconds it takes there to sync 4 KB."""
    took = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(100):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def _processor() -> str:
    """What Linux calls it; elsewhere its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def select(rows: Sequence[Row], **wanted: object) -> list[Row]:
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def median(rows: Sequence[Row], field: str, **wanted: object) -> float | None:
    """None: it was not measured."""
    found = [row[field] for row in select(rows, **wanted)]
    return statistics.median(found) if found else None


def ratio(rows: Sequence[Row], field: str, of: Row, to: Row) -> float | None:
    """The median over the rounds of one figure / another of the same round: what a machine does for a while, it does to both."""
    above = {row["round"]: row[field] for row in select(rows, **of)}
    below = {row["round"]: row[field] for row in select(rows, **to)}
    both = [above[each] / below[each] for each in above.keys() & below.keys()]
    return statistics.median(both) if both else None

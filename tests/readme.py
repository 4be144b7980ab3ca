"""The README, cut into what the tests look at: its prose, its sections and tables, and the code it shows."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
_FENCE = re.compile(r"^```([a-z]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROSE = _FENCE.sub("", README)


def blocks(language: str) -> list[str]:
    return [text for kind, text in _FENCE.findall(README) if kind == language]


def section(heading: str) -> str:
    """Its prose."""
    return PROSE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def table(heading: str) -> list[str]:
    """The rows of a section's tables that begin with a name in backticks."""
    return [line for line in section(heading).splitlines() if line.startswith("| `")]

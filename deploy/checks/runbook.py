"""What deploy/README.md says to whoever is woken: its pages, the commands on them, and what its links lead to."""

from __future__ import annotations

import re

from tools import DEPLOY

README = (DEPLOY / "README.md").read_text()
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(heading: str) -> str:
    return README.split(f"\n## {heading}\n")[-1].split("\n## ")[0] if heading in README else ""


def pages() -> dict[str, str]:
    """By the alert."""
    _, *parts = re.split(r"^### (.+)$", section("When an alert comes"), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def commands() -> list[str]:
    """Every line there is to be typed when an alert comes, once."""
    lines = [line for page in pages().values() for line in blocks("sh", page) for line in line.splitlines()]
    return list(dict.fromkeys(lines))


def blocks(language: str, text: str) -> list[str]:
    return [block for kind, block in _BLOCK.findall(text) if kind == language]

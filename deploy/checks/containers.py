"""The fixture that checks of containers share, as a plugin: a second conftest.py would be a second module of that name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine import Engine
from tools import DEPLOY, ROOT, run


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """With the image of deploy/Dockerfile built in it, once."""
    with Engine() as found:
        found.base()
        revision = run("git", "-C", ROOT, "rev-parse", "HEAD").strip()
        options = ["--build-arg", f"REVISION={revision}", "--tag", "webhook-event-bridge"]
        found.docker("build", *options, "--file", DEPLOY / "Dockerfile", ROOT)
        yield found

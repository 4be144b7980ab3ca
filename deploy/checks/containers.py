"""The fixture that checks of containers share, as a plugin: a second conftest.py would be a second module of that name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine import Engine
from tools import DEPLOY, ROOT


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """With the image of deploy/Dockerfile built in it, once."""
    with Engine() as found:
        found.base()
        found.docker("build", "--file", DEPLOY / "Dockerfile", "--tag", "webhook-event-bridge", ROOT)
        yield found

"""What several commands begin with: the settings, a body from a file."""

from __future__ import annotations

import os
from pathlib import Path

from bridge import config, log
from bridge.errors import BridgeError
from bridge.settings import Settings


def configured() -> Settings:
    log.configure()
    return config.load(os.environ, serving=False)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BridgeError(f"{path}: {error.strerror}") from None

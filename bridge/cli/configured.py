"""What several commands begin with: the settings, the address of the bridge on this machine, a body from a file."""

from __future__ import annotations

import os
from pathlib import Path

from bridge import config, log
from bridge.errors import BridgeError
from bridge.settings import Settings


def configured() -> Settings:
    log.configure()
    return config.load(os.environ, serving=False)


def local_url(bound: str, port: int) -> str:
    """A listener of the bridge on this machine, as one connects to it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound, bound)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BridgeError(f"{path}: {error.strerror}") from None

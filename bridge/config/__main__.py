"""`python -m bridge.config DESCRIPTOR PARENT`: reads the configuration, hands it over pickled, and ends.

What reading takes, pydantic above all, is 8 MB, and gone with this process: the service lives on without it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from bridge import config, process
from bridge.config import secrets
from bridge.reading import stamps
from bridge.settings import packed


def main(descriptor: int, parent: int) -> None:
    """The settings, a line for each fault, the names of the variables that held secrets, and the files that do, or may."""
    process.belong_to(parent)
    raw, unreadable = config.open_file(os.environ)
    names = secrets.variables(raw)
    # Before they are read: what is changed meanwhile is seen to be another.
    files = stamps(secrets.files(raw, os.environ))
    settings, faults = config.read(os.environ, file=(raw, unreadable))
    with process.adopt(descriptor) as channel, suppress(ConnectionError):  # nobody waits for it any more
        channel.sendall(packed((settings, faults, names, files)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

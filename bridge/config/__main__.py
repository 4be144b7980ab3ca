"""`python -m bridge.config DESCRIPTOR PARENT`: reads the configuration, hands it over pickled, and ends.

What reading takes, pydantic above all, is 8 MB, and gone with this process: the service lives on without it.
"""

from __future__ import annotations

import os
import pickle
import sys

from bridge import config, process
from bridge.reading import stamps


def main(descriptor: int, parent: int) -> None:
    """The settings, a line for each fault, the names of the variables that held secrets, and the files that do, or may."""
    process.die_with_parent(parent)
    # Before they are read: what is changed meanwhile is seen to be another.
    files = stamps(config.secret_files(os.environ))
    settings, faults = config.read(os.environ)
    known = set(os.environ)
    config.forget_secrets(os.environ)
    with process.adopt(descriptor) as channel:
        channel.sendall(pickle.dumps((settings, faults, known - set(os.environ), files)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

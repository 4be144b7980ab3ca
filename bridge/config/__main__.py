"""`python -m bridge.config DESCRIPTOR`: reads the configuration, hands it over pickled, and ends.

What reading takes, pydantic above all, is 8 MB, and gone with this process: the service lives on without it.
"""

from __future__ import annotations

import os
import pickle
import sys

from bridge import config


def main(descriptor: int) -> None:
    """The settings, a line for each fault, and the names of the variables that held secrets."""
    settings, faults = config.read(os.environ)
    known = set(os.environ)
    config.forget_secrets(os.environ)
    with open(descriptor, "wb") as told:
        pickle.dump((settings, faults, known - set(os.environ)), told)


if __name__ == "__main__":
    main(int(sys.argv[1]))

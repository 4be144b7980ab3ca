"""`python -m bridge.config`: reads the configuration, hands it over pickled on standard output, and ends.

What reading takes, pydantic above all, is 8 MB, and gone with this process: the service lives on without it.
"""

from __future__ import annotations

import os
import pickle
import sys

from bridge import config


def main() -> None:
    """The settings, a line for each fault, and the names of the variables that held secrets."""
    settings, faults = config.read(os.environ)
    known = set(os.environ)
    config.forget_secrets(os.environ)
    pickle.dump((settings, faults, known - set(os.environ)), sys.stdout.buffer)


if __name__ == "__main__":
    main()

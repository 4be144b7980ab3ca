"""What a running bridge leaves in memory for others on the machine, and who tidies up after one that was killed."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from bridge import runtime
from bridge.runtime import Directory

KILLED = """
import os, socket
from bridge.runtime import Directory
directory = Directory()
directory.announce(socket.create_server(("127.0.0.1", 0)))
print(directory.path, flush=True)
os._exit(9)
"""


def test_what_a_service_left_that_was_killed_is_believed_by_nobody_and_tidied_up_by_the_next() -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    left = Path(killed.stdout.strip())
    assert left.is_dir()
    assert runtime.addresses() == []
    living = Directory()
    assert not left.exists()
    other = Directory()
    assert living.path.is_dir(), "it is in use"
    assert living.path.stat().st_mode & 0o777 == 0o700
    for each in (living, other):
        each.close()
        assert not each.path.exists()


def test_where_a_service_listens_is_found_from_where_it_was_started() -> None:
    living = Directory()
    with (
        socket.create_server(("127.0.0.1", 0)) as public,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as private,
    ):
        assert runtime.addresses() == []
        living.announce(public, private)
        assert runtime.addresses() == [("127.0.0.1", public.getsockname()[1]), ("::1", private.getsockname()[1])]
    living.close()
    assert runtime.addresses() == []

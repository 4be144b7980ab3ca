"""Sockets to listen on, bound before anything else starts: a port that is taken is known at once."""

from __future__ import annotations

import errno
import socket
import sys

# Connections that wait to be accepted while a receiver starts again.
_BACKLOG = 1024
# Milliseconds in which whoever is answered must take something of it. One who takes nothing would hold what we have to say
# for as long as its machine runs.
_TAKEN_WITHIN = 30_000


def address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def why_not(error: OSError, *, variable: str) -> str:
    if error.errno != errno.EADDRINUSE:
        return error.strerror or str(error)
    return f"taken already; is another bridge running? Set {variable} to another port, or to 0 for any free one"


def bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":  # each connection has it from here
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TAKEN_WITHIN)
        bound.bind((host, port))
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound

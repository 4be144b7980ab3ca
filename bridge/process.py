"""What the processes of one service have in common: how one is started, a channel to it, and that none outlives its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

_PR_SET_PDEATHSIG = 1  # https://man7.org/linux/man-pages/man2/pr_set_pdeathsig.2const.html


def die_with_parent(parent: int) -> None:
    """Be killed when the parent dies, whatever we are doing then: a transform in an endless loop reads no end of file.

    Linux alone; elsewhere the end of file on the channel has to do. `parent`: the pid that started us.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


def command(module: str, *arguments: str) -> list[str]:
    """How to start a module of ours. -P: a `stripe.py` in the working directory must not hide the stripe package."""
    return [sys.executable, "-P", "-m", module, *arguments]


def adopt(descriptor: int) -> socket.socket:
    """The socket a parent passed on."""
    sock = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - the signature is os's
    return sock

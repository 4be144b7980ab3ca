"""What the processes of one service have in common: how one is started, a channel to it, whose it is, how it is ended."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1  # https://man7.org/linux/man-pages/man2/pr_set_pdeathsig.2const.html


def belong_to(parent: int) -> None:
    """Be killed when the parent dies, whatever we are doing then: a transform in an endless loop reads no end of file.
    And leave SIGHUP to the supervisor: a service manager may send it to all of us.

    Linux alone; elsewhere the end of file on the channel has to do. `parent`: the pid that started us.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


def command(module: str, *arguments: str) -> list[str]:
    """How to start a module of ours. -P: a `stripe.py` in the working directory must not hide the stripe package."""
    return [sys.executable, "-P", "-m", module, *arguments]


def send(number: int, pid: int) -> None:
    """A signal to a process of ours that may have ended. The standard library would first look whether it has, and so take
    its exit status away from asyncio, which waits for it.
    """
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def adopt(descriptor: int) -> socket.socket:
    """The socket a parent passed on."""
    sock = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - the signature is os's
    return sock

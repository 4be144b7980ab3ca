"""A transform that tries what one may want to do, and tells in its event what came of each: `done`, or the error's name."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge import Delivery, Event

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER = 0x10000000
_TEMPORARY, _MEMORY = Path("/tmp"), Path("/dev/shm")  # noqa: S108 - it is these that are tried


def transform(delivery: Delivery) -> Event:
    del delivery
    return Event(name="checks/attempts", data={name: _outcome(attempt) for name, attempt in _ATTEMPTS.items()})


def _outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    except LookupError as error:
        return type(error).__name__
    return "done"


def _sort_with_a_callback() -> None:
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    numbers = (ctypes.c_int * 3)(3, 1, 2)
    _LIBC.qsort(numbers, 3, 4, kind(lambda a, b: int(a[0] - b[0])))
    if list(numbers) != [1, 2, 3]:
        raise ArithmeticError


def _read_another_process() -> None:
    """Of root: systemd itself."""
    Path("/proc/1/stat").read_text()


def _call(name: str, *arguments: Any) -> None:
    if getattr(_LIBC, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def _write(path: str | Path) -> Callable[[], object]:
    return lambda: Path(path).write_text("")


_ATTEMPTS: dict[str, Callable[[], object]] = {
    "a callback of ctypes": _sort_with_a_callback,
    "a process": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "a name looked up": lambda: socket.getaddrinfo("localhost", 443, flags=socket.AI_ADDRCONFIG),
    "a port of IPv6": lambda: socket.create_server(("::1", 0), family=socket.AF_INET6).close(),
    "to write state": _write("/var/lib/bridge/attempt"),
    "to write /tmp": _write(_TEMPORARY / "attempt"),
    "to write /dev/shm": _write(_MEMORY / "attempt"),
    "to write its configuration": _write("/etc/bridge/attempt"),
    "to write its code": _write("/opt/bridge/attempt"),
    "to write exports": _write("/srv/exports/attempt"),
    "to read homes": Path("/home/shared/file").read_text,
    "to read root's secrets": lambda: [*Path("/etc/credstore").iterdir()],
    "to read how much memory there is": Path("/proc/meminfo").read_text,
    "to read the kernel's log": lambda: os.open("/dev/kmsg", os.O_RDONLY),
    "to see another's process": _read_another_process,
    "a variable": lambda: os.environ["STRIPE_API_KEY"],
    "code made in memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "a namespace": lambda: _call("unshare", _CLONE_NEWUSER),
    "a mount": lambda: _call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "to be root": lambda: os.setuid(0),
    "a setuid file": lambda: (_TEMPORARY / "attempt").chmod(0o4755),
    "a lower priority": lambda: os.nice(1),
}

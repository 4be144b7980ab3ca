"""`python -m bridge.journal.sqlite.writer DESCRIPTOR PARENT FILE`: the process that appends for a busy receiver.

In a thread it would share an interpreter with the event loop, and the two would wait for each other at every step: that
took a receiver more time than all it does itself. Here each has an interpreter, and they exchange a message a batch.
"""

from __future__ import annotations

import marshal
import signal
import sys
from functools import partial
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from bridge import log, process
from bridge.errors import JournalUnavailable
from bridge.journal.rows import Row
from bridge.journal.sqlite import appends
from bridge.journal.sqlite.file import SqliteFile

LENGTH = Struct("!I")


def message(content: list[Row] | frozenset[int] | str) -> bytes:
    """A batch of rows; or the answer, places of duplicates or what is wrong. Both ends are the same Python, so marshal will do."""
    written = marshal.dumps(content)
    return LENGTH.pack(len(written)) + written


def main(descriptor: int, parent: int, path: Path) -> None:
    """Until the receiver closes the channel."""
    process.belong_to(parent)
    log.configure("writer")
    for each in (signal.SIGINT, signal.SIGTERM):  # to stop us is the receiver's
        signal.signal(each, signal.SIG_IGN)
    channel = process.adopt(descriptor)
    file = SqliteFile(path, synchronous="FULL")
    with channel, channel.makefile("rb") as asked:
        while (rows := _next(asked)) is not None:
            try:
                answer: frozenset[int] | str = file.run(partial(appends.append, rows=rows))
            except JournalUnavailable as unavailable:
                answer = str(unavailable)
            channel.sendall(message(answer))
    file.close()


def _next(asked: BinaryIO) -> list[Row] | None:
    """None: there are no more."""
    length = asked.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    content = asked.read(*LENGTH.unpack(length))
    rows: list[Row] = marshal.loads(content)  # noqa: S302 - from our own parent, over a private channel
    return rows


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

"""A disk of its own for a journal, which can be filled, and whose power can be cut: what was not synced is gone then."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path

# EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH: from now on nothing reaches the disk, neither data nor the file
# system's own journal (https://www.kernel.org/doc/html/latest/admin-guide/ext4.html, fs/ext4/ioctl.c).
_SHUTDOWN, _NOLOGFLUSH = 0x8004587D, 2
_SIZE = 1 << 30
_PATIENCE = 10.0


class Disk:
    """An ext4 in a file of its own, mounted at `path`, which anybody may write to: PostgreSQL runs as somebody else."""

    def __init__(self) -> None:
        """Raises OSError where it can't be had: that takes root, loop devices, and mkfs.ext4."""
        self._folder = Path(tempfile.mkdtemp(prefix="bridge-disk-"))
        self._folder.chmod(0o755)
        self._image = self._folder / "image"
        self.path = self._folder / "disk"
        self.path.mkdir()
        try:
            with self._image.open("wb") as image:
                image.truncate(_SIZE)
            _run("mkfs.ext4", "-q", "-m", "0", str(self._image))
            self.mount()
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(self._folder)
            raise OSError("no disk can be mounted here") from error
        self.path.chmod(0o777)

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    @property
    def is_mounted(self) -> bool:
        return self.path.is_mount()

    def unmount(self) -> None:
        """Once nobody has a file open there."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                _run("umount", str(self.path))
            except subprocess.CalledProcessError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return

    def cut_power(self) -> None:
        """Nothing is written any more; what was not synced is gone once it is mounted again."""
        at = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(at, _SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(at)

    def fill(self) -> None:
        """To the last block."""
        with (self.path / "filler").open("ab", buffering=0) as filler:
            size = _SIZE
            while size >= 4096:  # noqa: PLR2004 - a block
                try:
                    os.posix_fallocate(filler.fileno(), filler.tell(), size)
                    filler.seek(0, os.SEEK_END)
                except OSError:
                    size //= 2

    def make_room(self) -> None:
        """For good: a power cut does not bring back what filled it."""
        (self.path / "filler").unlink(missing_ok=True)
        at = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(at)
        finally:
            os.close(at)

    def remove(self) -> None:
        """It and all that is on it, even where somebody has it open."""
        if self.is_mounted:
            _run("umount", "--lazy", str(self.path))
        shutil.rmtree(self._folder)


def _run(*command: str) -> None:
    path = f"{os.environ.get('PATH', os.defpath)}:/sbin:/usr/sbin"
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": path})  # noqa: S603 - our own

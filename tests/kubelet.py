"""Writes a Secret or a ConfigMap into a volume, and changes it, as a kubelet does: all of its files at once, behind a link."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp


def project(volume: Path, files: Mapping[str, str]) -> None:
    """In the order that is told at the head of `Write`: pkg/volume/util/atomic_writer.go of kubernetes/kubernetes."""
    data, new = volume / "..data", volume / "..data_tmp"
    before = volume / data.readlink() if data.is_symlink() else None
    if before is not None and {file.name: file.read_text() for file in before.iterdir()} == dict(files):
        return
    made = Path(mkdtemp(prefix=f"..{datetime.now(UTC):%Y_%m_%d_%H_%M_%S}.", dir=volume))
    made.chmod(0o755)
    for name, text in files.items():
        (made / name).write_text(text)
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(Path("..data", name))
    new.symlink_to(made.name)
    new.replace(data)
    for stale in {link.name for link in volume.glob("[!.]*")} - files.keys():
        (volume / stale).unlink()
    if before is not None:
        shutil.rmtree(before)

"""Where a SQLite journal may be, and that one service at a time works on it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from processes import kill
from service import service

from bridge import journal as journals
from bridge.errors import JournalUnavailable
from bridge.journal.sqlite import place
from bridge.journal.sqlite.journal import SqliteJournal
from bridge.stand_in import StandIn

RESERVE = """
import asyncio, sys
from bridge import journal

async def main():
    opened = await journal.open(sys.argv[1])
    await opened.reserve()
    print("reserved", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def mounted(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the folder were on such a file system."""
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 0:999 / /elsewhere rw shared:1 - nfs4 server:/ rw\n"
        f"29 22 {number} / /with\\040space rw,noatime shared:7 master:1 - {kind} source rw\n"
    )
    monkeypatch.setattr(place, "_MOUNTS", table)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "ceph"])
async def test_a_network_disk_is_refused(
    tmp_path: Path, path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(tmp_path, kind, monkeypatch)
    with pytest.raises(JournalUnavailable) as refused:
        await journals.open(f"sqlite:///{path}")
    assert str(refused.value) == (
        f"{path}: on a network disk ({kind}), where SQLite can lose what is acknowledged: use a local one, or PostgreSQL"
    )
    assert not journals.exists(f"sqlite:///{path}")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "overlay", "tmpfs", "zfs"])
async def test_a_local_disk_is_not(tmp_path: Path, path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(tmp_path, kind, monkeypatch)
    await (await journals.open(f"sqlite:///{path}")).close()


@pytest.mark.parametrize("table", ["", "nonsense", "1 2 3 - \n - - -\n"])
async def test_where_the_system_does_not_tell_it_is_taken_for_local(
    tmp_path: Path, path: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_MOUNTS", tmp_path / "mountinfo")
    await (await journals.open(f"sqlite:///{path}")).close()
    (tmp_path / "mountinfo").write_text(table)
    await (await journals.open(f"sqlite:///{path}")).close()


async def test_a_second_service_is_refused_until_the_first_is_gone(path: Path) -> None:
    first, second = SqliteJournal(path), SqliteJournal(path)
    await first.reserve()
    await first.reserve()
    with pytest.raises(JournalUnavailable, match="another bridge is running on it"):
        await second.reserve()
    await first.close()
    await second.reserve()
    await second.close()
    assert [each.name for each in path.parent.iterdir()] == []


async def test_commands_need_no_reservation(path: Path) -> None:
    service_, command = SqliteJournal(path), SqliteJournal(path)
    await service_.reserve()
    await command.census()
    await command.check()
    await command.close()
    await service_.close()


async def test_a_service_that_was_killed_leaves_its_place(path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RESERVE, f"sqlite:///{path}", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None and await process.stdout.readline() == b"reserved\n"
    journal = SqliteJournal(path)
    with pytest.raises(JournalUnavailable, match="another bridge"):
        await journal.reserve()
    kill(process.pid)
    await process.wait()
    await journal.reserve()
    await journal.close()


async def test_who_finds_the_lock_removed_under_it_takes_the_new_one(path: Path) -> None:
    """Between its opening and its locking, the last owner removed it and another made a new one."""
    late, last, new = (place.Reservation(path) for _ in range(3))
    last.take()
    opened = late._open()
    last.give_back()
    new.take()
    handed = iter([opened])
    open_ = late._open
    late._open = lambda: next(handed, None) or open_()  # type: ignore[method-assign]  # what it opened before all that
    with pytest.raises(JournalUnavailable, match="another bridge"):
        late.take()
    new.give_back()
    late.take()
    late.give_back()


async def test_two_services_on_one_file_are_refused_with_a_line(tmp_path: Path) -> None:
    stand_in = StandIn()
    await stand_in.start()
    async with service(tmp_path, stand_in.url), service(tmp_path, stand_in.url, start=False) as second:
        said = await second.refuses_to_start()
    await stand_in.stop()
    [line] = [line for line in said.splitlines() if line.startswith("bridge: ")]
    assert line.startswith(f"bridge: journal: {tmp_path}/bridge.db: another bridge is running on it")
    assert "PostgreSQL" in line

"""The bell beside a SQLite journal: heard, never waited for, and cleared away."""

from __future__ import annotations

import asyncio
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.journal.sqlite.bell import Bell, address

FOR_EVER = 3600.0
# Far more than a ring takes, far less than for ever.
SOON = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Path]:
    """A journal so deep in folders that no socket can have its bell's name."""
    found = tmp_path / ("x" * 60) / ("y" * 60) / "journal.db"
    found.parent.mkdir(parents=True)
    yield found
    address(found).unlink(missing_ok=True)


async def is_heard(waiter: Bell, ringer: Bell) -> None:
    await waiter.wait(0)
    ringer.ring()
    async with asyncio.timeout(SOON):
        await waiter.wait(FOR_EVER)


async def test_a_ring_is_heard_once(path: Path) -> None:
    waiter, ringer = Bell(path), Bell(path)
    await is_heard(waiter, ringer)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await waiter.wait(FOR_EVER)
    waiter.close()
    ringer.close()


async def test_a_bell_hears_itself(path: Path) -> None:
    bell = Bell(path)
    await is_heard(bell, bell)
    bell.close()


async def test_its_socket_is_for_the_owner_alone_and_removed_with_it(path: Path) -> None:
    bell = Bell(path)
    await bell.wait(0)
    found = (path.parent / "journal.db-wake").stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    bell.close()
    assert list(path.parent.iterdir()) == []


async def test_a_path_too_long_for_a_socket_has_its_bell_elsewhere(far: Path) -> None:
    assert address(far).parent == Path(tempfile.gettempdir())
    assert address(far) != address(far.with_name("other.db"))
    waiter, ringer = Bell(far), Bell(far)
    await is_heard(waiter, ringer)
    waiter.close()
    ringer.close()
    assert not address(far).exists()


async def test_ringing_where_nobody_waits_does_nothing(path: Path) -> None:
    bell = Bell(path)
    bell.ring()
    bell.close()
    assert list(path.parent.iterdir()) == []


async def test_ringing_never_waits_for_who_does_not_listen(path: Path) -> None:
    waiter, ringer = Bell(path), Bell(path)
    await waiter.wait(0)
    for _ in range(5000):
        ringer.ring()
    async with asyncio.timeout(SOON):
        await waiter.wait(FOR_EVER)
    waiter.close()
    ringer.close()


async def test_the_socket_of_a_process_that_was_killed_is_taken_over(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
        killed.bind(str(address(path)))
    waiter, ringer = Bell(path), Bell(path)
    await is_heard(waiter, ringer)
    waiter.close()
    ringer.close()


async def test_the_socket_of_one_who_lives_is_left_alone(path: Path) -> None:
    first, second, ringer = Bell(path), Bell(path), Bell(path)
    await first.wait(0)
    await second.wait(0)
    await is_heard(first, ringer)
    second.close()
    await is_heard(first, ringer)
    first.close()
    ringer.close()


async def test_a_bell_leaves_alone_what_is_no_longer_its_own(path: Path) -> None:
    bell = Bell(path)
    await bell.wait(0)
    address(path).unlink()
    address(path).touch()
    bell.close()
    assert address(path).exists()


async def test_a_bell_whose_socket_was_removed_is_hung_up_again(path: Path) -> None:
    waiter, ringer = Bell(path), Bell(path)
    await waiter.wait(0)
    address(path).unlink()
    await is_heard(waiter, ringer)
    waiter.close()
    ringer.close()


async def test_where_no_socket_is_possible_waiting_still_ends(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "missing" / "journal.db")
    bell.ring()
    async with asyncio.timeout(SOON):
        await bell.wait(FOR_EVER)
        await bell.wait(0.01)
    bell.close()

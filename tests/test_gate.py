"""The gate before the Event API."""

from __future__ import annotations

import asyncio

from bridge import retry
from bridge.gate import Gate

NEVER = retry.Policy(first=3_600_000, longest=3_600_000)
AT_ONCE = retry.Policy(first=0, longest=0)


def gate(held: list[str] | None = None) -> Gate:
    return Gate(held=(held if held is not None else []).append, dice=lambda: 1.0)


async def test_an_open_gate_lets_everyone_through_at_once() -> None:
    door = gate()
    async with door.request(), door.request():
        assert door.reason == ""


async def test_a_shut_gate_lets_one_at_a_time_try() -> None:
    door = gate()
    door.shut("away", policy=AT_ONCE)
    inside = asyncio.Event()

    async def second() -> None:
        async with door.request():
            inside.set()

    async with door.request():
        waiting = asyncio.create_task(second())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not inside.is_set()
    await waiting
    assert inside.is_set()


async def test_a_shut_gate_waits_before_the_next_try() -> None:
    door = gate()
    assert door.shut("away", policy=NEVER) == 3600

    async def enter() -> None:
        async with door.request():
            raise AssertionError

    entering = asyncio.create_task(enter())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not entering.done()
    entering.cancel()
    await asyncio.gather(entering, return_exceptions=True)


async def test_the_wait_grows_with_each_failure_and_begins_anew_after_it_opened() -> None:
    door = gate()
    policy = retry.Policy(first=1000, longest=60_000)
    assert [door.shut("away", policy=policy) for _ in range(3)] == [1, 2, 4]
    door.open()
    assert door.shut("away", policy=policy) == 1


async def test_it_waits_as_long_as_it_was_asked_to() -> None:
    assert gate().shut("slow down", policy=AT_ONCE, retry_after=17) == 17


async def test_an_outage_after_a_configuration_fault_mends_nothing() -> None:
    told: list[str] = []
    door = gate(told)
    door.shut("wrong key", policy=retry.MISCONFIGURED)
    door.shut("timed out", policy=retry.OUTAGE)
    assert told == ["wrong key"]


async def test_a_configuration_fault_is_told_and_its_end_too_an_outage_is_not() -> None:
    told: list[str] = []
    door = gate(told)
    door.shut("refused", policy=retry.OUTAGE)
    door.shut("wrong key", policy=retry.MISCONFIGURED)
    assert door.reason == "wrong key"
    door.open()
    assert [each for each in told if each] == ["wrong key"]
    assert told[-1] == ""
    assert door.reason == ""

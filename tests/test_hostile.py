"""The real service under slow, malformed and endless HTTP: no 500, no crash, bounded memory, and webhooks are answered all the while."""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import malformed
import psutil
import pytest
import pytest_asyncio
from attack import attack, most_connections
from malformed import CANARY, Webhook
from receiving import connection
from service import delivery, elapsed, until
from target import Target, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

IDLE = 10_000
LEAKS = (b"aiohttp", b"ython", b"Traceback", b"Server:", b"0 Internal", CANARY, CANARY.upper())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    async with started(tmp_path_factory.mktemp("hostile")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def target(running: Target) -> AsyncIterator[Target]:
    async with running.survives():
        yield running


@pytest.mark.timeout(180)
@pytest.mark.filterwarnings("default:.*connections:UserWarning")
async def test_ten_thousand_idle_connections_and_a_thousand_slow_ones_keep_nobody_out(target: Target) -> None:
    """With the limits as they are: 15 to 30 s for a head, 10 s for a body."""
    count = min(IDLE, most_connections() - 1000)
    if count < IDLE:
        warnings.warn(f"only {count} connections: this system allows no more files", UserWarning, stacklevel=1)
    head = target.webhook("slow").head(b"Content-Length: 5000")
    async with AsyncExitStack() as stack:
        before = target.memory()
        idle = await stack.enter_async_context(attack(target.port, count))
        await idle.until_opened()
        assert idle.open == count
        assert target.memory() - before < count * 20_000
        heads = await stack.enter_async_context(attack(target.port, 500, then=head[:200]))
        bodies = await stack.enter_async_context(attack(target.port, 500, first=head, then=b"x"))
        chunk = target.webhook("slow").head(malformed.CHUNKED) + b"5;"
        extensions = await stack.enter_async_context(attack(target.port, 100, first=chunk, then=b"x"))
        await asyncio.gather(*(each.until_opened() for each in (heads, bodies, extensions)))
        await asyncio.gather(target.serves_until(lambda: not bodies.open), bodies.until_left(), extensions.until_left())
        assert bodies.answers + extensions.answers == {"HTTP/1.1 408 Request Timeout": 600}
        await asyncio.gather(target.serves_until(lambda: not heads.open), heads.until_left(), idle.until_left())
        assert not idle.answers + heads.answers
        after = target.memory()
        again = await stack.enter_async_context(attack(target.port, count))
        await again.until_opened()
        await target.serves()
        assert target.memory() - after < count * 2_000, "the second time it takes the memory of the first"


async def _told(port: int, *pieces: bytes, patience: float = 20) -> bytes:
    """All that is answered until the connection is closed. Each piece is read by itself."""
    async with asyncio.timeout(patience), connection(port) as (reader, writer):
        hearing = asyncio.create_task(_heard(reader))  # meanwhile: a reset takes with it what was not read
        with suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02 if len(pieces) > 1 else 0)
        return await hearing


async def _heard(reader: asyncio.StreamReader) -> bytes:
    got = b""
    with suppress(ConnectionError):
        while more := await reader.read(65_536):
            got += more
    return got


def _statuses(answered: bytes) -> list[int]:
    return [int(line.split()[1]) for line in answered.split(b"\r\n") if line.startswith(b"HTTP/")]


def _all_malformed(target: Target) -> dict[str, bytes]:
    hook = target.webhook("malformed")
    parts = (malformed.lengths, malformed.encodings, malformed.chunks, malformed.starts, malformed.heads)
    return {name: raw for part in parts for name, raw in part(hook).items()}


@pytest.mark.parametrize("apart", [False, True], ids=["in one piece", "piece by piece"])
async def test_behind_what_is_malformed_nothing_is_taken_for_a_request(target: Target, *, apart: bool) -> None:
    """Whoever sees another request there than a proxy before us would take a webhook that nobody let in."""
    # Without a length there is no body: the request is clear, refused for its signature, and the last one.
    refused = {400, 401, 404, 405, 408, 417, 431}

    async def throw(n: int, name: str, raw: bytes) -> tuple[str, list[int]]:
        pieces = [raw, target.good(f"smuggled{n}")]
        if apart and len(raw) < 10_000:
            head, end, rest = raw.partition(b"\r\n\r\n")
            pieces = [head[:40], head[40:] + end, *([rest[:9], rest[9:]] if rest else []), pieces[1]]
        answered = await _told(target.port, *pieces if apart else [b"".join(pieces)])
        assert not [leak for leak in LEAKS if leak in answered], (name, answered)
        return name, _statuses(answered)

    thrown = _all_malformed(target)
    answers = dict(await asyncio.gather(*(throw(n, *each) for n, each in enumerate(thrown.items()))))
    assert {name: got for name, got in answers.items() if len(got) > 1 or not set(got) <= refused} == {}
    assert sum(map(len, answers.values())) > 0.9 * len(thrown), "most are told"
    assert not [id_ for id_ in await target.stored() if "smuggled" in id_ or "malformed" in id_]


async def test_chunks_in_http_1_0_are_read_and_nothing_behind_them(target: Target) -> None:
    """Its framing counts as faulty (RFC 9112, 6.1)."""
    hook = target.webhook("old")
    raw = hook.head(malformed.CHUNKED, start=b"POST /webhooks/stripe HTTP/1.0") + hook.chunks
    assert _statuses(await _told(target.port, raw, target.good("behind_old"))) == [200]
    stored = await target.stored()
    assert "evt_old" in stored and "evt_behind_old" not in stored


async def test_what_is_odd_but_clear_is_served_and_so_is_what_follows(target: Target) -> None:
    odd = malformed.clear(target.webhook("odd"))

    async def statuses(n: int, raw: bytes) -> list[int]:
        last = target.good("last").replace(b"Host:", b"Connection: close\r\nHost:", 1)
        return _statuses(await _told(target.port, raw + target.good(f"next{n}") + last))

    answers = await asyncio.gather(*(statuses(n, raw) for n, raw in enumerate(odd.values())))
    assert dict(zip(odd, answers, strict=True)) == {name: [200, 200, 200] for name in odd}
    assert {f"evt_next{n}" for n in range(len(odd))} | {"evt_odd", "evt_last"} <= await target.stored()


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
async def test_behind_an_offer_to_upgrade_nothing_is_read(target: Target, protocol: str) -> None:
    """What follows one of h2c in the same packet was lost, and what came then was read from its middle on."""
    lines = (b"Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}".encode())
    raw = target.webhook(f"offer_{protocol}").asking(b"POST /webhooks/stripe HTTP/1.1", *lines)
    behind = target.good(f"behind_{protocol}")
    assert _statuses(await _told(target.port, raw + behind[:50], behind[50:])) == [200]
    stored = await target.stored()
    assert f"evt_offer_{protocol}" in stored and f"evt_behind_{protocol}" not in stored


async def test_webhooks_good_and_bad_in_one_packet_are_answered_in_order_and_stored_once(target: Target) -> None:
    unsigned = Webhook({}, delivery("unsigned")).asking(b"POST /webhooks/stripe HTTP/1.1")
    row = [target.good(f"row_{id_}") for id_ in "abac"]
    answered = await _told(target.port, b"".join([*row, unsigned, target.good("row_d")]))
    assert _statuses(answered) == [200, 200, 200, 200, 401]
    stored = [id_ for id_ in await target.stored() if "row" in id_]
    assert sorted(stored) == ["evt_row_a", "evt_row_b", "evt_row_c"]


async def test_a_million_requests_on_one_connection_are_not_for_us(target: Target) -> None:
    tiny = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 10_000
    answered, _ = await asyncio.gather(_told(target.port, *[tiny] * 100), target.serves())
    assert _statuses(answered) in ([404], []), "one is answered, unless the others reset the connection"


async def test_random_bytes_are_never_a_server_error(target: Target) -> None:
    dice = random.Random(20260102)
    blobs = [dice.randbytes(dice.randint(1, 2000)) + b"\r\n\r\n" for _ in range(200)]
    blobs += [dice.choice([b"POST /", b"GET / HTTP/1.1\r\n"]) + dice.randbytes(200) + b"\r\n\r\n" for _ in range(200)]
    for at in range(0, len(blobs), 100):
        answers = await asyncio.gather(*(_told(target.port, blob) for blob in blobs[at : at + 100]))
        assert {status for answered in answers for status in _statuses(answered)} <= {400, 404}
        assert not [answered for answered in answers for leak in LEAKS if leak in answered]


async def test_the_private_listener_answers_what_is_malformed_without_a_server_error(target: Target) -> None:
    """It keeps connections open: with a request behind that is refused, each comes to an end."""
    thrown = {name: raw for name, raw in _all_malformed(target).items() if "no end" not in name}
    rows = (_told(target.private_port, raw + b"\r\nnone\r\n\r\n") for raw in thrown.values())
    answers = await asyncio.gather(*rows)
    assert {status for answered in answers for status in _statuses(answered)} <= {400, 404, 405, 417}


async def test_heads_that_are_never_whole_share_their_room(target: Target) -> None:
    """Three thousand times 30 KB would be 180 MB once parsed. Who has owed the rest for longest gives way."""
    head = target.webhook("x").head(*[b"X: " + b"a" * 4000] * 7)[:-2]
    async with attack(target.port, 3000, first=head) as heads:
        await asyncio.gather(heads.until_opened(), target.serves_until(lambda: heads.opened == 3000))
        await heads.until_left(1300)
        assert heads.open > 800
        await target.serves()
    assert target.crowded_out() == {"heads"}


async def test_where_idle_connections_would_take_all_files_the_oldest_give_way(tmp_path: Path) -> None:
    async with started(tmp_path) as target:
        await _restart_with(target, files=200)
        async with target.survives(), attack(target.port, 500) as idle:
            await asyncio.gather(idle.until_opened(), target.serves_until(lambda: idle.opened == 500))
            await idle.until_left(200)
            assert idle.open > 100
            for _ in range(10):
                await target.serves()
            assert target.crowded_out() == {"connections"}


async def _restart_with(target: Target, *, files: int) -> None:
    """A receiver that may have no more."""
    psutil.Process(target.service.pid).rlimit(psutil.RLIMIT_NOFILE, (files, files))
    target.receiver.kill()
    await until(lambda: target.service.child("receiver") not in {0, target.receiver.pid})
    await target.service.until_ready()
    target.receiver = psutil.Process(target.service.child("receiver"))


async def test_out_of_files_it_waits_and_goes_on_when_some_are_closed(target: Target) -> None:
    """Taken from it while it runs, so that it can't know."""
    usual = target.receiver.rlimit(psutil.RLIMIT_NOFILE)
    target.receiver.rlimit(psutil.RLIMIT_NOFILE, (target.receiver.num_fds() + 20, usual[1]))
    async with attack(target.port, 200) as idle:
        await idle.until_opened()
        before, since = target.receiver.cpu_times(), elapsed()
        await asyncio.sleep(1)
        after = target.receiver.cpu_times()
        assert after.user + after.system - before.user - before.system < 0.5 * since(), "it does not spin"
        assert (await target.service.post(delivery("out_of_files"))).status == 0

    async def served() -> bool:
        return (await target.service.post(delivery("out_of_files"))).status == 200

    await until(served)
    target.receiver.rlimit(psutil.RLIMIT_NOFILE, usual)

"""The worst that one request may hold takes memory in proportion to its size, and little time."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import pytest

from bridge import providers
from bridge.model import WebhookRequest
from fuzz import promises
from fuzz.subjects import subjects

MIB = 1 << 20
# Python takes 72 bytes for what JSON writes in three: `[],`.
MOST_MEMORY = 40
# Seconds. The worst takes a few tenths of one.
LONGEST = 20

BODIES = {
    "empty lists": b'{"id":[' + b"[]," * (MIB // 3) + b"0]}",
    "empty objects": b'{"id":[' + b"{}," * (MIB // 3) + b"0]}",
    "small objects": b'{"id":[' + b'{"a":0},' * (MIB // 8) + b"0]}",
    "names": b"{" + b",".join(b'"%x":0' % n for n in range(MIB // 10)) + b"}",
    "depth": b'{"id":' * (MIB // 6),
    "halves of surrogate pairs": b'{"id":"' + rb"\ud800" * (MIB // 6) + b'"}',
    "escapes, and half a pair": b'{"id":"' + rb"\n" * (MIB // 2) + rb'\ud800"}',
    "digits": b'{"id":' + b"9" * MIB + b"}",
    "one text": b'{"id":"' + b"\xf0\x9f\x98\x80" * (MIB // 4) + b'","object":"event"}',
    "a date": b'{"id":"evt_1","object":"event","type":"a","created":"' + b"2" * MIB + b'"}',
    "ampersands": b"&" * MIB,
    "fields": b"a=&" * (MIB // 3),
    "percent signs": b"payload=" + b"%" * MIB,
    "percent encoding": b"payload=" + b"%7B" * (MIB // 3),
    "spaces": b" " * MIB,
}
# 64 KiB: no server lets more through.
HEADERS = {
    "commas": "," * 65536,
    "signatures": "t=1795000000" + ",v1=00" * 10922,
    "times": "t=1795000000," * 5041,
    "equals signs": "=" * 65536,
    "hex": "0" * 65536,
    "digits of another script": "１" * 21845,
    "halves of surrogate pairs": "\udce9" * 65536,
}


def peak(subject: str, request: WebhookRequest) -> float:
    """Bytes it took at most, for each byte that was sent."""
    size = len(request.body) + sum(map(len, request.headers.values()))
    started = time.perf_counter()
    tracemalloc.start()
    promises.verdict(subjects()[subject], request)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.perf_counter() - started < LONGEST
    return most / size


@pytest.mark.parametrize("subject", providers.load())
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_largest_body_takes_a_few_times_its_own_memory(subject: str, body: bytes) -> None:
    assert peak(subject, promises.signed(subjects()[subject], body[:MIB])) < MOST_MEMORY


@pytest.mark.parametrize("subject", subjects())
@pytest.mark.parametrize("value", HEADERS.values(), ids=HEADERS)
def test_the_longest_header_takes_a_few_times_its_own_memory(subject: str, value: str) -> None:
    right = promises.signed(subjects()[subject], b"{}")
    for name in right.headers:
        sent = replace(right, headers={**right.headers, name: value})
        promises.rejected(subjects()[subject], sent)
        assert peak(subject, sent) < MOST_MEMORY

"""`python -m bench.load PORT COUNT CONNECTIONS NAME`: signed webhooks, made beforehand, sent as fast as they are answered.

A process of its own, with sockets and nothing else, so that it takes little of what the bridge could have.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import bridge

SECRET = b"whsec_of_the_benchmark"
_SAMPLE = Path(bridge.__file__).parent / "samples" / "stripe" / "customer.created.json"


def body(id_: str) -> bytes:
    """A delivery of this id: a recorded one, 0.95 KB."""
    whole, recorded = _sample()
    return whole.replace(recorded, id_.encode())


@cache
def _sample() -> tuple[bytes, bytes]:
    parsed = json.loads(_SAMPLE.read_bytes())
    return json.dumps(parsed, separators=(",", ":")).encode(), parsed["id"].encode()


def requests(count: int, name: str) -> list[bytes]:
    """Each a delivery of its own."""
    now = str(int(time.time())).encode()
    made = []
    for n in range(count):
        own = body(f"evt_{name}_{n:012}")
        signature = hmac.new(SECRET, now + b"." + own, hashlib.sha256).hexdigest().encode()
        head = b"POST /webhooks/stripe HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        head += b"Stripe-Signature: t=" + now + b",v1=" + signature
        made.append(head + b"\r\nContent-Length: " + str(len(own)).encode() + b"\r\n\r\n" + own)
    return made


async def _send(port: int, left: Iterator[bytes], took: list[float], answers: Counter[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in left:
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        took.append(time.perf_counter() - began)
        answers[head[9:12].decode()] += 1
    writer.close()


async def _run(port: int, count: int, connections: int, name: str) -> dict[str, object]:
    left = iter(requests(count, name))
    took: list[float] = []
    answers = Counter[str]()
    began = time.perf_counter()
    await asyncio.gather(*(_send(port, left, took, answers) for _ in range(connections)))
    seconds = time.perf_counter() - began
    cuts = statistics.quantiles(took, n=1000)
    return {"rate": count / seconds, "answers": answers, "p50": cuts[499], "p99": cuts[989], "p99.9": cuts[998]}


if __name__ == "__main__":
    port, count, connections = map(int, sys.argv[1:4])
    print(json.dumps(asyncio.run(_run(port, count, connections, sys.argv[4]))))  # noqa: T201 - what it is for

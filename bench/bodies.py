"""Webhooks of three sizes, each a delivery of its own, signed beforehand."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from functools import cache

SECRET = b"whsec_of_the_benchmark"
SIZES = {"0.7 KB": 700, "4 KB": 4_000, "60 KB": 60_000}
_ID = "evt_" + "0" * 24
_CREATED = 1_767_225_600


def body(id_: str, size: int = SIZES["0.7 KB"]) -> bytes:
    """A Stripe event with an id of 28 characters, of so many bytes."""
    return _template(size).replace(_ID.encode(), id_.encode())


@cache
def _template(size: int) -> bytes:
    """An invoice, with as many lines as there is room for."""
    lines: list[dict[str, object]] = []
    while len(_invoice([*lines, _line(len(lines))])) < size:
        lines.append(_line(len(lines)))
    return _invoice(lines, "x" * (size - len(_invoice(lines))))


def _invoice(lines: Sequence[object], description: str = "") -> bytes:
    thing = {
        "id": "in_1Q9x2B2eZvKYlo2C8dDqT4fM",
        "object": "invoice",
        "amount_due": 4900,
        "currency": "eur",
        "customer": "cus_TSdWq4nB8yKp2E",
        "customer_email": "zoe@example.com",
        "description": description,
        "lines": {"object": "list", "data": lines, "has_more": False},
        "livemode": True,
        "status": "paid",
    }
    event = {
        "id": _ID,
        "object": "event",
        "api_version": "2025-09-30.clover",
        "created": _CREATED,
        "data": {"object": thing},
        "livemode": True,
        "pending_webhooks": 1,
        "request": {"id": "req_V9x1mD2eZvKYlo", "idempotency_key": None},
        "type": "invoice.paid",
    }
    return json.dumps(event, separators=(",", ":")).encode()


def _line(number: int) -> dict[str, object]:
    return {
        "id": f"il_{number:024}",
        "object": "line_item",
        "amount": 100 + number,
        "currency": "eur",
        "description": f"Seat {number}, for the month of January",
        "period": {"start": _CREATED, "end": _CREATED + 2_678_400},
        "quantity": 1,
        "metadata": {"team": f"team-{number % 7}"},
    }


def ids(count: int, name: str, *, random: bool = False) -> list[str]:
    """As Stripe's: a time, then the account, then what is random; so that those of a moment lie side by side in an index.
    `random`: all of it, as a UUID is. The same for the same name; no two are equal.
    """
    found = [hashlib.sha256(f"{name}:{n}".encode()).hexdigest() for n in range(count)]
    if random:
        return [f"evt_{each[:24]}" for each in found]
    start = int(found[0][-8:], 16) if found else 0
    return [f"evt_1{_base36(start + n // 5000)}2eZvKYlo2C{each[:4]}{n % 5000:04x}" for n, each in enumerate(found)]


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    written = ""
    for _ in range(5):
        number, digit = divmod(number, 36)
        written = digits[digit] + written
    return written


def request(body: bytes, *, target: str, header: str) -> bytes:
    """The whole of it, signed now. `header`: Stripe's, or another that holds the MAC of the body alone."""
    now = str(int(time.time())).encode()
    if header == "stripe-signature":
        signature = b"t=" + now + b",v1=" + _mac(now + b"." + body)
    else:
        signature = b"sha256=" + _mac(body)
    head = f"POST {target} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + header.encode() + b": " + signature + b"\r\n\r\n" + body


def _mac(signed: bytes) -> bytes:
    return hmac.new(SECRET, signed, hashlib.sha256).hexdigest().encode()

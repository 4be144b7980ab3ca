"""What must hold of every request, whatever is in it. Raises `Broken` where it does not; what `verify` raises goes through.

For the fuzzer and for the tests. No promise here quotes a request: what is said of a failure may be shown to anybody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from bridge.errors import Reason, Rejected, Unusable
from bridge.event import EARLIEST, LATEST
from bridge.journal.rows import row_of
from bridge.model import Delivery, Entry, Handshake, Source, WebhookRequest
from bridge.payload import LONGEST, at
from bridge.verify import Provider, restore, verify

NOW = 1_795_000_000_000
TOLERANCE = 300_000
# In the shape of most providers, some of which want a secret to be base64 behind a prefix.
RIGHT, WRONG = b"whsec_cmlnaHQgc2VjcmV0IG9mIHRoZSBmdXp6ZXI=", b"whsec_d3Jvbmcgc2VjcmV0IG9mIHRoZSBmdXp6ZXI="

# What an index of either database takes.
_LONGEST_ID = 1020
_LONGEST_FAULT = 500
_LONGEST_ANSWER = 1024
_STAMP_OR_MAC = re.compile(r"[0-9A-Za-z+/_-]{10,}")


class Broken(Exception):
    """A promise that was not kept: which one."""


def signed(provider: Provider, body: bytes, *, secret: bytes = RIGHT, at: int = NOW) -> WebhookRequest:
    """As the provider sends it at that time. It arrives now."""
    return WebhookRequest(headers=provider.scheme.sign(body, secret=secret, now=at), body=body, received_at=NOW)


def is_stamped(provider: Provider) -> bool:
    """Whether its signature says when it was made."""
    return signed(provider, b"", at=0).headers != signed(provider, b"").headers


def verdict(
    provider: Provider, request: WebhookRequest, *, secrets: Sequence[bytes] = (RIGHT,), now: int = NOW
) -> Delivery | Handshake | Reason:
    """What the bridge makes of it."""
    try:
        return verify(request, source=source_of(provider, secrets), provider=provider, now=now)
    except Rejected as rejected:
        if rejected.status != 401:  # noqa: PLR2004 - what every stranger is answered
            raise Broken("what is rejected is answered 401") from None
        return rejected.reason


def source_of(provider: Provider, secrets: Sequence[bytes]) -> Source:
    """A source that wants this provider's webhooks."""
    return Source(name="source", provider=provider.name, prefix="prefix", secrets=tuple(secrets), tolerance=TOLERANCE)


def rejected(
    provider: Provider, request: WebhookRequest, *, secrets: Sequence[bytes] = (RIGHT,), now: int = NOW
) -> Reason:
    """It is not let in."""
    found = verdict(provider, request, secrets=secrets, now=now)
    if not isinstance(found, Reason):
        raise Broken("what is not rightly signed is rejected")
    return found


def accepted(provider: Provider, request: WebhookRequest, *, now: int = NOW) -> Delivery | Handshake:
    """It is let in, and what is made of it can be stored, found again and made an event of."""
    found = verdict(provider, request, now=now)
    if isinstance(found, Reason):
        raise Broken("what is rightly signed is accepted")
    _check(_unkept_by_handshake(found) if isinstance(found, Handshake) else _unkept(found, request, provider))
    _repeated(found, verdict(provider, request, now=now), "the same request is the same delivery")
    return found


def answered(provider: Provider, request: WebhookRequest, *, right: WebhookRequest) -> Delivery | Handshake | Reason:
    """It is let in or not; only where all is there that the provider wrote, time and signature, has it been let in.

    Nobody makes a MAC without the secret: so it can't be right where that of the `right` request is not in it.
    """
    found = verdict(provider, request)
    if isinstance(found, Reason):
        return found
    for name, written in right.headers.items():
        given = request.headers.get(name, "").casefold()
        if request.body != right.body or not all(part.casefold() in given for part in _STAMP_OR_MAC.findall(written)):
            raise Broken("nobody forges a signature")
    return accepted(provider, request)


def repeated(provider: Provider, body: bytes, *, later: int) -> None:
    """What the provider sends once more, signed anew, has the id it had."""
    first = verdict(provider, signed(provider, body))
    again = verdict(provider, signed(provider, body, at=NOW + later), now=NOW + later)
    _repeated(first, again, "what is sent again, signed anew, is the same delivery")


def _repeated(first: Delivery | Handshake | Reason, again: Delivery | Handshake | Reason, promise: str) -> None:
    """Compares no payloads: those may be too deep for it."""
    if _known_by(first) != _known_by(again):
        raise Broken(promise)


def _known_by(found: Delivery | Handshake | Reason) -> object:
    return (found.id, found.type, found.fault) if isinstance(found, Delivery) else found


def _check(unkept: Iterator[str]) -> None:
    for promise in unkept:
        raise Broken(promise)


def _unkept_by_handshake(handshake: Handshake) -> Iterator[str]:
    if len(handshake.answer) > _LONGEST_ANSWER or not _is_text(handshake.answer):
        yield "a handshake is answered with a short text"


def _unkept(delivery: Delivery, request: WebhookRequest, provider: Provider) -> Iterator[str]:
    """Every promise that does not hold."""
    kept = (delivery.body, delivery.headers, delivery.received_at)
    if kept != (request.body, request.headers, request.received_at):
        yield "a delivery keeps what was signed"
    if not _is_name(delivery.id, _LONGEST_ID):
        yield "an id is printable, and short enough for an index"
    if delivery.fault:
        yield from _unkept_by_fault(delivery)
    else:
        yield from _unkept_by_content(delivery, provider)
    if not (EARLIEST <= delivery.occurred_at <= LATEST or delivery.occurred_at == delivery.received_at):
        yield "it happened between 1980 and 2100, or when it was received"
    yield from _unkept_by_row(delivery)
    yield from _unkept_by_entry(delivery, provider)


def _unkept_by_fault(delivery: Delivery) -> Iterator[str]:
    if delivery.type or delivery.payload:
        yield "a delivery with a fault has neither type nor payload"
    if not _is_name(delivery.fault, _LONGEST_FAULT):
        yield "a fault is a line"


def _unkept_by_content(delivery: Delivery, provider: Provider) -> Iterator[str]:
    if not _is_name(delivery.type, 4 * LONGEST) or delivery.type.lower().startswith("inngest/"):
        yield "a type can be a part of an event's name"
    for *path, last in provider.secret_fields:
        holder = at(delivery.payload, *path)
        if isinstance(holder, dict) and last in holder:
            yield "no secret of the provider's is left in a payload"
    if not isinstance(provider.user(delivery.payload), Mapping):
        yield "whom it is about can be asked of any payload"


def _unkept_by_row(delivery: Delivery) -> Iterator[str]:
    """What a database stores of it."""
    row = row_of(delivery)
    if not all(_is_text(value) and "\0" not in value for value in row if isinstance(value, str)):
        yield "a journal can store every text of a delivery"
    if not all(abs(value) < 1 << 63 for value in row if isinstance(value, int)):
        yield "a journal can store every number of a delivery"
    if delivery.id not in row or json.loads(row[8]) != delivery.headers:
        yield "what a journal stores of it is what it was"


def _unkept_by_entry(delivery: Delivery, provider: Provider) -> Iterator[str]:
    try:
        restored = restore(Entry.of(delivery), provider=provider)
    except Unusable:
        if not delivery.fault:
            yield "an entry gives the delivery it was"
        return
    if delivery.fault or _known_by(restored) != _known_by(delivery) or restored.occurred_at != delivery.occurred_at:
        yield "an entry gives the delivery it was"


def _is_name(value: str, longest: int) -> bool:
    return value.isprintable() and 0 < len(value.encode("utf-8", "surrogatepass")) <= longest


def _is_text(value: str) -> bool:
    """Whether it can be written in UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True

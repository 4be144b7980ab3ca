"""The signature schemes most providers share: how each is checked, and how a request is signed with it.

They work on bytes, compare in constant time, and raise `Rejected` and nothing else, whatever a header holds:
aiohttp passes header bytes on as text with surrogates in it, and the official SDKs raise on many of those.
A provider with a scheme of its own defines it in its module, with the same two methods.
"""

from __future__ import annotations

import hmac
from binascii import Error as NotHex
from binascii import unhexlify
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bridge.errors import Reason, Rejected
from bridge.model import WebhookRequest

# Seconds have ten digits until 2286. int() alone would also take `１２`, ` 5 ` and `1_0`.
_LONGEST_SECONDS = 12


class Scheme(Protocol):
    """How a provider signs. `headers`: the lower-case names it reads, kept with the delivery to verify it again."""

    @property
    def headers(self) -> tuple[str, ...]: ...

    def check(self, request: WebhookRequest, *, secrets: Sequence[bytes], now: int, tolerance: int) -> None:
        """Return if any of the secrets made the signature, else raise `Rejected`. Times in ms."""

    def sign(self, body: bytes, *, secret: bytes, now: int) -> dict[str, str]:
        """Headers the provider would send with this body: for `bridge send` and the tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyMac:
    """One header: a prefix, then the MAC of the body in hex. It has no timestamp: only the delivery's id stops a replay."""

    header: str
    prefix: str = ""
    digest: str = "sha256"
    headers: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", (self.header,))

    def check(self, request: WebhookRequest, *, secrets: Sequence[bytes], now: int, tolerance: int) -> None:
        del now, tolerance
        given = _strip(_header(request, self.header), self.prefix)
        _check_mac(request.body, [given], secrets, self.digest)

    def sign(self, body: bytes, *, secret: bytes, now: int) -> dict[str, str]:
        del now
        return {self.header: self.prefix + hmac.digest(secret, body, self.digest).hex()}


@dataclass(frozen=True, slots=True, kw_only=True)
class StampedMac:
    """Two headers: Unix seconds, and a prefix with the MAC, in hex, of `before`, the seconds, `between`, the body."""

    stamp_header: str
    header: str
    prefix: str = ""
    before: bytes = b""
    between: bytes
    digest: str = "sha256"
    headers: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", (self.stamp_header, self.header))

    def check(self, request: WebhookRequest, *, secrets: Sequence[bytes], now: int, tolerance: int) -> None:
        stamp, given = _header(request, self.stamp_header), _header(request, self.header)
        signed = self._message(_seconds(stamp), request.body)
        _check_mac(signed, [_strip(given, self.prefix)], secrets, self.digest)
        _check_age(stamp, now, tolerance)

    def sign(self, body: bytes, *, secret: bytes, now: int) -> dict[str, str]:
        stamp = str(now // 1000)
        mac = hmac.digest(secret, self._message(stamp.encode(), body), self.digest)
        return {self.stamp_header: stamp, self.header: self.prefix + mac.hex()}

    def _message(self, stamp: bytes, body: bytes) -> bytes:
        return b"%b%b%b%b" % (self.before, stamp, self.between, body)


@dataclass(frozen=True, slots=True, kw_only=True)
class StampedList:
    """One header, `t=<Unix seconds>,v1=<hex>[,v1=<hex>]`: each value the MAC of the seconds, a dot, and the body."""

    header: str
    stamp: str = "t"
    mac: str = "v1"
    """Only this one counts: Stripe's `v0` is a sham for test mode, and to take it would be a downgrade."""
    digest: str = "sha256"
    headers: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", (self.header,))

    def check(self, request: WebhookRequest, *, secrets: Sequence[bytes], now: int, tolerance: int) -> None:
        stamps, given = [], []
        for part in _header(request, self.header).split(","):
            key, _, value = part.strip(" ").partition("=")
            if key == self.mac:
                given.append(value)
            elif key == self.stamp:
                stamps.append(value)
        if len(stamps) != 1 or not given:
            raise Rejected(Reason.MALFORMED)
        _check_mac(b".".join((_seconds(stamps[0]), request.body)), given, secrets, self.digest)
        _check_age(stamps[0], now, tolerance)

    def sign(self, body: bytes, *, secret: bytes, now: int) -> dict[str, str]:
        stamp = str(now // 1000)
        mac = hmac.digest(secret, b"%b.%b" % (stamp.encode(), body), self.digest)
        return {self.header: f"{self.stamp}={stamp},{self.mac}={mac.hex()}"}


def _header(request: WebhookRequest, name: str) -> str:
    value = request.headers.get(name, "")
    if not value:
        raise Rejected(Reason.MISSING)
    return value


def _strip(value: str, prefix: str) -> str:
    if not value.startswith(prefix):
        raise Rejected(Reason.MALFORMED)
    return value[len(prefix) :]


def _seconds(stamp: str) -> bytes:
    """The header's own text: it is what was signed."""
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= _LONGEST_SECONDS):
        raise Rejected(Reason.MALFORMED)
    return stamp.encode("ascii")


def _check_age(stamp: str, now: int, tolerance: int) -> None:
    """Looks at the age of a stamp already proved: only the holder of a secret learns that it is off."""
    age = now - int(stamp) * 1000
    if age > tolerance + 999:  # our ms against their whole seconds
        raise Rejected(Reason.TOO_OLD)
    if age < -tolerance:
        raise Rejected(Reason.IN_FUTURE)


def _check_mac(message: bytes, given: Iterable[str], secrets: Sequence[bytes], digest: str) -> None:
    """Any of the given MACs under any of the secrets will do. Hex in either case: it names the same bytes."""
    candidates = [_unhex(mac) for mac in given]
    matched = False
    for secret in secrets:
        expected = hmac.digest(secret, message, digest)
        for candidate in candidates:
            matched |= candidate is not None and hmac.compare_digest(expected, candidate)
    if not matched:
        raise Rejected(Reason.MALFORMED if None in candidates else Reason.MISMATCH)


def _unhex(mac: str) -> bytes | None:
    """None where it is no hex: another that stands beside it may be right."""
    if not mac.isascii():  # Stripe's own SDK takes nothing beside such a one
        raise Rejected(Reason.MALFORMED)
    try:
        return unhexlify(mac)
    except NotHex:
        return None

"""What the bytes of the fuzzer mean: whose request it is, what is right and wrong with it, a text and a body.

Any bytes are a case, and those of a case stay it when a provider is added. The signature is made when the case is tried,
so that whatever the fuzzer changes in a body is signed still.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from zlib import crc32

from bridge.model import WebhookRequest
from bridge.verify import Provider
from fuzz import promises
from fuzz.promises import NOW, TOLERANCE, WRONG
from fuzz.subjects import subjects

# Point of the subject, how, which header, two places.
_HEAD = struct.Struct(">HBBHH")
_POINTS = 1 << 16


class How(IntEnum):
    """What is done to a request that is right. The numbers stand in files: they stay."""

    RIGHT = 0
    STRANGER = 1
    """Signed with the secret of another source."""
    UNSET = 2
    """The source has no secret."""
    BODY = 3
    """A byte of the body is another."""
    HEADER = 4
    """A part of a header is replaced by the text."""
    MISSING = 5
    EMPTY = 6
    TWICE = 7
    """A header came twice."""
    TIME = 8
    """It arrives earlier or later."""
    TEXT = 9
    """The text is each header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request, and what is done to it."""

    subject: str
    how: How = How.RIGHT
    header: int = 0
    """Which of the headers that sign it, counted round."""
    start: int = 0
    end: int = 0
    text: str = ""
    """As aiohttp passes on the bytes of a header, less NUL, which no server lets through."""
    body: bytes = b""

    @classmethod
    def read(cls, data: bytes) -> Case:
        point, how, header, start, end = _HEAD.unpack_from(data.ljust(_HEAD.size, b"\0"))
        text, _, body = data[_HEAD.size :].partition(b"\0")
        return cls(
            subject=min(subjects(), key=lambda name: (_point(name) - point) % _POINTS),
            how=How(how % len(How)),
            header=header,
            start=start,
            end=end,
            text=text.decode("utf-8", "surrogateescape"),
            body=body,
        )

    def written(self) -> bytes:
        head = _HEAD.pack(_point(self.subject), self.how, self.header, self.start, self.end)
        return head + self.text.encode("utf-8", "surrogateescape") + b"\0" + self.body


def _point(subject: str) -> int:
    """Its place on a circle: each subject answers for the points up to its own."""
    return crc32(subject.encode()) % _POINTS


def check(case: Case) -> None:
    """Raises where a promise does not hold."""
    provider = subjects()[case.subject]
    _CHECKS[case.how](provider, case, promises.signed(provider, case.body))


def _right(provider: Provider, case: Case, right: WebhookRequest) -> None:
    promises.accepted(provider, right)
    promises.repeated(provider, case.body, later=1000 * case.start)


def _stranger(provider: Provider, case: Case, right: WebhookRequest) -> None:
    promises.rejected(provider, right, secrets=(WRONG,))
    promises.rejected(provider, promises.signed(provider, case.body, secret=WRONG))


def _unset(provider: Provider, case: Case, right: WebhookRequest) -> None:
    del case
    promises.rejected(provider, right, secrets=())


def _body(provider: Provider, case: Case, right: WebhookRequest) -> None:
    body = bytearray(case.body or b"\0")
    body[case.start % len(body)] ^= case.end % 255 + 1
    promises.rejected(provider, replace(right, body=bytes(body)))


def _header(provider: Provider, case: Case, right: WebhookRequest) -> None:
    name, value = _chosen(case, right)
    start, end = sorted((case.start % (len(value) + 1), case.end % (len(value) + 1)))
    changed = _with(right, name, value[:start] + case.text + value[end:])
    promises.answered(provider, changed, right=right)
    promises.rejected(provider, changed, secrets=(WRONG,))


def _missing(provider: Provider, case: Case, right: WebhookRequest) -> None:
    name, _ = _chosen(case, right)
    others = {other: value for other, value in right.headers.items() if other != name}
    promises.rejected(provider, replace(right, headers=others))


def _empty(provider: Provider, case: Case, right: WebhookRequest) -> None:
    promises.rejected(provider, _with(right, _chosen(case, right)[0], ""))


def _twice(provider: Provider, case: Case, right: WebhookRequest) -> None:
    name, value = _chosen(case, right)
    promises.rejected(provider, _with(right, name, f"{value}, {value}"))


def _time(provider: Provider, case: Case, right: WebhookRequest) -> None:
    """To 24 days either way."""
    late = (case.start << 16 | case.end) - (1 << 31)
    if promises.is_stamped(provider) and not -TOLERANCE <= late <= TOLERANCE + 999:
        promises.rejected(provider, right, now=NOW + late)
    else:
        promises.accepted(provider, right, now=NOW + late)


def _text(provider: Provider, case: Case, right: WebhookRequest) -> None:
    promises.answered(provider, replace(right, headers=dict.fromkeys(right.headers, case.text)), right=right)


def _chosen(case: Case, right: WebhookRequest) -> tuple[str, str]:
    return list(right.headers.items())[case.header % len(right.headers)]


def _with(request: WebhookRequest, name: str, value: str) -> WebhookRequest:
    return replace(request, headers={**request.headers, name: value})


_CHECKS: Mapping[How, Callable[[Provider, Case, WebhookRequest], None]] = {
    How.RIGHT: _right,
    How.STRANGER: _stranger,
    How.UNSET: _unset,
    How.BODY: _body,
    How.HEADER: _header,
    How.MISSING: _missing,
    How.EMPTY: _empty,
    How.TWICE: _twice,
    How.TIME: _time,
    How.TEXT: _text,
}

"""What the fuzzer begins with: every sample of every provider, right and with each thing wrong; and words to put into it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import orjson

from bridge import providers, samples
from bridge.verify import Provider
from fuzz import promises
from fuzz.cases import Case, How
from fuzz.subjects import subjects

_LONGEST = ("\N{GRINNING FACE}" * 255).encode()
_PLAIN = b'{"id":"evt_1","type":"a.b","token":"t"}'
# What an encoding, a parser or a database may stumble over.
ODD = (
    b"",
    b"{}",
    b"[]",
    b"\xef\xbb\xbf{}",
    b'{"id":"\\ud800","type":"\\udc00\\ud800"}',
    b'{"id":"a\\u0000b","type":"a"}',
    b'{"id":"\xff","type":"a"}',
    b'{"id":%s,"type":1e999}' % (b"9" * 400),
    b'{"id":"%s","type":"INNGEST/a"}' % _LONGEST,
    *(b'{"id":%s1%s}' % (b'{"id":' * depth, b"}" * depth) for depth in (990, 1023, 1024)),
    *(b'{"id":%s%s,"type":"a"}' % (b"[" * depth, b"]" * depth) for depth in (990, 1022)),
    b'{"type":"url_verification","event_id":"Ev1","id":"evt_1","topic":"ping"}',
    b'{"type":"url_verification","challenge":"%s"}' % (b"x" * 1025),
    b'{"type":"view_closed","view":{"id":"%s","hash":"%s"}}' % (_LONGEST, _LONGEST),
    b"&".join([b"a=%C3%A9&payload=%7B%7D"] * 501),
    b"payload=%00%ED%A0%80&command=",
)
# What orjson reads has 1,024 levels at most; Python compares no more than 1,000.
DEEP = b"[" * 1005 + b"]" * 1005
# What stands in the place of a value: that, a time nobody lives to see, and a text that is too long.
_INSTEAD = (DEEP, b"99999999999", b'"%s"' % (b"x" * 300))
# As they may stand in a header: no digits of any script, a byte that is no text, what separates.
_TEXTS = (
    "",
    " ",
    ",",
    ", ",
    "=",
    "t=",
    "v1=",
    "v0=",
    "0",
    "ff",
    "zz",
    "é",
    "\udce9",
    "１２",
    "1_0",
    "+1",
    "\t",
    "x" * 99,
)
_WORD = re.compile(rb'"([^"\\]{2,40})"')
_MOST_WORDS = 800


def cases() -> Iterator[Case]:
    """All of them."""
    for subject in subjects():
        for body in _bodies(subject):
            yield Case(subject=subject, body=body)
        for how in How:
            yield Case(subject=subject, how=how, start=3, end=7, body=next(_bodies(subject)))
        yield from _headers(subject)


def _bodies(subject: str) -> Iterator[bytes]:
    for sample in recorded(subject):
        yield sample
        yield from spoilt(subjects()[subject], sample)
    yield _PLAIN
    yield from ODD


def recorded(subject: str) -> list[bytes]:
    """The samples of a provider; a scheme has none."""
    return [samples.body(subject, name) for name in samples.names(subject)]


def spoilt(provider: Provider, body: bytes) -> Iterator[bytes]:
    """For each name in it: without it; and with odd values in its place, but for the delivery's id and type."""
    request = promises.signed(provider, body)
    payload = provider.parse(request)
    identity = provider.identify(payload, request)
    spared = {*identity.id.split(":"), identity.type}
    for name in sorted(_names(payload)):
        yield orjson.dumps(_without(payload, name))
        marked = orjson.dumps(_marked(payload, name, spared))
        yield from (marked.replace(b'"odd"', odd) for odd in _INSTEAD)


def _names(value: object) -> set[str]:
    """Every key in it, however deep."""
    if isinstance(value, dict):
        return set(value).union(*map(_names, value.values()))
    return set().union(*map(_names, value)) if isinstance(value, list) else set()


def _without(value: object, name: str) -> object:
    if isinstance(value, dict):
        return {key: _without(inner, name) for key, inner in value.items() if key != name}
    return [_without(inner, name) for inner in value] if isinstance(value, list) else value


def _marked(value: object, name: str, spared: set[object]) -> object:
    """With the mark for all that stands under the name."""
    if isinstance(value, list):
        return [_marked(inner, name, spared) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        key: "odd" if key == name and str(inner) not in spared else _marked(inner, name, spared)
        for key, inner in value.items()
    }


def _headers(subject: str) -> Iterator[Case]:
    """Each text at the beginning, in the middle and at the end of each header."""
    right = promises.signed(subjects()[subject], _PLAIN)
    for number, value in enumerate(right.headers.values()):
        for text in _TEXTS:
            for place in (0, len(value) // 2, len(value)):
                yield Case(
                    subject=subject, how=How.HEADER, header=number, start=place, end=place, text=text, body=_PLAIN
                )


def write(folder: Path) -> int:
    """Each in a file of its own, and nothing else; how many there are."""
    for old in folder.iterdir():
        old.unlink()
    contents = {case.written() for case in cases()}
    for content in contents:
        (folder / sha256(content).hexdigest()[:16]).write_bytes(content)
    return len(contents)


def words() -> Iterator[bytes]:
    """The names and values that stand in samples: providers look for them."""
    found = {
        word: None for provider in providers.load() for sample in recorded(provider) for word in _WORD.findall(sample)
    }
    yield from list(found)[:_MOST_WORDS]


def dictionary() -> str:
    """The words as libFuzzer reads them (https://llvm.org/docs/LibFuzzer.html#dictionaries)."""
    escaped = ("".join(rf"\x{byte:02x}" for byte in word) for word in words())
    return "".join(f'"{word}"\n' for word in escaped)

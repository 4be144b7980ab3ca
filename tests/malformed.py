"""Requests whose bytes are not as they should be, around a webhook that is rightly signed: for the tests of both listeners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CANARY = b"canary-in-the-request"


@dataclass(frozen=True, slots=True)
class Webhook:
    """What one is put together from, so that a single thing can be wrong with it."""

    signed: Mapping[str, str]
    body: bytes

    def head(self, *lines: bytes, start: bytes = b"POST /webhooks/stripe HTTP/1.1") -> bytes:
        signed = (f"{name}: {value}".encode() for name, value in self.signed.items())
        return b"\r\n".join((start, b"Host: bridge.test", *signed, *lines, b"", b""))

    @property
    def length(self) -> bytes:
        return b"Content-Length: %d" % len(self.body)

    @property
    def chunks(self) -> bytes:
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body)

    def asking(self, start: bytes, *lines: bytes) -> bytes:
        return self.head(self.length, *lines, start=start) + self.body


CHUNKED = b"Transfer-Encoding: chunked"


def lengths(hook: Webhook) -> dict[str, bytes]:
    """Nobody knows where such a request ends: two servers may read it as two different rows of requests."""
    size = len(hook.body)
    of_lines = {
        "the same length twice": (hook.length, hook.length),
        "two lengths": (hook.length, b"Content-Length: 5"),
        "a list of lengths": (b"Content-Length: %d, %d" % (size, size),),
        "a length, then chunks": (hook.length, CHUNKED),
        "chunks, then a length": (CHUNKED, b"Content-Length: 5"),
        "a negative length": (b"Content-Length: -1",),
        "a length with a plus": (b"Content-Length: +%d" % size,),
        "a hexadecimal length": (b"Content-Length: 0x%x" % size,),
        "a length with a space in it": (b"Content-Length: 1 2",),
        "a length with an underscore": (b"Content-Length: 1_0",),
        "an empty length": (b"Content-Length:",),
        "a length of 30 digits": (b"Content-Length: " + b"9" * 30,),
        "a length that overflows": (b"Content-Length: %d" % (2**64 + size),),
        "a space before the colon of the length": (b"Content-Length : %d" % size,),
        "a length on a line of its own": (b"Content-Length:\r\n %d" % size,),
        "a bare LF between headers": (b"X: a\nY: b", hook.length),
        "a bare CR between headers": (b"X: a\rY: b", hook.length),
        "a NUL in a value": (b"X: a\0" + CANARY, hook.length),
        "a NUL in a name": (b"X\0" + CANARY + b": a", hook.length),
        "a length that is hidden by a NUL": (b"Content-Length: %d\0" % size,),
        "two hosts": (b"Host: elsewhere.test", hook.length),
    }
    return {name: hook.head(*lines) + hook.body for name, lines in of_lines.items()} | {
        "lines that end in LF alone": hook.head(hook.length).replace(b"\r\n", b"\n") + hook.body,
        "a head that ends in LF LF": hook.head(hook.length)[:-4] + b"\n\n" + hook.body,
        "a head that ends in CR CR": hook.head(hook.length)[:-4] + b"\r\r" + hook.body,
        "no length, and a body all the same": hook.head() + hook.body,
        "a GET with a body of no length": hook.head(start=b"GET /webhooks/stripe HTTP/1.1") + hook.body,
    }


def encodings(hook: Webhook) -> dict[str, bytes]:
    """The same of Transfer-Encoding."""
    of_lines = {
        "a space before the colon": (b"Transfer-Encoding : chunked",),
        "on a line of its own": (b"Transfer-Encoding:\r\n chunked",),
        "chunked, then identity": (b"Transfer-Encoding: chunked, identity",),
        "chunked twice": (b"Transfer-Encoding: chunked, chunked",),
        "in two lines": (CHUNKED, CHUNKED),
        "in two lines, identity first": (b"Transfer-Encoding: identity", CHUNKED),
        "in two lines, identity last": (CHUNKED, b"Transfer-Encoding: identity"),
        "nearly chunked": (b"Transfer-Encoding: xchunked",),
        "chunked with a parameter": (b"Transfer-Encoding: chunked;q=1",),
        "chunked in quotes": (b'Transfer-Encoding: "chunked"',),
        "a vertical tab": (b"Transfer-Encoding: \x0bchunked",),
        "a NUL": (b"Transfer-Encoding: chunked\0",),
    }
    found = {name: hook.head(*lines) + hook.chunks for name, lines in of_lines.items()}
    found["identity, and no length"] = hook.head(b"Transfer-Encoding: identity") + hook.body
    return {f"Transfer-Encoding: {name}": raw for name, raw in found.items()}


def chunks(hook: Webhook) -> dict[str, bytes]:
    size, chunked = len(hook.body), hook.chunks
    found = {
        "LF instead of CR LF": chunked.replace(b"\r\n", b"\n"),
        "a negative size": b"-" + chunked,
        "a size with 0x": b"0x" + chunked,
        "a size with a plus": b"+" + chunked,
        "a size after a space": b" " + chunked,
        "a size before a space": chunked.replace(b"\r\n", b" \r\n", 1),
        "a size of 20 digits": b"f" * 20 + b"\r\n" + hook.body,
        "a size that overflows": b"%x\r\n" % (2**64 + size) + hook.body + b"\r\n0\r\n\r\n",
        "a size that is none": CANARY + b"\r\n" + hook.body,
        "an extension with a bare LF": chunked.replace(b"\r\n", b";a\nb\r\n", 1),
        "an extension that quotes CR LF": chunked.replace(b"\r\n", b';a="\r\n"\r\n', 1),
        "no end of a chunk": chunked.replace(b"\r\n0\r\n", b"0\r\n"),
        "another end of a chunk": chunked.replace(b"\r\n0\r\n", b"XX0\r\n"),
        "more than announced": b"%x\r\n" % (size - 1) + hook.body + b"\r\n0\r\n\r\n",
        "a length in the trailer": chunked[:-2] + b"Content-Length: 5\r\n\r\n",
        "an encoding in the trailer": chunked[:-2] + CHUNKED + b"\r\n\r\n",
        "a trailer that is none": chunked[:-2] + CANARY + b"\r\n\r\n",
        "a thousand trailers": chunked[:-2] + b"X: y\r\n" * 1000 + b"\r\n",
    }
    return {f"chunks: {name}": hook.head(CHUNKED) + raw for name, raw in found.items()}


def starts(hook: Webhook) -> dict[str, bytes]:
    """Requests for something else, in another protocol, or of nothing."""
    return {
        "HTTP/0.9": b"POST /webhooks/stripe\r\n\r\n",
        "HTTP/0.9 with a version": hook.asking(b"POST /webhooks/stripe HTTP/0.9"),
        "HTTP/1.10": hook.asking(b"POST /webhooks/stripe HTTP/1.10"),
        "HTTP/2.0": hook.asking(b"POST /webhooks/stripe HTTP/2.0"),
        "http in small letters": hook.asking(b"POST /webhooks/stripe http/1.1"),
        "a method in small letters": hook.asking(b"post /webhooks/stripe HTTP/1.1"),
        "an unknown method": hook.asking(CANARY.upper() + b" /webhooks/stripe HTTP/1.1"),
        "a tab between": hook.asking(b"POST\t/webhooks/stripe\tHTTP/1.1"),
        "a space in the target": hook.asking(b"POST /webhooks/stripe x HTTP/1.1"),
        "a target with a port that is none": hook.asking(b"POST http://x:99999/webhooks/stripe HTTP/1.1"),
        "a target that is a path up": hook.asking(b"POST /webhooks/x/../stripe HTTP/1.1"),
        "a target with two slashes": hook.asking(b"POST //webhooks/stripe HTTP/1.1"),
        "a target of percent signs": hook.asking(b"POST /webhooks/%00%ff%2e%2e%zz HTTP/1.1"),
        "CONNECT": hook.asking(b"CONNECT bridge.test:80 HTTP/1.1"),
        "CONNECT to a path": hook.asking(b"CONNECT /webhooks/stripe HTTP/1.1"),
        "CONNECT to nowhere": hook.asking(b"CONNECT a:b:c HTTP/1.1"),
        "OPTIONS *": hook.asking(b"OPTIONS * HTTP/1.1"),
        "TRACE": hook.head(start=b"TRACE /webhooks/stripe HTTP/1.1"),
        "RTSP": hook.asking(b"OPTIONS * RTSP/1.0"),
        "Icecast": hook.asking(b"SOURCE /webhooks/stripe ICE/1.0"),
        "HTTP/2 from the start": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        "a TLS greeting": bytes.fromhex("1603010200010001fc0303") + bytes(range(256)) * 2 + b"\r\n\r\n",
        "an old web socket": hook.asking(b"GET / HTTP/1.1", b"Sec-WebSocket-Key1: 1", b"Upgrade: websocket"),
        "an upgrade without a body": hook.head(b"Connection: Upgrade", b"Upgrade: websocket", start=b"GET / HTTP/1.1"),
        "an unknown expectation": hook.asking(b"POST /webhooks/stripe HTTP/1.1", b"Expect: " + CANARY),
        "no host": hook.asking(b"POST /webhooks/stripe HTTP/1.1").replace(b"Host: bridge.test\r\n", b""),
    }


def heads(hook: Webhook) -> dict[str, bytes]:
    """Too much of one."""
    start = b"POST /webhooks/stripe HTTP/1.1"
    return {
        "a request line of 1 MB": hook.asking(b"POST /webhooks/stripe?" + b"a" * 1_000_000 + b" HTTP/1.1"),
        "a header of 1 MB": hook.asking(start, b"X: " + b"a" * 1_000_000),
        "a header's name of 1 MB": hook.asking(start, b"X" * 1_000_000 + b": a"),
        "ten thousand headers": hook.asking(start, *[b"X: a"] * 10_000),
        "fifty headers of 4 KB, and no end": hook.asking(start, *[b"X: " + b"a" * 4000] * 50)[: -len(hook.body) - 2],
    }


def clear(hook: Webhook) -> dict[str, bytes]:
    """Odd, but there is one way only to read it."""
    start = b"POST /webhooks/stripe HTTP/1.1"
    return {
        "spaces around the length": hook.head(b"Content-Length:  %d  " % len(hook.body)) + hook.body,
        "a length that begins with zeros": hook.head(b"Content-Length: 000%d" % len(hook.body)) + hook.body,
        "empty lines before": b"\r\n\r\n" + hook.head(hook.length) + hook.body,
        "chunks": hook.head(CHUNKED) + hook.chunks,
        "CHUNKED": hook.head(CHUNKED.upper()) + hook.chunks,
        "identity, chunked": hook.head(b"Transfer-Encoding: identity, chunked") + hook.chunks,
        "an extension of a chunk": hook.head(CHUNKED) + hook.chunks.replace(b"\r\n", b";a=b\r\n", 1),
        "an extension of 1 MB": hook.head(CHUNKED) + hook.chunks.replace(b"\r\n", b";" + b"a" * 1_000_000 + b"\r\n", 1),
        "a trailer": hook.head(CHUNKED) + hook.chunks[:-2] + b"X: y\r\n\r\n",
        "the whole URL": hook.asking(b"POST http://bridge.test/webhooks/stripe HTTP/1.1"),
        "a target in percent signs": hook.asking(b"POST /webhooks/%73tripe HTTP/1.1"),
        "a query": hook.asking(b"POST /webhooks/stripe?a=b HTTP/1.1"),
        "a head of 16 KB": hook.asking(start, *[b"X: " + b"a" * 4000] * 4),
    }

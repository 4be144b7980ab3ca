"""Headers and bodies that no provider sends: strategies of hypothesis for the tests of what may be sent all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any
from urllib.parse import urlencode

from hypothesis import strategies as st

from bridge.model import Payload
from fuzz import promises, seeds
from fuzz.subjects import subjects

# Surrogates too: that is how aiohttp passes on header bytes that are not UTF-8.
TEXT = st.text(st.characters(exclude_categories=[]), max_size=40)
# Separators of every scheme, again and again; digits of other scripts; what is very long.
REPEATED = st.builds(
    lambda part, times: part * times,
    st.sampled_from(["", ",", "=", " ", ", ", "t=", "v1=", "t=1,", "v1=00,", ",=", "ab", "１", "é", "\udce9", "\x1f"]),
    st.integers(0, 40) | st.sampled_from([1000, 20_000]),
)
HEADER = TEXT | REPEATED | st.binary(max_size=60).map(lambda sent: sent.decode("utf-8", "surrogateescape"))

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([10**30, -(10**400)])
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=9)
    | st.sampled_from(["x" * 256, "\0", "\ud800", "\N{GRINNING FACE}" * 255, "inngest/x", "2026-11-18T12:26:40Z"])
    | st.just("deep")
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def bodies(subject: str) -> st.SearchStrategy[bytes]:
    """Any bytes, any JSON, and what the provider sends with some of its values replaced or left out."""
    payloads = _altered([*_recorded(subject), {"id": "evt_1", "type": "a.b", "token": "t"}])
    written = VALUES.map(_json) | payloads.map(_json) | payloads.map(_form) | payloads.map(_interaction)
    return st.binary(max_size=200) | written | st.tuples(written, st.binary(max_size=3)).map(b"".join)


def objects() -> st.SearchStrategy[bytes]:
    """What nobody can find fault with: objects of JSON, of any Unicode, an id and a type among them."""
    text = st.text(max_size=9)
    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    )
    return st.builds(
        lambda others, plain: json.dumps({**others, "id": "evt_1", "type": "a.b"}, ensure_ascii=plain).encode(),
        st.dictionaries(text, values, max_size=5),
        st.booleans(),
    )


def _recorded(subject: str) -> list[Payload]:
    provider = subjects()[subject]
    return [provider.parse(promises.signed(provider, sample)) for sample in seeds.recorded(subject)]


def _altered(payloads: list[Payload]) -> st.SearchStrategy[Payload]:
    """One of them, in which up to three values are others, wherever they stand, or are gone."""

    @st.composite
    def altered(draw: st.DrawFn) -> Payload:
        changed = deepcopy(payloads[draw(st.integers(0, len(payloads) - 1))])
        for _ in range(draw(st.integers(0, 3))):
            slots = list(_slots(changed))
            if slots:
                holder, key = slots[draw(st.integers(0, len(slots) - 1))]
                if draw(st.booleans()):
                    holder[key] = draw(VALUES)
                else:
                    del holder[key]
        return changed

    return altered()


def _slots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where each value in it stands: what holds it, and under which key."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield value, key
        yield from _slots(each)


def _json(value: object) -> bytes:
    """With a depth in place of the text `deep`: strategies could not handle the value itself."""
    return json.dumps(value).encode().replace(b'"deep"', seeds.DEEP)


def _form(payload: Payload) -> bytes:
    fields = {name: value if isinstance(value, str) else json.dumps(value) for name, value in payload.items()}
    return urlencode(fields, errors="surrogatepass").encode()


def _interaction(payload: Payload) -> bytes:
    """As Slack wraps what a person did."""
    return urlencode({"payload": _json(payload)}).encode()

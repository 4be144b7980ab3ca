"""What anybody may send to any provider and any signature scheme: whatever is in it, it is let in or rejected, and no more.

Rightly signed, it is let in; one field away from that, it is not. New providers and schemes are found by themselves.
The promises are in `fuzz/promises.py`: `make fuzz` holds them too.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strange import HEADER, bodies, objects

from bridge import providers
from bridge.errors import Reason
from bridge.model import Delivery, WebhookRequest
from bridge.verify import Provider
from fuzz import promises
from fuzz.promises import NOW, TOLERANCE, WRONG, accepted, answered, is_stamped, rejected, repeated, signed
from fuzz.subjects import configured, kinds, subjects

# One at a time each provider, and each kind of scheme in all its forms.
ASKED = {name: [name] for name in providers.load()} | {name: list(configured(kind)) for name, kind in kinds().items()}

# No word of a scheme, such as `v1`, and no base64, in which the case of a letter is a part of it.
HEX_MAC = re.compile(r"(?<![0-9A-Za-z+/])[0-9a-f]{32,}(?![0-9A-Za-z+/=])")

every = pytest.mark.parametrize("asked", ASKED)
some = settings(max_examples=30, deadline=None)
many = settings(max_examples=120, deadline=None)


def one_of(asked: str, data: st.DataObject) -> tuple[Provider, str]:
    name = data.draw(st.sampled_from(ASKED[asked]))
    return subjects()[name], name


def right(asked: str, data: st.DataObject) -> tuple[Provider, WebhookRequest]:
    """Signed, whatever its body says."""
    provider, _ = one_of(asked, data)
    return provider, signed(provider, data.draw(st.binary(max_size=30)))


def headed(request: WebhookRequest, name: str, value: str) -> WebhookRequest:
    return replace(request, headers={**request.headers, name: value})


def test_every_provider_and_every_scheme_is_asked() -> None:
    assert set(providers.load()) < set(ASKED)
    assert {"BodyMac", "StampedMac", "StampedList"} <= set(ASKED)
    assert {name for names in ASKED.values() for name in names} == set(subjects())


# --- what is right


@every
@many
@given(data=st.data())
def test_whatever_is_rightly_signed_is_a_delivery_that_can_be_stored_or_a_handshake(
    asked: str, data: st.DataObject
) -> None:
    provider, name = one_of(asked, data)
    accepted(provider, signed(provider, data.draw(bodies(name))))


@every
@some
@given(data=st.data())
def test_what_the_provider_sends_again_has_the_same_id(asked: str, data: st.DataObject) -> None:
    provider, name = one_of(asked, data)
    repeated(provider, data.draw(bodies(name)), later=data.draw(st.integers(0, 3 * 86_400_000)))


@pytest.mark.parametrize("asked", kinds())
@some
@given(data=st.data(), body=objects())
def test_an_object_of_json_with_an_id_and_a_type_has_no_fault(asked: str, data: st.DataObject, body: bytes) -> None:
    provider, _ = one_of(asked, data)
    found = accepted(provider, signed(provider, body))
    assert isinstance(found, Delivery)
    assert (found.id, found.type, found.fault) == ("evt_1", "a.b", "")


# --- what is anything


@every
@many
@given(data=st.data())
def test_whatever_the_headers_hold_nothing_is_let_in_but_what_the_provider_signed(
    asked: str, data: st.DataObject
) -> None:
    """Each header is missing, right, right but for a part, or anything at all."""
    provider, request = right(asked, data)
    headers = {}
    for name, value in request.headers.items():
        given_ = data.draw(st.sampled_from(["missing", "right", "spoilt", "anything"]))
        if given_ == "right":
            headers[name] = value
        elif given_ == "spoilt":
            places = st.integers(0, len(value))
            start, end = sorted((data.draw(places), data.draw(places)))
            headers[name] = value[:start] + data.draw(HEADER) + value[end:]
        elif given_ == "anything":
            headers[name] = data.draw(HEADER)
    sent = replace(request, headers=headers)
    answered(provider, sent, right=request)
    rejected(provider, sent, secrets=(WRONG,))
    rejected(provider, sent, secrets=())


# --- what is one field away from right


@every
@some
@given(data=st.data())
def test_a_byte_more_a_byte_less_or_another_byte_of_the_body_is_a_mismatch(asked: str, data: st.DataObject) -> None:
    provider, request = right(asked, data)
    body, place = request.body, data.draw(st.integers(0, max(0, len(request.body) - 1)))
    other = bytes([body[place] ^ data.draw(st.integers(1, 255))]) if body else b"x"
    for changed in {body[:place] + other + body[place + 1 :], body[:place] + b"\0" + body[place:], body[:-1]} - {body}:
        assert rejected(provider, replace(request, body=changed)) is Reason.MISMATCH


@every
@many
@given(data=st.data())
def test_another_character_of_a_header_is_rejected_but_for_the_case_of_hex(asked: str, data: st.DataObject) -> None:
    provider, request = right(asked, data)
    name = data.draw(st.sampled_from(sorted(request.headers)))
    value = request.headers[name]
    place = data.draw(st.integers(0, len(value) - 1))
    near = st.sampled_from([value[place].swapcase(), chr(ord(value[place]) ^ 1), "0", "é", "\udce9", "１"])
    other = data.draw((near | st.characters(exclude_categories=[])).filter(lambda drawn: drawn != value[place]))
    sent = headed(request, name, value[:place] + other + value[place + 1 :])
    is_hex = any(mac.start() <= place < mac.end() for mac in HEX_MAC.finditer(value))
    if is_hex and other == value[place].swapcase():
        accepted(provider, sent)
    else:
        rejected(provider, sent)


@every
@some
@given(data=st.data())
def test_a_header_of_which_a_part_is_gone_is_rejected(asked: str, data: st.DataObject) -> None:
    """Its prefix, its end, or a part in between."""
    provider, request = right(asked, data)
    name = data.draw(st.sampled_from(sorted(request.headers)))
    value = request.headers[name]
    start = data.draw(st.integers(0, len(value) - 1))
    end = data.draw(st.sampled_from([start + 1, len(value)]) | st.integers(start + 1, len(value)))
    rejected(provider, headed(request, name, value[:start] + value[end:]))
    rejected(provider, headed(request, name, value[end:]))


@every
@some
@given(data=st.data())
def test_a_header_that_is_missing_empty_or_sent_twice_is_rejected(asked: str, data: st.DataObject) -> None:
    provider, request = right(asked, data)
    for name, value in request.headers.items():
        others = {other: kept for other, kept in request.headers.items() if other != name}
        assert rejected(provider, replace(request, headers=others)) is Reason.MISSING
        assert rejected(provider, headed(request, name, "")) is Reason.MISSING
        for twice in (f"{value}, {value}", f"{value}, ", f", {value}", f"{value}, {'0' * len(value)}"):
            answered(provider, headed(request, name, twice), right=request)
        rejected(provider, headed(request, name, f"{value}, {value}"))


@every
@some
@given(data=st.data())
def test_the_secret_of_another_source_is_a_mismatch(asked: str, data: st.DataObject) -> None:
    provider, request = right(asked, data)
    assert rejected(provider, request, secrets=(WRONG,)) is Reason.MISMATCH
    assert rejected(provider, signed(provider, request.body, secret=WRONG)) is Reason.MISMATCH
    assert rejected(provider, request, secrets=()) is Reason.MISMATCH
    assert promises.verdict(provider, request, secrets=(WRONG, promises.RIGHT)) == accepted(provider, request)


@every
@some
@given(data=st.data())
def test_the_headers_of_another_body_or_of_another_time_are_a_mismatch(asked: str, data: st.DataObject) -> None:
    provider, request = right(asked, data)
    other = signed(provider, request.body + b" ")
    assert rejected(provider, replace(request, headers=other.headers)) is Reason.MISMATCH
    earlier = signed(provider, request.body, at=NOW - data.draw(st.integers(1, TOLERANCE // 1000)) * 1000)
    for name, value in earlier.headers.items() if len(earlier.headers) > 1 else ():
        if value != request.headers[name]:
            assert rejected(provider, headed(request, name, value)) is Reason.MISMATCH


@every
@many
@given(data=st.data())
def test_beyond_the_tolerance_it_is_rejected_and_within_it_accepted(asked: str, data: st.DataObject) -> None:
    """To the millisecond, ours against the whole seconds of the signature."""
    provider, request = right(asked, data)
    edges = [0, TOLERANCE + 999, TOLERANCE + 1000, -TOLERANCE, -TOLERANCE - 1]
    late = data.draw(st.sampled_from(edges) | st.integers(-2 * TOLERANCE, 2 * TOLERANCE) | st.integers(-NOW, NOW))
    if not is_stamped(provider) or -TOLERANCE <= late <= TOLERANCE + 999:
        accepted(provider, request, now=NOW + late)
    else:
        reason = rejected(provider, request, now=NOW + late)
        assert reason is (Reason.TOO_OLD if late > 0 else Reason.IN_FUTURE)
        assert rejected(provider, request, secrets=(WRONG,), now=NOW + late) is Reason.MISMATCH


@every
@some
@given(data=st.data(), at=st.integers(-(10**21), 10**21))
def test_signed_at_another_time_it_is_rejected_whatever_that_is(asked: str, data: st.DataObject, at: int) -> None:
    """Also before 1970, and when seconds have more digits than any honest sender writes."""
    provider, right_now = right(asked, data)
    sent = signed(provider, right_now.body, at=at)
    if not is_stamped(provider) or -TOLERANCE <= NOW - at // 1000 * 1000 <= TOLERANCE + 999:
        accepted(provider, sent)
    else:
        assert rejected(provider, sent) in {Reason.TOO_OLD, Reason.IN_FUTURE, Reason.MALFORMED}

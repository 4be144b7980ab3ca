"""What every provider makes of authentic bodies that are not as they should be: what is kept of each, and what is said of it.

A new one is found by itself, as in `test_providers.py`. What holds for any body at all is in `test_requests.py`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from bridge import providers, samples
from bridge.errors import Unusable
from bridge.model import Delivery, Entry, Handshake, Payload, Source, WebhookRequest
from bridge.payload import at
from bridge.verify import restore, verify

NOW = 1_795_000_000_000
PROVIDERS = providers.load()
SAMPLES = [(provider, name) for provider in PROVIDERS for name in samples.names(provider)]

every = pytest.mark.parametrize("name", PROVIDERS)


def check(name: str, body: bytes) -> Delivery | Handshake:
    headers = PROVIDERS[name].scheme.sign(body, secret=b"right", now=NOW)
    request = WebhookRequest(headers=headers, body=body, received_at=NOW)
    source = Source(name="mine", provider=name, prefix="p", secrets=(b"right",))
    return verify(request, source=source, provider=PROVIDERS[name], now=NOW)


def deliver(name: str, body: bytes) -> Delivery:
    found = check(name, body)
    assert isinstance(found, Delivery)
    return found


@every
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        *(pytest.param(plain, id=plain.decode()) for plain in (b"{}", b"null", b"[]", b"[{}]", b"1", b'"text"', b"{")),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="deep array"),
        pytest.param(b'{"id":' * 100_000 + b"1" + b"}" * 100_000, id="deep object"),
        pytest.param(b'{"id":NaN}', id="NaN"),
        pytest.param(b"\x00", id="NUL"),
        pytest.param(b'{"id":"\xff\xfe"}', id="not UTF-8"),
        pytest.param("{}".encode("utf-16"), id="UTF-16"),
        pytest.param(gzip.compress(b"{}", mtime=0), id="gzip"),
    ],
)
def test_an_unusable_body_is_stored_with_a_fault_under_its_own_hash(name: str, body: bytes) -> None:
    delivery = deliver(name, body)
    assert delivery.fault and delivery.fault.isprintable()
    assert delivery.id.startswith("sha256:")
    assert delivery.id == deliver(name, body).id != deliver(name, body + b" ").id
    assert (delivery.type, delivery.payload, delivery.occurred_at, delivery.body) == ("", {}, NOW, body)


@every
@pytest.mark.parametrize(
    "last", [b"NaN", b"[" * 100_000 + b"]" * 100_000, b'"\x00"', b'"\xff"'], ids=["NaN", "deep", "NUL", "not UTF-8"]
)
def test_a_right_body_with_one_wrong_value_is_unusable_too(name: str, last: bytes) -> None:
    for body in json_bodies(name):
        assert not deliver(name, body.rstrip()[:-1] + b',"x":1}').fault
        assert deliver(name, body.rstrip()[:-1] + b',"x":' + last + b"}").id.startswith("sha256:")


@every
def test_of_duplicate_keys_the_last_counts(name: str) -> None:
    for body, path, _ in spoilable(name, "id"):
        first = json.dumps({path[0]: "first"}).encode()
        assert deliver(name, first[:-1] + b"," + body.strip()[1:]).id == deliver(name, body).id


WRONG = [None, 5, True, [], {}, ["x"], {"x": "x"}, "", "x" * 10_000, "a\nb", "a\u0000b", "a\u2028b", "\x1b[2J"]
FORBIDDEN = ["inngest/x", "Inngest/function.finished"]


@every
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: ascii(wrong)[:20])
def test_an_id_that_is_no_name_is_a_fault_and_the_hash_stands_in_for_it(name: str, wrong: object) -> None:
    for _, path, payload in spoilable(name, "id"):
        delivery = deliver(name, spoilt(payload, path, wrong))
        assert delivery.fault.startswith(".".join(path)) and len(delivery.fault) < 100
        assert delivery.id.startswith("sha256:")


@every
@pytest.mark.parametrize("wrong", [*WRONG, *FORBIDDEN], ids=lambda wrong: ascii(wrong)[:20])
def test_where_only_the_type_is_bad_the_real_id_is_kept(name: str, wrong: object) -> None:
    for body, path, payload in spoilable(name, "type"):
        delivery = deliver(name, spoilt(payload, path, wrong))
        assert delivery.fault.startswith(f"{'.'.join(path)}: ") and len(delivery.fault) < 100
        assert (delivery.id, delivery.type, delivery.payload) == (deliver(name, body).id, "", {})


@every
@pytest.mark.parametrize("field", ["id", "type"])
def test_without_an_id_or_a_type_it_is_a_fault(name: str, field: str) -> None:
    for _, path, payload in spoilable(name, field):
        del at(payload, *path[:-1])[path[-1]]
        assert deliver(name, json.dumps(payload).encode()).fault.endswith(": missing")


@pytest.mark.parametrize("name", ["intercom", "slack", "stripe"])
@pytest.mark.parametrize("field", ["id", "type"])
def test_samples_show_where_the_id_and_the_type_lie(name: str, field: str) -> None:
    """Or the tests above would test nothing."""
    assert any(True for _ in spoilable(name, field))


def json_bodies(name: str) -> Iterator[bytes]:
    for sample in samples.names(name):
        body = samples.body(name, sample)
        if body.startswith(b"{"):
            yield body


def spoilable(name: str, field: str) -> Iterator[tuple[bytes, tuple[str, ...], Payload]]:
    """The samples that hold the delivery's id (or type) as it is, and only that depends on it: where it lies."""
    for body in json_bodies(name):
        delivery, payload = deliver(name, body), json.loads(body)
        for path in paths(payload, named(delivery)[field]):
            other = deliver(name, spoilt(payload, path, "another"))
            if named(other) == {**named(delivery), field: "another"}:
                yield body, path, deepcopy(payload)


def named(delivery: Delivery) -> dict[str, str]:
    return {"id": delivery.id, "type": delivery.type}


def paths(value: object, wanted: str) -> Iterator[tuple[str, ...]]:
    if value == wanted:
        yield ()
    elif isinstance(value, dict):
        yield from ((key, *path) for key, inner in value.items() for path in paths(inner, wanted))


def spoilt(payload: Payload, path: tuple[str, ...], wrong: object) -> bytes:
    changed: dict[str, Any] = deepcopy(payload)
    at(changed, *path[:-1])[path[-1]] = wrong
    return json.dumps(changed).encode()


@pytest.mark.parametrize(("name", "sample"), SAMPLES)
def test_an_entry_gives_the_delivery_it_was(name: str, sample: str) -> None:
    delivery = deliver(name, samples.body(name, sample))
    assert restore(Entry.of(delivery), provider=PROVIDERS[name]) == delivery


@every
def test_an_entry_with_a_fault_or_without_its_body_gives_none(name: str) -> None:
    whole = Entry.of(deliver(name, samples.body(name, samples.names(name)[0])))
    for unusable in (Entry.of(deliver(name, b"{}")), replace(whole, body=None), replace(whole, headers=None)):
        with pytest.raises(Unusable):
            restore(unusable, provider=PROVIDERS[name])

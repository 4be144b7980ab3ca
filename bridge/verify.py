"""Request in, Delivery or Handshake out, or `Rejected`. Pure: bytes, secrets and the time are arguments.

The only module that makes a Delivery: from a request whose signature held, or from an entry that was one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from bridge.errors import Unusable
from bridge.model import Delivery, Entry, Handshake, Payload, Source, WebhookRequest
from bridge.payload import at, json_object, usable
from bridge.schemes import Scheme

# Bytes of an id, which a journal looks for: an id of one part is never longer.
_LONGEST_ID = 1020


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What an authentic payload says of itself."""

    id: str
    type: object
    """As it stands in the payload: `verify` checks it, so that a delivery whose type is odd keeps its id."""
    type_at: str = "type"
    """Where it stands, for a person."""
    occurred_at: int | None = None
    """ms; None where the provider does not say: then it happened when it was received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A third party: how it signs, shakes hands, names and dates its webhooks. One a module in `bridge/providers/`."""

    name: str
    docs: str
    """Where the provider itself describes all this."""
    dashboard: str
    """Where a person pastes the URL and finds the secret: shown by `bridge sources`."""
    environment: str
    """The variable whose secrets enable the source of this name."""
    scheme: Scheme
    identify: Callable[[Payload, WebhookRequest], Identity]
    """From the parsed payload; raises `Unusable`."""
    parse: Callable[[WebhookRequest], Payload] = field(default=lambda request: json_object(request.body))
    """The body as an object; raises `Unusable`."""
    handshake: Callable[[Payload], Handshake | None] = field(default=lambda _: None)
    user: Callable[[Payload], Mapping[str, Any]] = field(default=lambda _: {})
    """The identifiers of whom it is about, for `event.user`."""
    secret_fields: tuple[tuple[str, ...], ...] = ()
    """Paths to the secrets the provider puts into its payloads: no transform and no event sees them."""
    headers: tuple[str, ...] = ()
    """Lower-case names of more headers to keep with the delivery."""
    unavailable_status: int = 503
    """What to answer while a delivery can't be stored, so that the provider comes again."""


def verify(request: WebhookRequest, *, source: Source, provider: Provider, now: int) -> Delivery | Handshake:
    """Check the signature, then read what was signed.

    An authentic body that can't be used gives a Delivery with a `fault`: it is stored, not refused.
    Raises `Rejected` and nothing else.
    """
    provider.scheme.check(request, secrets=source.secrets, now=now, tolerance=source.tolerance)
    id_ = ""
    try:
        payload = provider.parse(request)
        handshake = provider.handshake(payload)
        if handshake is not None:
            return handshake
        identity = provider.identify(payload, request)
        id_ = identity.id
        return _delivery(request, identity, _without(payload, provider.secret_fields), source=source)
    except Unusable as unusable:
        # Without an id of its own, its bytes are all that tells it apart.
        id_ = id_ or _digest(request.body)
        return _delivery(request, Identity(id=id_, type=None), {}, source=source, fault=str(unusable))


def restore(entry: Entry, *, provider: Provider) -> Delivery:
    """The delivery an entry was. Raises `Unusable` where it has a fault still, or its body was purged."""
    if entry.body is None or entry.headers is None:
        raise Unusable("the body was purged")
    request = WebhookRequest(headers=entry.headers, body=entry.body, received_at=entry.received_at)
    payload = provider.parse(request)
    if provider.handshake(payload) is not None:  # raises for one that was stored with a fault, as it did then
        raise Unusable("a handshake gives no event")
    identity = provider.identify(payload, request)
    source = Source(name=entry.source, provider=entry.provider, prefix=entry.prefix, secrets=())
    return _delivery(request, identity, _without(payload, provider.secret_fields), source=source)


def _delivery(
    request: WebhookRequest, identity: Identity, payload: Payload, *, source: Source, fault: str = ""
) -> Delivery:
    return Delivery(
        source=source.name,
        provider=source.provider,
        prefix=source.prefix,
        id=_bounded(identity.id),
        type="" if fault else _type(identity),
        occurred_at=request.received_at if identity.occurred_at is None else identity.occurred_at,
        received_at=request.received_at,
        headers=request.headers,
        body=request.body,
        payload=payload,
        fault=fault,
    )


def _bounded(id_: str) -> str:
    """As it is, or its digest where no database could index it: a provider may compose an id of several long parts."""
    if 4 * len(id_) <= _LONGEST_ID:  # in UTF-8 a character takes four bytes at most
        return id_
    written = id_.encode(errors="backslashreplace")
    return id_ if len(written) <= _LONGEST_ID else _digest(written)


def _digest(of: bytes) -> str:
    return f"sha256:{sha256(of).hexdigest()}"


def _type(identity: Identity) -> str:
    name = usable(identity.type, identity.type_at)
    if name.lower().startswith("inngest/"):
        raise Unusable(f"{identity.type_at}: begins with `inngest/`, which Inngest keeps for its own events")
    return name


def _without(payload: Payload, secret_fields: tuple[tuple[str, ...], ...]) -> Payload:
    for *path, name in secret_fields:
        holder = at(payload, *path)
        if isinstance(holder, dict):
            holder.pop(name, None)
    return payload

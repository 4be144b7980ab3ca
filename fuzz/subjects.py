"""What is fuzzed: every provider there is, and every signature scheme in each way it can be configured.

Both are found by themselves: one that is added later is fuzzed and tested without a word said here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bridge import providers, schemes
from bridge.model import Payload, WebhookRequest
from bridge.payload import text
from bridge.schemes import Scheme
from bridge.verify import Identity, Provider

# What a field of this name is given; of a field that is not here, its type or its default tells.
_VALUES: Mapping[str, tuple[Any, ...]] = {
    "header": ("x-signature",),
    "stamp_header": ("x-timestamp",),
    "prefix": ("", "v0=", "sha256="),
    "before": (b"", b"v0:", b"\x00\xff"),
    "between": (b".", b":", b""),
    "digest": ("sha256", "sha1", "sha512"),
    "stamp": ("t", "time"),
    "mac": ("v1", "s"),
}


@cache
def subjects() -> Mapping[str, Provider]:
    """By name. A scheme is asked as that of a provider which has nothing else of its own."""
    found = dict(providers.load())
    for kind in kinds().values():
        found |= {label: _plain(label, scheme) for label, scheme in configured(kind).items()}
    return MappingProxyType(found)


def kinds() -> Mapping[str, type]:
    """Each kind of scheme in `bridge.schemes`, by its name."""
    return {
        name: found
        for name, found in vars(schemes).items()
        if is_dataclass(found) and isinstance(found, type) and hasattr(found, "check") and hasattr(found, "sign")
    }


def configured(kind: type) -> Mapping[str, Scheme]:
    """A scheme of this kind, and one more for every other value that one of its fields can have."""
    hints = get_type_hints(kind)
    choices = {field.name: _choices(kind, field, hints[field.name]) for field in fields(kind) if field.init}
    first = {name: values[0] for name, values in choices.items() if values}
    return {label: kind(**(first | other)) for label, other in _variants(kind, choices)}


def _variants(kind: type, choices: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield kind.__name__, {}
    for name, values in choices.items():
        for value in values[1:]:
            yield f"{kind.__name__}({name}={value!r})", {name: value}


def _choices(kind: type, field: Field[Any], hint: object) -> tuple[Any, ...]:
    """Empty: its default alone. Raises LookupError where nothing tells what may stand there."""
    if field.name in _VALUES:
        return _VALUES[field.name]
    if hint is bool:
        return (False, True)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return tuple(hint)
    if get_origin(hint) is Literal:
        return get_args(hint)
    if field.default is MISSING and field.default_factory is MISSING:
        raise LookupError(f"{kind.__name__}.{field.name}: say in fuzz/subjects.py which values it can have")
    return ()


def _plain(name: str, scheme: Scheme) -> Provider:
    return Provider(
        name=name, docs="", dashboard="", environment="", scheme=scheme, identify=_identify, secret_fields=(("token",),)
    )


def _identify(payload: Payload, request: WebhookRequest) -> Identity:
    del request
    return Identity(id=text(payload, "id"), type=payload.get("type"))

"""Recorded webhooks of each provider, one file a type, and a way to make a new delivery of one.

A file holds a body as it travels, byte for byte: `{provider}/{name}.json`, or `.form` for a form. Its values are
invented. Pure but for reading those files: the time and what makes a delivery unlike the last are arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import shake_256
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import ascii_lowercase, ascii_uppercase, digits, hexdigits
from urllib.parse import parse_qsl, urlencode

from bridge.model import WebhookRequest
from bridge.verify import Provider

# The value of a key, never a number in a text. Ten digits, a one first: 2001 to 2033.
_SECONDS = re.compile(r'("\s*:\s*)(1[0-9]{9})(?=[,\s}])')
# Slack's timestamps: seconds, a dot, and microseconds, of which the last three only tell messages apart.
_TS = re.compile(r'(")(1[0-9]{9}\.[0-9]{3})(?=[0-9]{3}")')
_ISO = re.compile(r'(")([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3})(?=Z")')


def names(provider: str) -> list[str]:
    """What there is of this provider, in alphabetical order."""
    return sorted(_recorded(provider))


def body(provider: str, name: str) -> bytes:
    """The recorded body. Raises LookupError, naming what there is."""
    recorded = _recorded(provider)
    if name not in recorded:
        raise LookupError(f"no sample `{name}` of {provider}; there are: {', '.join(sorted(recorded)) or 'none'}")
    return recorded[name].read_bytes()


def fresh(provider_record: Provider, body: bytes, *, now: int, nonce: str) -> bytes:
    """The same body as a new delivery: with another id of the same look, and all its times moved so that it happened now.

    Another nonce gives another id. Raises Unusable where the provider finds no id in it.
    """
    request = WebhookRequest(headers={}, body=body, received_at=now)
    identity = provider_record.identify(provider_record.parse(request), request)
    delay = 0 if identity.occurred_at is None else now - identity.occurred_at

    def renewed(text: str) -> str:
        for part in identity.id.split(":"):  # an id made of several fields
            if _is_unique(part):
                text = text.replace(part, _another(part, nonce))
        return _moved(text, delay)

    text = body.decode()
    if text.lstrip().startswith("{"):
        return renewed(text).encode()
    fields = parse_qsl(text, keep_blank_values=True)
    return urlencode([(name, renewed(value)) for name, value in fields]).encode()


def _recorded(provider: str) -> dict[str, Traversable]:
    folder = files(__name__).joinpath(provider)
    if not folder.is_dir():
        return {}
    return {entry.name.rpartition(".")[0]: entry for entry in folder.iterdir()}


def _is_unique(part: str) -> bool:
    """Not a word such as `block_actions`, nor a time, which is moved instead."""
    return any(map(str.isdigit, part)) and any(map(str.isalpha, part))


def _another(part: str, nonce: str) -> str:
    """Each letter and digit another one of its kind, behind what says whose id it is: `evt_`, `Ev`."""
    start = max(part.rfind("_") + 1, 2)
    is_hex = set(part[start:]) <= {*hexdigits, "-", "."}
    dice = shake_256(f"{nonce}:{part}".encode()).digest(len(part))
    letters = [_like(character, die, is_hex=is_hex) for character, die in zip(part, dice, strict=True)]
    return part[:start] + "".join(letters[start:])


def _like(character: str, die: int, *, is_hex: bool) -> str:
    for kind in (digits, ascii_lowercase, ascii_uppercase):
        if character in kind:
            choices = kind[:6] if is_hex and kind is not digits else kind
            return choices[die % len(choices)]
    return character


def _moved(text: str, delay: int) -> str:
    """Every time in it, `delay` ms later."""
    text = _SECONDS.sub(_rewritten(lambda old: str((int(old) * 1000 + delay) // 1000)), text)
    text = _TS.sub(_rewritten(lambda old: f"{(ms := int(old.replace('.', '')) + delay) // 1000}.{ms % 1000:03}"), text)
    return _ISO.sub(_rewritten(lambda old: _iso(old, delay)), text)


def _rewritten(change: Callable[[str], str]) -> Callable[[re.Match[str]], str]:
    return lambda match: match[1] + change(match[2])


def _iso(old: str, delay: int) -> str:
    try:
        moved = datetime.fromisoformat(old) + timedelta(milliseconds=delay)
    except (ValueError, OverflowError):  # it only looks like a time
        return old
    return moved.isoformat(timespec="milliseconds")

"""Environment and `bridge.toml` in, Settings out, or every fault at once.

The environment wins over the file. A fault names the key or variable and never quotes a value: it may be a secret.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from bridge import providers
from bridge.config import checks, secrets, traces
from bridge.errors import ConfigInvalid
from bridge.settings import EventApiSettings, Settings, declared

# Not taken from the environment as they stand: `secrets` reads them, from files too.
_SECRET = frozenset({"event_api.key", "admin_token"})
_WORDS = {
    "unexpected_keyword_argument": "unknown key",
    "missing": "missing",
    "string_too_short": "empty",
    "string_unicode": "not UTF-8",
    "dataclass_type": "expected a table",
    "dict_type": "expected tables, [sources.NAME]",
    "tuple_type": "expected a list",
    "string_type": "expected a text, in quotes",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "string_too_long": "longer than {max_length} characters",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le:g}",
}

Raw: TypeAlias = dict[str, Any]
File: TypeAlias = tuple[Raw, list[str]]


def load(environment: Mapping[str, str], *, serving: bool = True) -> Settings:
    """The settings, checked. `serving` False: for commands that do without sources, secrets or an event key that are not here.

    Raises ConfigInvalid with every fault.
    """
    settings, faults = read(environment, serving=serving)
    if faults:
        raise ConfigInvalid(faults)
    return settings


def read(
    environment: Mapping[str, str], *, serving: bool = True, file: File | None = None
) -> tuple[Settings, list[str]]:
    """The settings that are right, and a line for each that is not: so that what uses them can be checked all the same.

    `file`: where it was opened already.
    """
    raw, faults = file or open_file(environment)
    is_read = not faults  # what stands in a file that can't be read is not missing
    _overlay(raw, environment)
    secrets.resolve(raw, environment, faults, absent=faults if serving else [])
    missing = list(_missing(raw)) if serving and is_read else []
    _drop_booleans(raw, environment, faults)
    settings = _validate(raw, environment, faults)
    faults += checks.faults(settings, environment)
    faults += missing
    right = checks.right(settings)
    if serving and "admin_token" not in raw:
        faults += checks.exposed(right, environment)
    if serving:
        faults += traces.faults(environment)
    return right, list(dict.fromkeys(faults))


def forget_secrets(environment: MutableMapping[str, str]) -> None:
    """Once they are read: what is started from here on, the user's transforms among it, has no need of them."""
    raw, _ = open_file(environment)
    for name in secrets.variables(raw):
        environment.pop(name, None)


def open_file(environment: Mapping[str, str]) -> File:
    """What stands in `bridge.toml`, and why it can't be read. `read` makes settings of it, and leaves no secret's place in it."""
    named = environment.get("BRIDGE_CONFIG", "")
    path = Path(named or "bridge.toml")
    if not named and not path.exists():
        return {}, []
    try:
        return tomllib.loads(path.read_bytes().decode()), []
    except OSError as error:
        fault = f"{f'BRIDGE_CONFIG: {path}' if named else path}: {error.strerror}"
    except UnicodeDecodeError:
        fault = f"{path}: not UTF-8"
    except tomllib.TOMLDecodeError as error:
        fault = f"{path}: {error}"
    except (ValueError, RecursionError):
        fault = f"{path}: can't be read: a name with a NUL in it, or too deeply nested"
    return {}, [fault]


def _overlay(raw: Raw, environment: Mapping[str, str]) -> None:
    """What the environment says, over what the file says."""
    for key, field in declared():
        for name in filter(None, field.metadata["env"].split(", else ")):
            value = environment.get(name, "")
            # Empty is not set: `NAME=` in an .env file, or `${NAME:-}` in a compose file, makes no wish.
            if not value.strip() or key in _SECRET:
                continue
            _put(raw, key, value.split(":") if key == "transforms" else value)
            break


def _put(raw: Raw, key: str, value: object) -> None:
    *tables, last = key.split(".")
    holder: Any = raw
    for table in tables:
        holder = holder.setdefault(table, {})
        if not isinstance(holder, dict):
            return  # the check of types will name it
    holder[last] = value


def _missing(raw: Raw) -> Iterator[str]:
    """What `bridge serve` can't do without. Only what was not given: what was, and is wrong, is told as wrong."""
    if not raw.get("sources"):
        names = ", ".join(provider.environment for provider in providers.load().values())
        yield f"sources: none is configured; set one of {names}, or write [sources.NAME] in bridge.toml"
    api = raw.get("event_api")
    if isinstance(api, dict) and "key" not in api and not EventApiSettings(dev=str(api.get("dev", ""))).is_dev:
        yield "INNGEST_EVENT_KEY: not set; INNGEST_DEV=1 needs none"


def _drop_booleans(raw: Raw, environment: Mapping[str, str], faults: list[str]) -> None:
    """No setting is one, and pydantic would take `port = true` for port 1."""
    todo: list[tuple[tuple[str, ...], Raw]] = [((), raw)]
    for path, table in todo:
        for key, value in tuple(table.items()):
            if isinstance(value, dict):
                todo.append(((*path, key), value))
            elif isinstance(value, bool):
                faults.append(f"{checks.where((*path, key), environment)}: neither true nor false is a value for it")
                del table[key]


def _validate(raw: Raw, environment: Mapping[str, str], faults: list[str]) -> Settings:
    """Settings of all that is right, so that the other checks can still speak."""
    adapter = TypeAdapter(Settings)
    while True:
        try:
            return adapter.validate_python(raw)
        except ValidationError as error:
            for each in error.errors(include_url=False, include_input=False):
                words = _WORDS.get(each["type"])
                message = words.format(**each.get("ctx", {})) if words else each["msg"][:1].lower() + each["msg"][1:]
                if each["type"] == "unexpected_keyword_argument":
                    message += _meant(each["loc"])
                faults.append(f"{checks.where(each['loc'], environment)}: {message}")
                _drop(raw, list(each["loc"]), missing=each["type"] == "missing")


def _meant(loc: Sequence[int | str]) -> str:
    """The key that was misspelt, if one is near."""
    *table, key = (str(each) for each in loc)
    path = "sources.NAME" if table[:1] == ["sources"] else ".".join(table)
    beside = [name.rpartition(".")[2] for name, _ in declared() if name.rpartition(".")[0] == path]
    near = get_close_matches(key, beside, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def _drop(raw: Raw, loc: list[int | str], *, missing: bool) -> None:
    """Take what is wrong out; for something missing, what it is missing in; for an element of a list, the list."""
    *tables, last = loc[:-1] if missing else loc
    holder: Any = raw
    for key in tables:
        holder = holder.get(key) if isinstance(holder, dict) else None
    if isinstance(holder, dict):
        holder.pop(last, None)
    elif isinstance(holder, list | tuple):
        _drop(raw, tables, missing=False)

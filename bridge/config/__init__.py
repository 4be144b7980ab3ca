"""Environment and `bridge.toml` in, Settings out, or every fault at once.

The environment wins over the file. A fault names the key or variable and never quotes a value: it may be a secret.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bridge import journal, providers
from bridge.config import secrets
from bridge.errors import ConfigInvalid
from bridge.event_api import server_url
from bridge.settings import DEV_SERVER, INNGEST, ON, EventApiSettings, Settings, SourceSettings, declared

# Not taken from the environment as they stand: `secrets` reads them, from files too.
_SECRET = frozenset({"event_api.key", "admin_token"})
_SOURCE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
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

Raw = dict[str, Any]


def load(environment: Mapping[str, str], *, serving: bool = True) -> Settings:
    """The settings, checked. `serving` False: for commands that do without sources, secrets or an event key that are not here.

    Raises ConfigInvalid with every fault.
    """
    settings, faults = read(environment, serving=serving)
    if faults:
        raise ConfigInvalid(faults)
    return settings


def read(environment: Mapping[str, str], *, serving: bool = True) -> tuple[Settings, list[str]]:
    """The settings that are right, and a line for each that is not: so that what uses them can be checked all the same."""
    faults: list[str] = []
    raw = _file(environment, faults)
    is_read = not faults  # what stands in a file that can't be read is not missing
    _overlay(raw, environment)
    secrets.resolve(raw, environment, faults, absent=faults if serving else [])
    missing = list(_missing(raw)) if serving and is_read else []
    _drop_booleans(raw, environment, faults)
    settings = _validate(raw, environment, faults)
    faults += _faults(settings, environment)
    faults += missing
    right = _less_what_is_wrong(settings)
    if serving and "admin_token" not in raw:
        faults += exposed(right, environment)
    return right, list(dict.fromkeys(faults))


def exposed(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """The fault of a private listener that tells everybody everything, in a line."""
    if not settings.is_open_to_others:
        return []
    where = _where(("admin_host",), environment)
    return [f"{where}: others can reach {settings.admin_host}, so set BRIDGE_ADMIN_TOKEN, which they will be asked for"]


def forget_secrets(environment: MutableMapping[str, str]) -> None:
    """Once they are read: what is started from here on, the user's transforms among it, has no need of them."""
    for name in secrets.variables(_file(environment, [])):
        environment.pop(name, None)


def secret_files(environment: Mapping[str, str]) -> set[Path]:
    """Where secrets are read from, and would be read from: not all of them are there."""
    return secrets.files(_file(environment, []), environment)


def _file(environment: Mapping[str, str], faults: list[str]) -> Raw:
    named = environment.get("BRIDGE_CONFIG", "")
    path = Path(named or "bridge.toml")
    if not named and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        faults.append(f"{f'BRIDGE_CONFIG: {path}' if named else path}: {error.strerror}")
    except UnicodeDecodeError:
        faults.append(f"{path}: not UTF-8")
    except tomllib.TOMLDecodeError as error:
        faults.append(f"{path}: {error}")
    except (ValueError, RecursionError):
        faults.append(f"{path}: can't be read: a name with a NUL in it, or too deeply nested")
    return {}


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
                faults.append(f"{_where((*path, key), environment)}: neither true nor false is a value for it")
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
                faults.append(f"{_where(each['loc'], environment)}: {message}")
                _drop(raw, list(each["loc"]), missing=each["type"] == "missing")


def _meant(loc: Sequence[int | str]) -> str:
    """The key that was misspelt, if one is near."""
    *table, key = (str(each) for each in loc)
    path = "sources.NAME" if table[:1] == ["sources"] else ".".join(table)
    beside = [name.rpartition(".")[2] for name, _ in declared() if name.rpartition(".")[0] == path]
    near = get_close_matches(key, beside, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def _where(path: Iterable[int | str], environment: Mapping[str, str]) -> str:
    """The key, or the variable it was set by. A place in a list is the list's."""
    key = ".".join(each for each in path if isinstance(each, str))
    names: list[str] = next((field.metadata["env"].split(", else ") for name, field in declared() if name == key), [])
    return next((name for name in names if name in environment or f"{name}_FILE" in environment), key)


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


def _less_what_is_wrong(settings: Settings) -> Settings:
    """Nobody need try what may not even be a host, a URL or a path. An empty journal names none."""
    return replace(
        settings,
        host=settings.host if _is_host(settings.host) else "127.0.0.1",
        admin_host=settings.admin_host if _is_host(settings.admin_host) else "127.0.0.1",
        journal="" if _journal_fault(settings.journal) else settings.journal,
        transforms=tuple(each for each in settings.transforms if not _directory_fault(each)),
    )


def _faults(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    """What no type can say."""
    if fault := _journal_fault(settings.journal):
        yield f"{_where(('journal',), environment)}: {fault}"
    for key, host in (("host", settings.host), ("admin_host", settings.admin_host)):
        if not _is_host(host):
            yield f"{_where((key,), environment)}: neither an address nor the name of a host"
    for name, source in settings.sources.items():
        yield from _source_faults(f"sources.{name}", name, source)
    for directory in settings.transforms:
        if fault := _directory_fault(directory):
            yield f"{_where(('transforms',), environment)}: {directory}: {fault}"
    if settings.retention.ids < settings.retention.bodies:
        yield "retention.ids: shorter than retention.bodies, but a body without its id would be a new delivery"
    yield from _event_api_faults(settings.event_api, environment)


def _journal_fault(url: str) -> str:
    try:
        return journal.fault_of(url)
    except OSError as error:
        return error.strerror or type(error).__name__
    except ValueError:
        return f"no URL, expected {journal.EXPECTED}"


def _directory_fault(directory: str) -> str:
    """One that can't be listed must not pass for one without modules."""
    try:
        os.scandir(directory).close()
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    except ValueError:
        return "there is a NUL in it"
    return ""


def _is_host(host: str) -> bool:
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return host.isprintable() and " " not in host


def _event_api_faults(api: EventApiSettings, environment: Mapping[str, str]) -> Iterator[str]:
    names_server = api.is_dev and api.dev.lower() not in ON
    try:
        server_url(api.url)
    except ValueError:
        where = _where(("event_api", "dev" if names_server else "base_url"), environment)
        yield f"{where}: expected {'1, 0 or ' if names_server else ''}a URL such as {DEV_SERVER if names_server else INNGEST}"
    if not (api.env.isascii() and api.env.isprintable()):
        yield f"{_where(('event_api', 'env'), environment)}: sent as a header, so it must be printable ASCII"


def _source_faults(path: str, name: str, source: SourceSettings) -> Iterator[str]:
    if not _SOURCE_NAME.fullmatch(name):
        yield f"{path}: a name is lower-case letters, digits, - and _, at most 63: it is part of a URL"
    if source.provider not in providers.load():
        yield f"{path}.provider: unknown, expected one of {', '.join(providers.load())}"
    prefix = source.prefix or source.provider
    if prefix.lower().split("/")[0] == "inngest" or not prefix.isprintable() or prefix.endswith("/"):
        yield f"{path}.prefix: must be printable, not end in / and not be `inngest`"

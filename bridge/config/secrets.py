"""Puts secrets where `bridge.toml` names their place, `env:NAME` or `file:PATH`, and finds those of the usual variables.

A variable's value is in the environment, in the file that NAME_FILE names, or in a file of its name where service managers
put secrets.

No fault quotes a value, nor what stands where a name or a path belongs: it may be the secret itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bridge import providers

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
# Docker's and Podman's place. systemd names its own: https://systemd.io/CREDENTIALS
_CONTAINERS = Path("/run/secrets")
# What one could open every door with; the providers' own variables come on top.
_OURS = ("INNGEST_EVENT_KEY", "BRIDGE_JOURNAL", "BRIDGE_ADMIN_TOKEN")

Raw = dict[str, Any]


def resolve(raw: Raw, environment: Mapping[str, str], faults: list[str], *, absent: list[str]) -> None:
    """Fill in all secrets there are, and the journal, and add the sources that a provider's variable enables.

    `absent`: faults of secrets that are not here, which is a fault for those alone who need them.
    """
    if isinstance(sources := raw.setdefault("sources", {}), dict):
        _resolve_sources(sources, environment, faults, absent)
    if isinstance(api := raw.setdefault("event_api", {}), dict):
        _resolve_key(api, environment, faults, absent)
    tokens = _variable("BRIDGE_ADMIN_TOKEN", environment, faults)
    if tokens is None and "admin_token" in raw:
        tokens = _places(_listed(raw["admin_token"]), "admin_token", environment, faults, absent)
    if tokens is not None:
        raw["admin_token"] = tokens
    _resolve_journal(raw, environment, faults)


def variables(raw: Raw) -> set[str]:
    """The names of all variables that may hold a secret: the usual ones, and those the file names."""
    usual = {*_OURS, *(provider.environment for provider in providers.load().values())}
    return usual | set(re.findall(r"""env:([^'"]+)""", str(raw)))


def files(raw: Raw, environment: Mapping[str, str]) -> set[Path]:
    """Every file that holds a secret, or would: it may not be there yet."""
    found = {Path(path) for path in re.findall(r"""file:([^'"]+)""", str(raw))}
    for name in variables(raw):
        found |= {*_in_directories(name, environment)}
        if named := environment.get(f"{name}_FILE"):
            found.add(Path(named))
    return found


def _resolve_sources(sources: Raw, environment: Mapping[str, str], faults: list[str], absent: list[str]) -> None:
    for name, source in sources.items():
        if isinstance(source, dict):
            source["secrets"] = _source_secrets(f"sources.{name}", source, environment, faults, absent)
    for provider in providers.load().values():
        found = _variable(provider.environment, environment, faults)
        if found is not None and provider.name not in sources:
            sources[provider.name] = {"provider": provider.name, "secrets": found}


def _resolve_key(api: Raw, environment: Mapping[str, str], faults: list[str], absent: list[str]) -> None:
    keys = _variable("INNGEST_EVENT_KEY", environment, faults)
    if keys is None and "key" in api:
        keys = _places([api["key"]], "event_api.key", environment, faults, absent)
    if keys is not None:
        if len(keys) > 1:
            faults.append("INNGEST_EVENT_KEY: several keys, expected one")
        api["key"] = keys[0] if keys else ""


def _resolve_journal(raw: Raw, environment: Mapping[str, str], faults: list[str]) -> None:
    """A URL may have a password in it. It is no list: several hosts are separated by commas."""
    place = _file_of("BRIDGE_JOURNAL", environment, faults)
    if place is not None and (text := _text(*place, faults)) is not None:
        raw["journal"] = text


def _source_secrets(
    path: str, source: Raw, environment: Mapping[str, str], faults: list[str], absent: list[str]
) -> tuple[str, ...]:
    if "secrets" in source:
        places = _listed(source["secrets"])
        if not places:
            faults.append(f"{path}.secrets: empty, so nothing could be verified")
        return _places(places, f"{path}.secrets", environment, faults, absent)
    provider = providers.load().get(str(source.get("provider")))
    if provider is None:
        return ()
    found = _variable(provider.environment, environment, faults)
    if found is None:
        absent.append(f"{path}.secrets: missing, and {provider.environment} is not set")
    return found or ()


def _places(
    places: Sequence[object], key: str, environment: Mapping[str, str], faults: list[str], absent: list[str]
) -> tuple[str, ...]:
    found: list[str] = []
    for number, place in enumerate(places, 1):
        path = key if len(places) == 1 else f"{key}, number {number}"
        kind, _, where = place.partition(":") if isinstance(place, str) else ("", "", "")
        if kind == "env" and where:
            values = _variable(where, environment, faults)
            if values is None:  # what is no variable's name may be the secret itself
                absent.append(f"{path}: {where if _VARIABLE.fullmatch(where) else 'the variable'} is not set")
            found += values or ()
        elif kind == "file" and where:
            found += _read(Path(where), f"{path}: the file it names", faults)
        else:
            faults.append(f"{path}: expected `env:NAME` or `file:PATH`: secrets do not belong in this file")
    return tuple(found)


def _variable(name: str, environment: Mapping[str, str], faults: list[str]) -> tuple[str, ...] | None:
    """The comma-separated values of NAME, or of its file; None where there is neither."""
    place = _file_of(name, environment, faults)
    if name in environment:
        return _split(environment[name], name, faults)
    return None if place is None else _read(*place, faults)


def _file_of(name: str, environment: Mapping[str, str], faults: list[str]) -> tuple[Path, str] | None:
    """The file with the variable's value, and how a fault of it begins; None: there is none."""
    unseen = [] if name in environment else faults
    if f"{name}_FILE" in environment:
        other, path = f"{name}_FILE", Path(environment[f"{name}_FILE"])
        where = f"{other}: the file it names"
    elif there := next(filter(partial(_is_there, faults=unseen), _in_directories(name, environment)), None):
        other = where = str(there)  # no more of a secret than the variable's name
        path = there
    else:
        return None
    if environment.get(name):
        faults.append(f"{name}: set, and {other} too: set one of the two")
    return path, where


def _in_directories(name: str, environment: Mapping[str, str]) -> Iterator[Path]:
    """Where service managers would have put it. A name that could leave the directory is in none."""
    if _VARIABLE.fullmatch(name):
        if credentials := environment.get("CREDENTIALS_DIRECTORY"):
            yield Path(credentials, name)
        yield _CONTAINERS / name


def _is_there(path: Path, *, faults: list[str]) -> bool:
    """What can't be looked for must not pass for what is not there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in it
        return False
    except OSError as error:
        faults.append(f"{path.parent}: {error.strerror}")
        return False
    return True


def _listed(places: object) -> list[object]:
    return places if isinstance(places, list) else [places]


def _read(path: Path, where: str, faults: list[str]) -> tuple[str, ...]:
    text = _text(path, where, faults)
    return () if text is None else _split(text, where, faults)


def _text(path: Path, where: str, faults: list[str]) -> str | None:
    """Its faults do not name the file: a secret may stand where its path belongs."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        faults.append(f"{where}: {error.strerror}")
    except UnicodeDecodeError:
        faults.append(f"{where}: not UTF-8")
    except ValueError:
        faults.append(f"{where}: there is a NUL in its name")
    return None


def _split(value: str, where: str, faults: list[str]) -> tuple[str, ...]:
    parts = [part.strip() for part in re.split(r",|\r?\n|\r", value.strip())]
    if not all(parts):
        faults.append(f"{where}: {'a blank secret between commas' if any(parts) else 'blank'}")
    return tuple(part for part in parts if part)

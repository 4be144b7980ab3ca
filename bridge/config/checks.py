"""What is wrong with settings that no type can say: hosts, URLs, directories, names, and what does not go together.

A fault names the key, or the variable it was set by, and never quotes what may be a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from bridge import journal, providers
from bridge.event_api import server_url
from bridge.settings import DEV_SERVER, INNGEST, ON, EventApiSettings, Settings, SourceSettings, declared

_SOURCE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def faults(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    """What no type can say."""
    if fault := _of_journal(settings.journal):
        yield f"{where(('journal',), environment)}: {fault}"
    for key, host in (("host", settings.host), ("admin_host", settings.admin_host)):
        if not _is_host(host):
            yield f"{where((key,), environment)}: neither an address nor the name of a host"
    for name, source in settings.sources.items():
        yield from _source_faults(f"sources.{name}", name, source)
    for directory in settings.transforms:
        if fault := _of_directory(directory):
            yield f"{where(('transforms',), environment)}: {directory}: {fault}"
    if settings.retention.ids < settings.retention.bodies:
        yield "retention.ids: shorter than retention.bodies, but a body without its id would be a new delivery"
    yield from _event_api_faults(settings.event_api, environment)


def exposed(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """The fault of a private listener that tells everybody everything, in a line."""
    if not settings.is_open_to_others:
        return []
    place = where(("admin_host",), environment)
    return [f"{place}: others can reach {settings.admin_host}, so set BRIDGE_ADMIN_TOKEN, which they will be asked for"]


def right(settings: Settings) -> Settings:
    """Nobody need try what may not even be a host, a URL or a path. An empty journal names none."""
    return replace(
        settings,
        host=settings.host if _is_host(settings.host) else "127.0.0.1",
        admin_host=settings.admin_host if _is_host(settings.admin_host) else "127.0.0.1",
        journal="" if _of_journal(settings.journal) else settings.journal,
        transforms=tuple(each for each in settings.transforms if not _of_directory(each)),
    )


def where(path: Iterable[int | str], environment: Mapping[str, str]) -> str:
    """The key, or the variable it was set by. A place in a list is the list's."""
    key = ".".join(each for each in path if isinstance(each, str))
    names: list[str] = next((field.metadata["env"].split(", else ") for name, field in declared() if name == key), [])
    return next((name for name in names if name in environment or f"{name}_FILE" in environment), key)


def _of_journal(url: str) -> str:
    try:
        return journal.fault_of(url)
    except OSError as error:
        return error.strerror or type(error).__name__
    except ValueError:
        return f"no URL, expected {journal.EXPECTED}"


def _of_directory(directory: str) -> str:
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
        place = where(("event_api", "dev" if names_server else "base_url"), environment)
        yield f"{place}: expected {'1, 0 or ' if names_server else ''}a URL such as {DEV_SERVER if names_server else INNGEST}"
    if not (api.env.isascii() and api.env.isprintable()):
        yield f"{where(('event_api', 'env'), environment)}: sent as a header, so it must be printable ASCII"


def _source_faults(path: str, name: str, source: SourceSettings) -> Iterator[str]:
    if not _SOURCE_NAME.fullmatch(name):
        yield f"{path}: a name is lower-case letters, digits, - and _, at most 63: it is part of a URL"
    if source.provider not in providers.load():
        yield f"{path}.provider: unknown, expected one of {', '.join(providers.load())}"
    prefix = source.prefix or source.provider
    if prefix.lower().split("/")[0] == "inngest" or not prefix.isprintable() or prefix.endswith("/"):
        yield f"{path}.prefix: must be printable, not end in / and not be `inngest`"

"""What is wrong with OpenTelemetry's own variables: it passes over most of it, and what it does not pass over ends a process.

Looked at only where traces are wanted. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

from bridge.settings import TRACES

_BY_SHARE = ("traceidratio", "parentbased_traceidratio")
_SAMPLERS = ("always_on", "always_off", "parentbased_always_on", "parentbased_always_off", *_BY_SHARE)
_SHARE = "OTEL_TRACES_SAMPLER_ARG"
# What each is where it is not set.
_QUEUE, _BATCH = ("OTEL_BSP_MAX_QUEUE_SIZE", 2048), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)
# What it counts with in C, and times in milliseconds: more is an error, in a thread that nobody sees end.
_MOST = 2**31 - 1
# What else stands in a header is passed over. https://www.w3.org/TR/baggage/#definition
_HEADER = re.compile(r"""\s*[!#-'*+.0-9A-Z^-z|~-]+\s*=[^"\\;]*""")


def faults(environment: Mapping[str, str]) -> Iterator[str]:
    """A line for each. Where there is none, all that sends traces is made once, of this process's own variables."""
    if not environment.get(TRACES):
        return
    found = [f"{name}: {said}" for name, value in environment.items() if value.strip() for said in _faults(name, value)]
    found += _faults_together(environment)
    if not _is_installed("opentelemetry.sdk") or not _is_installed("opentelemetry.exporter.otlp.proto.http"):
        found.append(
            f"{TRACES}: set, but what sends traces is not installed: pip install 'webhook-event-bridge[traces]', or unset it"
        )
    if not found and (error := _rehearsed()):
        found.append(f"{TRACES}: OpenTelemetry can't be started with the variables it reads, OTEL_...: {error}")
    yield from found


def _faults(name: str, value: str) -> Iterator[str]:
    for pattern, is_right, said in _RULES:
        if re.fullmatch(pattern, name) and not is_right(value):
            yield said


def _faults_together(environment: Mapping[str, str]) -> Iterator[str]:
    by_share = environment.get("OTEL_TRACES_SAMPLER", "").lower() in _BY_SHARE
    if by_share and not _is_number(environment.get(_SHARE, "").strip() or "1", float, least=0, most=1):
        yield f"{_SHARE}: expected the share of traces that are sent, from 0 to 1"
    queue, batch = (environment.get(name, "").strip() or default for name, default in (_QUEUE, _BATCH))
    try:
        if 0 < int(queue) < int(batch):
            yield f"{_QUEUE[0]}: smaller than {_BATCH[0]}; where they are not set they are {_QUEUE[1]} and {_BATCH[1]}"
    except ValueError:  # told already
        return


def _rehearsed() -> str:
    """What was raised, but for its text. It, and what is logged, may quote what opens somebody's collector."""
    logging.disable()
    try:
        import_module("bridge.traces").rehearse()
    except Exception as error:  # noqa: BLE001 - what a library raises of variables, or of being half installed, can't be known
        return type(error).__name__
    finally:
        logging.disable(logging.NOTSET)
    return ""


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even what it would be in
        return False


def _is_number(text: str, kind: type[int | float], *, least: float, most: float = _MOST) -> bool:
    try:
        return least <= kind(text) <= most
    except ValueError:
        return False


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        fine = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(fine) and text.isprintable() and " " not in text


def _are_headers(text: str) -> bool:
    """As they are written there, and as they can be sent then."""
    for header in filter(str.strip, text.split(",")):
        value = unquote(header.partition("=")[2]).strip()
        if not (_HEADER.fullmatch(header) and header.isascii() and value.isascii() and value.isprintable()):
            return False
    return True


# Variables by pattern, what holds of a value that is right, and what is said of one that is not.
_RULES: tuple[tuple[str, Callable[[str], bool], str], ...] = (
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        lambda url: _is_url(url) and not {"?", "#"} & {*url},  # a path is put behind it
        "expected a URL such as http://localhost:4318",
    ),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", _is_url, "expected a URL such as http://localhost:4318/v1/traces"),
    (
        "OTEL_EXPORTER_OTLP_(TRACES_)?PROTOCOL",
        "http/protobuf".__eq__,
        "only http/protobuf is spoken, to port 4318 of most collectors",
    ),
    ("OTEL_EXPORTER_OTLP_(TRACES_)?HEADERS", _are_headers, "expected name=value, and a comma between two"),
    (
        "OTEL_EXPORTER_OTLP_(TRACES_)?TIMEOUT",
        lambda text: _is_number(text, float, least=0.001),
        "expected a number of seconds, at least 0.001",
    ),
    (
        "OTEL_EXPORTER_OTLP_(TRACES_)?COMPRESSION",
        lambda text: text.strip().lower() in {"none", "gzip", "deflate"},
        "expected none, gzip or deflate",
    ),
    (
        "OTEL_EXPORTER_OTLP_(TRACES_)?(CERTIFICATE|CLIENT_CERTIFICATE|CLIENT_KEY)",
        lambda path: os.access(path, os.R_OK),
        "no file that can be read",
    ),
    ("OTEL_TRACES_SAMPLER", lambda text: text.lower() in _SAMPLERS, f"expected one of {', '.join(_SAMPLERS)}"),
    ("OTEL_BSP_[A-Z_]+", lambda text: _is_number(text, int, least=1), f"expected a whole number, 1 to {_MOST}"),
    (
        "OTEL_(SPAN|EVENT|LINK|ATTRIBUTE)_[A-Z_]+_LIMIT",
        lambda text: _is_number(text, int, least=0),
        f"expected a whole number, 0 to {_MOST}",
    ),
)

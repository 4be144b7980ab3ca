"""What the bridge really exports: every metric with its labels, and which values they can have. Queries are held to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from prometheus_client import Metric

from bridge import providers
from bridge.admin import _Gauges
from bridge.event_api import Verdict
from bridge.journal import Census
from bridge.metrics import Metrics

# By the name of a series, then by the label.
Series = Mapping[str, Mapping[str, set[str]]]

# What Prometheus itself adds to every series; the namespace on Kubernetes alone.
_TARGET = ("namespace", "job", "instance")
# Whose values are the user's own.
_OPEN = {*_TARGET, "source"}
_SELECTOR = re.compile(r"(?<![\w:$])([a-zA-Z_:][\w:]*)(?:\s*\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_LABELS = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")


@cache
def exported() -> Series:
    metrics = Metrics()
    metrics.announce_receiving(["a source"])
    metrics.announce_forwarding(["a source"], Verdict)
    census = Census(counts={}, oldest_pending=None, oldest_due=None)
    gauges = _Gauges({name: name for name in providers.load()}, census, held=False, receiving=True, now=0)
    return _series((*metrics.registry.collect(), *gauges.collect()))


def _series(families: Iterable[Metric]) -> Series:
    found: dict[str, dict[str, set[str]]] = {}
    for family in families:
        for sample in family.samples:
            labels = found.setdefault(sample.name, {label: set() for label in _TARGET})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    # Several processes count together, and then nobody knows when they began.
    return {name: labels for name, labels in found.items() if not name.endswith("_created")}


def unknown(query: str, *, beside: Series) -> list[str]:
    """What the query names that is not there: series, labels, values. `beside`: series of Prometheus's own making."""
    known = {**exported(), **beside}
    return [*_unknown_selectors(query, known), *_unknown_labels(query, known)]


def _unknown_selectors(query: str, known: Series) -> Iterator[str]:
    for name, matchers in _SELECTOR.findall(_LABELS.sub("", query)):
        if name not in known:
            if matchers or name.startswith("bridge") or ":" in name:
                yield name
            continue
        for label, value in _MATCHER.findall(matchers):
            if label not in known[name]:
                yield f"{name}{{{label}}}"
            elif label not in _OPEN and not all(_matches(each, known[name][label]) for each in value.split("|")):
                yield f"{name}{{{label}={value}}}"


def _matches(pattern: str, values: set[str]) -> bool:
    return any(re.fullmatch(pattern, value) for value in values)


def _unknown_labels(query: str, known: Series) -> Iterator[str]:
    labels = {label for name in known if name in query for label in known[name]}
    for listed in _LABELS.findall(query):
        yield from {each.strip() for each in listed.split(",")} - {"", *labels}

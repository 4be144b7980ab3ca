"""The dashboard as values, what Grafana would make of its queries, and whether Grafana would understand it.

Grafana itself is in no package that could be pinned here: its own models of a dashboard, generated from its schema, are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from tools import DEPLOY

Json: TypeAlias = dict[str, Any]

DASHBOARD = DEPLOY / "grafana/bridge.json"
_LABEL_VALUES = re.compile(r"label_values\((\w+(?:{[^}]*})?), (\w+)\)")


def dashboard() -> Json:
    read: Json = json.loads(DASHBOARD.read_text())
    return read


def panels() -> list[Json]:
    """Those that show something of the bridge; the others are headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "text"]


def queries() -> dict[str, str]:
    """By the title of the panel and the letter of the query."""
    return {f"{panel['title']}: {each['refId']}": each["expr"] for panel in panels() for each in panel["targets"]}


def variable(name: str) -> Json:
    [found] = [each for each in dashboard()["templating"]["list"] if each["name"] == name]
    return dict(found)


def label_values(query: str) -> tuple[str, str]:
    """The series and the label that a variable takes its values from."""
    found = _LABEL_VALUES.fullmatch(query)
    assert found, query
    return found[1], found[2]


def substituted(query: str, *, source: str = ".*", namespace: str = "", job: str = "bridge") -> str:
    """https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/

    No namespace: what Grafana makes of a variable that has no value to choose from.
    """
    chosen = {"namespace": namespace, "job": job, "source": source}
    for name, value in {**chosen, "__rate_interval": "1m", "__range": "1m"}.items():
        query = query.replace(f"${{{name}}}", value).replace(f"${name}", value)
    assert "$" not in query, query
    return query


def misunderstood() -> list[str]:
    """Where Grafana would leave something out, or find something else than it expects."""
    plugins.register_default_plugins()
    given = dashboard()
    given["panels"] += [_overridden(panel) for panel in panels()]
    understood = Dashboard.from_json(given)
    return [*_left_out(given, json.loads(JSONEncoder().encode(understood)), ""), *_faults(understood, Dashboard, "")]


def _overridden(panel: Json) -> Json:
    """As the series are that have everything overridden: an override may be anything, to Grafana's models."""
    defaults = panel["fieldConfig"]["defaults"]
    for each in (one for override in panel["fieldConfig"]["overrides"] for one in override["properties"]):
        inside, _, name = each["id"].rpartition(".")
        (defaults[inside] if inside else defaults)[name] = each["value"]
    return panel


def _left_out(given: object, kept: object, path: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            # Null is what a threshold begins with, and the same as nothing.
            if key in kept:
                yield from _left_out(value, kept[key], f"{path}.{key}")
            elif value is not None:
                yield f"{path}.{key} is unknown"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for n, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _left_out(one, other, f"{path}[{n}]")
    elif given != kept:
        yield f"{path}: {given!r} became {kept!r}"


def _faults(value: Any, hint: Any, path: str) -> Iterator[str]:
    """Its models keep whatever they are given: this is held against what their fields say."""
    if isinstance(value, dict) and hasattr(hint, "from_json"):
        value = hint.from_json(value)
    kind = get_origin(hint) or hint
    if hasattr(value, "to_json"):  # also where a field may be anything, as the options of a panel
        for name, of in get_type_hints(type(value)).items():
            yield from _faults(getattr(value, name), of, f"{path}.{name}")
    elif kind is Union:
        yield from min((list(_faults(value, each, path)) for each in get_args(hint)), key=len)
    elif kind in {list, dict} and isinstance(value, kind):
        entries: Iterable[tuple[Any, Any]] = value.items() if kind is dict else enumerate(value)
        for name, each in entries:
            yield from _faults(each, get_args(hint)[-1], f"{path}.{name}")
    elif not _fits(value, kind, get_args(hint)):
        yield f"{path}: {value!r} is no {hint}"


def _fits(value: Any, kind: Any, of: tuple[Any, ...]) -> bool:
    if kind is Literal:
        return value in of
    if isinstance(kind, type) and issubclass(kind, Enum):
        return value in [each.value for each in kind]
    return kind is Any or isinstance(value, (int, float) if kind is float else kind)

"""The alert rules and their unit tests as values, to be read, changed and written again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, TypeAlias

import yaml
from exported import Series
from tools import DEPLOY

PROMETHEUS = DEPLOY / "prometheus"
ALERTS = PROMETHEUS / "alerts.yaml"
UNIT_TESTS = sorted(PROMETHEUS.glob("*.test.yaml"))

# As YAML gives it: the shapes are promtool's.
Yaml: TypeAlias = dict[str, Any]

# Of the labels of a target and of a source, what rules keep.
_KEPT = ("namespace", "job", "source")
_OPERATOR = re.compile(r"\s*(and|or|unless)\b ?")
_COMPARISON = re.compile(r"==|(?<![=!])[<>]")
_THRESHOLD = re.compile(r"(?<=> |< |= )\d+(?:\.\d+)?\b|\b\d+\.\d+(?= \*)")
_NEGATED = {"==": "!=", ">": "<=", "<": ">="}
_STEP = re.compile(r"(_|stale|-?[\d.]+)(?:([+-][\d.]+))?(?:x(\d+))?")


def groups() -> list[Yaml]:
    read: list[Yaml] = yaml.safe_load(ALERTS.read_text())["groups"]
    return read


def rules(kind: str) -> dict[str, Yaml]:
    """By name. `kind`: `alert` or `record`."""
    return {rule[kind]: rule for group in groups() for rule in group["rules"] if kind in rule}


def recorded() -> Series:
    """The series that Prometheus makes of the rules."""
    names = {"alertname": set(rules("alert")), "alertstate": {"firing", "pending"}, "severity": {"page", "ticket"}}
    made: dict[str, dict[str, set[str]]] = {name: {label: set() for label in _KEPT} for name in rules("record")}
    return {**made, "ALERTS": {**{label: set() for label in _KEPT}, **names}}


def only(changed: Yaml) -> Yaml:
    """The rules with this alert alone, as it is here, and what it needs of the others."""
    kept, needed = deepcopy(groups()), _needed_by(changed["expr"]) - {changed["alert"]}
    for group in kept:
        others = [rule for rule in group["rules"] if {rule.get("alert"), rule.get("record")} & needed]
        here = [changed for rule in group["rules"] if rule.get("alert") == changed["alert"]]
        group["rules"] = [*others, *here]
    return {"groups": kept}


def _needed_by(expression: str) -> set[str]:
    """The names of the rules it speaks of, and of those that these need. One may speak of itself."""
    known, needed = rules("record") | rules("alert"), set[str]()
    named = {name for name in known if name in expression}
    while named:
        needed |= named
        named = {name for name in known for other in named if name in known[other]["expr"]} - needed
    return needed


def mutants(rule: Yaml) -> Iterator[tuple[str, Yaml]]:
    """The rule with one thing changed that matters, and which."""
    expression = rule["expr"]
    changes = (_compared, _measured, _without_a_clause, _namespaces_mixed)
    for what, changed in (each for change in changes for each in change(expression)):
        yield what, {**rule, "expr": changed}
    if "for" in rule:
        number, unit = int(rule["for"][:-1]), rule["for"][-1]
        yield "at once", {**rule, "for": "0s"}
        yield "twice as late", {**rule, "for": f"{2 * number}{unit}"}


def _compared(expression: str) -> Iterator[tuple[str, str]]:
    for found in _COMPARISON.finditer(expression):
        yield f"{found[0]} at {found.start()} negated", _replaced(expression, found, _NEGATED[found[0]])


def _measured(expression: str) -> Iterator[tuple[str, str]]:
    for found in _THRESHOLD.finditer(expression):
        number = float(found[0])
        others = (number * 2, number / 2) if number else (1e9, -1e9)
        for other in others:
            yield f"{found[0]} at {found.start()} is {other:g}", _replaced(expression, found, f"{other:g}")


def _namespaces_mixed(expression: str) -> Iterator[tuple[str, str]]:
    """In one place, as if all namespaces were one."""
    for found in re.finditer(r"namespace, (?=job)", expression):
        yield f"namespaces mixed at {found.start()}", _replaced(expression, found, "")


def _replaced(text: str, found: re.Match[str], by: str) -> str:
    return text[: found.start()] + by + text[found.end() :]


def _without_a_clause(expression: str) -> Iterator[tuple[str, str]]:
    """Each line that begins with an operator, as far as its parentheses go; and what stands before an `or`."""
    lines = expression.splitlines()
    depths = [sum(line.count("(") - line.count(")") for line in lines[:n]) for n in range(len(lines))]
    for n, line in enumerate(lines):
        end = n + 1
        while end < len(lines) and not _ends(lines[end], depths[end], depths[n]):
            end += 1
        if _OPERATOR.match(line):
            yield f"without {line.strip()}", "\n".join(lines[:n] + lines[end:])
        elif (n == 0 or lines[n - 1].endswith("(")) and end < len(lines) and lines[end].lstrip().startswith("or "):
            rest = [_OPERATOR.sub("", lines[end]), *lines[end + 1 :]]
            yield f"without {line.strip()}", "\n".join(lines[:n] + rest)


def _ends(line: str, depth: int, begun: int) -> bool:
    return depth <= begun and (_OPERATOR.match(line) is not None or line.lstrip().startswith(")"))


def scraped_every(seconds: int, test: Yaml) -> Yaml:
    """The same things happen, and are looked at that often. Of alerts it is asked whether they fire: the numbers in what they
    say differ a little.
    """
    number, unit = int(test["interval"][:-1]), test["interval"][-1]
    times = number * {"s": 1, "m": 60}[unit] // seconds
    series = [{**each, "values": _held(each["values"], times)} for each in test["input_series"]]
    asked = [_whether_it_fires(each) for each in test.get("alert_rule_test", ())]
    return {
        "name": test["name"],
        "interval": f"{seconds}s",
        "input_series": series,
        "promql_expr_test": [*asked, *test.get("promql_expr_test", ())],
    }


def _held(values: str, times: int) -> str:
    """Each value so many times."""
    return " ".join(_repeated(value, times) for step in values.split() for value in _expanded(step))


def _expanded(step: str) -> Iterator[str]:
    found = _STEP.fullmatch(step)
    assert found, step
    value, each, count = found[1], float(found[2] or 0), int(found[3] or 0)
    if value in {"_", "stale"}:
        yield from [value] * max(count, 1)
        return
    for n in range(count + 1):
        yield f"{float(value) + n * each:.10g}"


def _repeated(value: str, times: int) -> str:
    if value == "stale":
        return "stale" + f" _x{times - 1}" * (times > 1)
    return f"_x{times}" if value == "_" else f"{value}x{times - 1}"


def _whether_it_fires(test: Yaml) -> Yaml:
    labels = [alert["exp_labels"] for alert in test["exp_alerts"]]
    written = ["{" + ", ".join(f'{name}="{value}"' for name, value in each.items()) + "}" for each in labels]
    return {
        "expr": f'count by (namespace, job, source, severity) (ALERTS{{alertname="{test["alertname"]}", alertstate="firing"}})',
        "eval_time": test["eval_time"],
        "exp_samples": [{"labels": each, "value": 1} for each in written],
    }

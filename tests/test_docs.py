"""The README is held to the code: what is there is in it, and what it names is there."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import click
import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import Counter, Histogram, Metric
from prometheus_client.parser import text_string_to_metric_families
from readme import PROSE, ROOT, blocks, section, table

from bridge import providers
from bridge.admin import Admin
from bridge.cli import main
from bridge.errors import Reason
from bridge.event_api import Verdict
from bridge.journal import Journal
from bridge.metrics import DELIVERY_OUTCOMES, Metrics
from bridge.model import Outcome, State
from bridge.settings import Settings, SourceSettings, declared

# No setting reads these: one says where the settings are, the other is an example's own.
OTHER_VARIABLES = {"BRIDGE_CONFIG", "STRIPE_API_KEY"}


def unsaid(words: Iterable[str]) -> list[str]:
    """Those that stand nowhere in backticks, alone or with something behind them."""
    return [word for word in words if not re.search(rf"`{re.escape(word)}[` =]", PROSE)]


def test_every_setting_is_in_the_table_with_its_variable_its_default_and_its_help() -> None:
    assert table("Settings") == [_setting_row(key, field.metadata, field.default) for key, field in declared()]


def _setting_row(key: str, metadata: Any, default: object) -> str:
    variable = "`" + metadata["env"].replace(", else ", "`, else `") + "`" if metadata["env"] else "-"
    value = f"{default:g}" if isinstance(default, float) else default
    shown = "-" if value is MISSING or value in (None, "", ()) else f"`{value}`"
    return f"| `{key}` | {variable} | {shown} | {metadata['help']} |"


def test_an_example_shows_every_setting_and_its_default() -> None:
    [shown] = [dict(_leaves(tomllib.loads(text))) for text in blocks("toml") if "[event_api]" in text]
    assert set(shown) == {key for key, _ in declared()}
    numbers = {key: field.default for key, field in declared() if isinstance(field.default, int | float)}
    assert {key: shown[key] for key in numbers} == numbers


def _leaves(of: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in of.items():
        if isinstance(value, dict):
            yield from _leaves(value, path + ("NAME." if path == "sources." else f"{name}."))
        else:
            yield path + name, value


def test_the_variables_the_readme_names_are_those_that_are_read() -> None:
    read = {name for _, field in declared() for name in field.metadata["env"].split(", else ") if name}
    read |= {provider.environment for provider in providers.load().values()}
    whose = "|".join({name.partition("_")[0] for name in read})
    named = set(re.findall(rf"\b(?:{whose})_[A-Z_]+\b", PROSE + "".join(blocks("python"))))
    assert {name.removesuffix("_FILE") for name in named} == read | OTHER_VARIABLES


async def test_every_metric_is_in_the_table_with_its_labels_and_its_help(
    journal: Journal, tmp_path_factory: pytest.TempPathFactory
) -> None:
    counted = [
        _metric_row(family, metric._labelnames)
        for metric in vars(Metrics()).values()
        if isinstance(metric, Counter | Histogram)
        for family in metric.collect()
    ]
    read = [
        _metric_row(family, family.samples[0].labels)
        for family in await _gauges(journal, tmp_path_factory.mktemp("counted"))
    ]
    assert table("Metrics and health") == counted + read


def _metric_row(family: Metric, labels: Iterable[str]) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    shown = ", ".join(f"`{label}`" for label in labels) or "-"
    return f"| `{name}` | {family.type} | {shown} | {family.documentation} |"


async def _gauges(journal: Journal, counted: Path) -> list[Metric]:
    """What `/metrics` has before any process has counted anything."""
    admin = Admin(
        settings=lambda: Settings(sources={"x": SourceSettings(provider="stripe", secrets=())}),
        journal=lambda: journal,
        unready=lambda: (),
        held=lambda: "",
        receiving=lambda: True,
        metrics_directory=str(counted),
        clock=lambda: 0,
    )
    async with TestClient(TestServer(admin.application())) as client, client.get("/metrics") as response:
        return list(text_string_to_metric_families(await response.text()))


def test_every_metric_the_readme_names_is_in_the_table() -> None:
    named = set(re.findall(r"`(bridge_[a-z_]+)", PROSE))
    assert named == set(re.findall(r"^\| `(bridge_[a-z_]+)`", PROSE, re.MULTILINE))


def test_every_provider_has_its_row_on_how_to_connect_it() -> None:
    rows = {row.split("`")[1]: row for row in table("Connect a provider")}
    assert set(rows) == set(providers.load())
    for provider in providers.load().values():
        assert f"`{provider.environment}`" in rows[provider.name]
        assert f"`/webhooks/{provider.name}`" in rows[provider.name]


def test_what_a_provider_is_answered_when_nothing_can_be_stored_is_said() -> None:
    [row] = [line for line in section("Answers to a provider").splitlines() if "can't be stored now" in line]
    for provider in providers.load().values():
        said = re.search(rf"{provider.name}: ([0-9]+)", row, re.IGNORECASE) or re.search(r"\| ([0-9]+)", row)
        assert said is not None
        assert int(said[1]) == provider.unavailable_status


@pytest.mark.parametrize(
    "words",
    [Reason, State, Outcome, Verdict, DELIVERY_OUTCOMES],
    ids=["reasons", "states", "outcomes of attempts", "verdicts", "outcomes of requests"],
)
def test_every_word_of_a_closed_set_is_explained(words: Iterable[str]) -> None:
    assert unsaid(words) == []


def test_every_outcome_of_an_attempt_has_its_row() -> None:
    named = {name for row in table("States of an entry") for name in re.findall(r"`([a-z]+)`", row.split(" | ")[0])}
    assert named == set(Outcome)


def test_every_line_a_log_can_have_is_explained() -> None:
    modules = [ast.parse(path.read_text()) for path in (ROOT / "bridge").rglob("*.py")]
    found = {event for tree in modules for event in _logged(tree)}
    assert {"entry.dead", "event_api.unavailable", "delivery.rejected", "library.message"} <= found
    assert unsaid(sorted(found)) == []


def _logged(tree: ast.Module) -> Iterator[str]:
    """The events of the calls that log: constants among the arguments, or in what a name there is assigned from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and re.fullmatch(
            r"log\.(info|warning|error|Sparing)|Sparing|_write", _name(node.func)
        ):
            for argument in node.args:
                yield from _events(argument)
                yield from _assigned(_name(argument), tree)


def _name(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def _assigned(name: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and name in {_name(each) for each in _targets(node)}:
            yield from _events(node.value)


def _targets(node: ast.Assign) -> list[ast.expr]:
    return [each for target in node.targets for each in (target.elts if isinstance(target, ast.Tuple) else [target])]


def _events(node: ast.expr) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and re.fullmatch(r"[a-z_]+\.[a-z_]+", str(each.value)):
            yield str(each.value)


def every_command(group: click.Group, context: click.Context, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from every_command(command, context, f"{path}{name} ")
        elif command is not None:
            yield path + name, command


def test_every_command_and_option_is_in_the_table_of_commands() -> None:
    context = click.Context(main)
    rows = {row.split("`")[1].removeprefix("bridge "): row for row in table("Commands")}
    commands = dict(every_command(main, context))
    assert set(rows) == set(commands)
    for name, row in rows.items():
        command = commands[name]
        said = row + (rows["list"] if "`list`" in row else "")
        options = {option for each in command.params for option in each.opts if option.startswith("--")} - {"--json"}
        assert [option for option in options if f"`{option}`" not in said] == [], name
    assert "take `--json`" in section("Commands")


def test_every_module_is_in_the_map_of_the_code() -> None:
    [shown] = [text for text in blocks("text") if text.startswith("bridge/")]
    named = {
        name
        for line in shown.splitlines()
        if line.startswith("  ")
        for name in re.findall(r"[a-z_]+(?:\.py|/)", line[:40])
    }
    there = {f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "bridge").iterdir()}
    assert named == there - {"__init__.py", "__pycache__/", "py.typed"}


def test_every_link_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PROSE) if "://" not in link]
    headings = {
        re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", PROSE, re.MULTILINE)
    }
    assert links
    for link in links:
        path, _, heading = link.partition("#")
        assert (ROOT / path).exists(), link
        assert path or heading in headings, link


def test_the_newest_changes_are_those_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0][0] == version

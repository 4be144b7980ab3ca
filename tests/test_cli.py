"""What all commands have in common: help, the version, and how errors are told."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from commands import BRIDGE, on_terminal, run

COMMANDS = [
    "dev",
    "serve",
    "check",
    "health",
    "metrics",
    "sources",
    "send",
    "transform",
    "list",
    "show",
    "replay",
    "journal",
]


def test_help_lists_every_command_in_the_order_one_meets_them(tmp_path: Path) -> None:
    for flag in ("--help", "-h"):
        ran = run(flag, cwd=tmp_path)
        listed = ran.out.partition("Commands:\n")[2].splitlines()
        assert [line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "] == COMMANDS
        assert "bridge send stripe customer.created" in ran.out
        assert ran.status == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_on_a_line_of_its_own(tmp_path: Path, name: str) -> None:
    ran = run(name, "--help", cwd=tmp_path)
    assert ran.status == 0
    examples = [line for line in ran.out.splitlines() if f"bridge {name}" in line and "Usage:" not in line]
    assert examples
    assert all(line.strip().startswith(("bridge ", "STRIPE_WEBHOOK_SECRET=")) for line in examples)


def test_help_needs_no_configuration_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text("port = 'wrong'")
    for name in COMMANDS:
        assert run(name, "--help", cwd=tmp_path).status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["bridge.toml"]


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    ran = subprocess.run([BRIDGE, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == f"bridge, version {version('webhook-event-bridge')}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["list", "--state", "asleep"], ["list", "--limit", "0"], ["show"]])
def test_a_slip_in_the_command_line_is_told_with_the_usage_and_ends_with_2(
    tmp_path: Path, arguments: list[str]
) -> None:
    ran = run(*arguments, cwd=tmp_path)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("Usage: ")
    assert "Error: " in ran.err


@pytest.mark.parametrize(
    "arguments",
    [["sources"], ["send", "stripe", "invoice.paid"], ["transform", "x"], ["list"], ["show", "x"], ["check"]],
)
def test_a_configuration_that_is_wrong_is_a_line_a_fault_and_ends_with_2(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "bridge.toml").write_text("port = 'wrong'\n\"two\\nlines\" = 1")
    ran = run(*arguments, cwd=tmp_path, INNGEST_DEV="1", STRIPE_WEBHOOK_SECRET=" ")
    assert ran.status == 2
    told = [line for line in ran.err.splitlines() if not line.startswith("bridge: event_api: ")]
    assert told == [
        "bridge: STRIPE_WEBHOOK_SECRET: blank",
        "bridge: port: expected a whole number",
        "bridge: two lines: unknown key",
    ]


def test_an_error_does_not_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "bridge.db").write_text("not a database, but large enough that SQLite reads a header from it" * 9)
    ran = on_terminal("show", "evt_\x1b[2J\u009b", cwd=tmp_path)
    assert ran.status == 1
    assert "not a SQLite database" in ran.out
    (tmp_path / "bridge.db").unlink()
    ran = on_terminal("transform", "evt_\x1b[2J\u009b", cwd=tmp_path)
    assert (ran.status, "\x1b[2J" in ran.out, "\u009b" in ran.out) == (1, False, False)
    assert ran.out.startswith("bridge: evt_\ufffd[2J\ufffd: no such file, and there is no journal")


def test_serve_does_not_carry_what_only_other_commands_need() -> None:
    script = (
        "import sys; from bridge.cli import main; assert main.get_command(None, 'serve');"
        "print(sorted(set(sys.modules) & {'rich', 'bridge.samples', 'bridge.stand_in', 'bridge.cli.entries'}))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"

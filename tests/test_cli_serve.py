"""`bridge serve` that can't start: the real process, every fault a line, all of them at once."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from commands import BRIDGE, Ran, on_terminal

SECRET = "whsec_NeverToBeShown"


def served(cwd: Path, variables: Mapping[str, str]) -> Ran:
    """What a `bridge serve` says that ends by itself."""
    ran = subprocess.run(
        [BRIDGE, "serve"], cwd=cwd, env=variables, capture_output=True, text=True, check=False, timeout=60
    )
    assert "Traceback" not in ran.stderr
    assert SECRET not in ran.stderr
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def refused(cwd: Path, **variables: str) -> list[str]:
    """What one says that must not start: on standard error alone, with exit status 2."""
    ran = served(cwd, variables)
    assert (ran.status, ran.out) == (2, "")
    return ran.err.splitlines()


TAKEN = "taken already; is another bridge running? Set BRIDGE_PORT to another port, or to 0 for any free one"


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text(f"prot = 8080\n[sources.stripe]\nprovider = 'stripe'\nsecrets = '{SECRET}'")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "slack.py").write_text("def transform(delivery)\n    return None")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = refused(
            tmp_path,
            BRIDGE_HOST="127.0.0.1",
            BRIDGE_PORT=str(port),
            BRIDGE_ADMIN_PORT="0",
            BRIDGE_TRANSFORMS="mine",
            BRIDGE_JOURNAL="sqlite:///./nowhere/bridge.db",
            SLACK_SIGNING_SECRET=" ",
            INNGEST_EVENT_KEY="key",
        )
    assert told == [
        "bridge: sources.stripe.secrets: expected `env:NAME` or `file:PATH`: secrets do not belong in this file",
        "bridge: SLACK_SIGNING_SECRET: blank",
        "bridge: prot: unknown key; did you mean port?",
        f"bridge: BRIDGE_PORT: 127.0.0.1:{port}: {TAKEN}",
        f"bridge: journal: {tmp_path}/nowhere/bridge.db: the directory {tmp_path}/nowhere is missing",
        "bridge: mine/slack.py: line 1: SyntaxError: expected ':'",
    ]


def test_a_file_that_is_no_toml_a_blank_secret_a_syntax_error_and_a_taken_port_are_four_lines(tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text("port = ")
    (tmp_path / "stripe.py").write_text("def transform(")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = refused(
            tmp_path,
            STRIPE_WEBHOOK_SECRET="",
            INNGEST_DEV="1",
            BRIDGE_TRANSFORMS=".",
            BRIDGE_HOST="127.0.0.1",
            BRIDGE_PORT=port,
            BRIDGE_ADMIN_PORT="0",
        )
    assert [line.split(": ")[1] for line in told] == [
        "bridge.toml",
        "STRIPE_WEBHOOK_SECRET",
        "BRIDGE_PORT",
        "stripe.py",
    ]


def test_without_any_configuration_it_says_what_is_missing(tmp_path: Path) -> None:
    assert refused(tmp_path, BRIDGE_PORT="0", BRIDGE_ADMIN_PORT="0") == [
        (
            "bridge: sources: none is configured; set one of INTERCOM_CLIENT_SECRET, SLACK_SIGNING_SECRET,"
            " STRIPE_WEBHOOK_SECRET, or write [sources.NAME] in bridge.toml"
        ),
        "bridge: INNGEST_EVENT_KEY: not set; INNGEST_DEV=1 needs none",
    ]


def test_what_else_python_loads_may_print_as_it_likes_and_one_that_ends_it_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "loaded").mkdir()
    site = tmp_path / "loaded" / "sitecustomize.py"
    usual = {"STRIPE_WEBHOOK_SECRET": "s", "INNGEST_DEV": "1", "BRIDGE_ADMIN_PORT": "0"}
    usual |= {"BRIDGE_PORT": "0", "BRIDGE_JOURNAL_CONNECTIONS": "x", "PYTHONPATH": str(site.parent)}
    site.write_text("import sys\nif 'bridge.config' in sys.orig_argv: print('hello', flush=True)")
    assert served(tmp_path, usual) == Ran(2, "", "hello\nbridge: BRIDGE_JOURNAL_CONNECTIONS: expected a whole number\n")
    site.write_text("import os, sys\nif 'bridge.config' in sys.orig_argv: os._exit(3)")
    told = "bridge: the process that reads the configuration ended with exit status 3\n"
    assert served(tmp_path, usual) == Ran(1, "", told)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRIDGE_JOURNAL", "sqlite://["),
        ("BRIDGE_JOURNAL", "sqlite:///%00"),
        ("BRIDGE_HOST", "ü..x"),
        ("BRIDGE_HOST", "192.0.2.1"),
        ("INNGEST_BASE_URL", "http://x:99999"),
        ("INNGEST_ENV", "ü"),
        ("BRIDGE_TRANSFORMS", "a" * 300),
        ("STRIPE_WEBHOOK_SECRET", f"{SECRET},,"),
    ],
)
def test_a_value_nobody_thought_of_is_one_line_and_no_traceback(tmp_path: Path, name: str, value: str) -> None:
    usual = {"STRIPE_WEBHOOK_SECRET": "s", "INNGEST_DEV": "0", "INNGEST_EVENT_KEY": "key"}
    told = refused(tmp_path, **{**usual, "BRIDGE_PORT": "0", "BRIDGE_ADMIN_PORT": "0", name: value})
    assert len(told) == 1
    assert told[0].startswith(
        ("bridge: journal: ", f"bridge: {name}: ", "bridge: BRIDGE_PORT: ", "bridge: transforms: ")
    )


def test_on_a_terminal_the_lines_are_the_same(tmp_path: Path) -> None:
    ran = on_terminal("serve", cwd=tmp_path, BRIDGE_PORT="0", BRIDGE_JOURNAL_CONNECTIONS="x", INNGEST_DEV="1")
    assert ran.status == 2
    assert [line.split(": ")[1] for line in ran.out.splitlines()] == ["BRIDGE_JOURNAL_CONNECTIONS", "sources"]

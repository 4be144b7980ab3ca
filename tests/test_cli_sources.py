"""`bridge sources`: the URLs to paste, and where they belong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import on_terminal, run

from bridge import providers

STRIPE = {"STRIPE_WEBHOOK_SECRET": "whsec_NeverToBeShown"}


def test_each_source_has_its_url_and_its_place_in_the_dashboard(tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text("[sources.stripe-eu]\nprovider = 'stripe'")
    ran = run("sources", cwd=tmp_path, SLACK_SIGNING_SECRET="s", BRIDGE_PORT="9000", **STRIPE)
    assert ran.status == 0
    for name, provider in (("stripe-eu", "stripe"), ("stripe", "stripe"), ("slack", "slack")):
        assert f"{name}  http://127.0.0.1:9000/webhooks/{name}\n" in ran.out
        assert f"  {providers.load()[provider].dashboard}\n  {providers.load()[provider].docs}\n" in ran.out
    assert "intercom" not in ran.out
    assert "NeverToBeShown" not in ran.out


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://hooks.example.com", "https://hooks.example.com/webhooks/stripe"),
        ("https://hooks.example.com/", "https://hooks.example.com/webhooks/stripe"),
        ("hooks.example.com", "https://hooks.example.com/webhooks/stripe"),
        ("https://example.com/behind/a/path", "https://example.com/behind/a/path/webhooks/stripe"),
    ],
)
def test_base_is_the_address_providers_reach(tmp_path: Path, base: str, url: str) -> None:
    assert f"stripe  {url}\n" in run("sources", "--base", base, cwd=tmp_path, **STRIPE).out


def test_an_address_of_ipv6_stands_in_brackets(tmp_path: Path) -> None:
    assert "http://[::1]:8080/webhooks/stripe\n" in run("sources", cwd=tmp_path, BRIDGE_HOST="::", **STRIPE).out
    assert "http://[fe80::1]:8080/" in run("sources", cwd=tmp_path, BRIDGE_HOST="fe80::1", **STRIPE).out


def test_json_is_a_line_for_each(tmp_path: Path) -> None:
    ran = run("sources", "--json", "--base", "https://x", cwd=tmp_path, INTERCOM_CLIENT_SECRET="s", **STRIPE)
    told = [json.loads(line) for line in ran.out.splitlines()]
    assert {each["source"]: (each["provider"], each["url"]) for each in told} == {
        "intercom": ("intercom", "https://x/webhooks/intercom"),
        "stripe": ("stripe", "https://x/webhooks/stripe"),
    }
    assert all(set(each) == {"source", "provider", "url", "dashboard", "docs"} for each in told)


def test_without_any_it_says_which_variable_enables_which(tmp_path: Path) -> None:
    ran = run("sources", cwd=tmp_path)
    assert ran.status == 0
    for provider in providers.load().values():
        assert f"{provider.name}  http://127.0.0.1:8080/webhooks/{provider.name}\n" in ran.out
        assert f"  {provider.environment}=...\n" in ran.out
    assert run("sources", "--json", cwd=tmp_path).out == ""


def test_on_a_terminal_names_stand_out_and_urls_are_whole(tmp_path: Path) -> None:
    base = f"https://{'long.' * 30}example.com"
    ran = on_terminal("sources", "--base", base, cwd=tmp_path, **STRIPE)
    assert f"\x1b[1mstripe\x1b[0m  {base}/webhooks/stripe\r\n" in ran.out


def test_on_a_narrow_terminal_the_rest_is_filled_into_lines(tmp_path: Path) -> None:
    lines = on_terminal("sources", cwd=tmp_path, COLUMNS="60", **STRIPE).out.split("\r\n")
    [start] = [place for place, line in enumerate(lines) if line.startswith("  Stripe Workbench")]
    assert all(line.startswith("  ") and len(line) <= 60 for line in lines[start : start + 4])

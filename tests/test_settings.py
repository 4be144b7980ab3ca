"""Every setting is declared once, with its help, and none tells a secret."""

from __future__ import annotations

import pickle
import subprocess
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import pytest

from bridge.process import command
from bridge.settings import EventApiSettings, Settings, SourceSettings, declared

STRIPE = SourceSettings(provider="stripe", secrets=("whsec_hidden",))
WITH_SECRETS = Settings(event_api=EventApiSettings(key="key_hidden"), sources={"stripe": STRIPE})


def leaves(of: Any, path: str) -> set[str]:
    found: set[str] = set()
    for each in fields(of):
        kind = get_type_hints(of)[each.name]
        found |= leaves(kind, f"{path}{each.name}.") if is_dataclass(kind) else {f"{path}{each.name}"}
    return found


def test_declared_names_every_field_by_its_key() -> None:
    expected = leaves(Settings, "") - {"sources"} | leaves(SourceSettings, "sources.NAME.")
    names = [key for key, _ in declared()]
    assert set(names) == expected
    assert len(names) == len(expected)


def test_every_setting_has_a_help_and_says_whether_a_variable_sets_it() -> None:
    for key, field in declared():
        assert field.metadata["help"].strip(), key
        assert field.metadata["env"] == field.metadata["env"].strip(), key


def test_no_variable_sets_two_settings() -> None:
    names = [name for _, field in declared() for name in field.metadata["env"].split(", else ") if name]
    assert len(names) == len(set(names))


def test_no_secret_is_in_what_is_shown_of_settings() -> None:
    assert "hidden" not in f"{WITH_SECRETS!r} {WITH_SECRETS} {STRIPE.source('stripe')!r}"


def test_settings_reach_another_process_as_they_are() -> None:
    assert pickle.loads(pickle.dumps(WITH_SECRETS)) == WITH_SECRETS  # noqa: S301 - our own


def test_a_source_has_bytes_for_secrets_and_its_providers_name_for_a_prefix() -> None:
    source = STRIPE.source("stripe-eu")
    assert (source.name, source.provider, source.prefix) == ("stripe-eu", "stripe", "stripe")
    assert (source.secrets, source.tolerance) == ((b"whsec_hidden",), 300_000)


@pytest.mark.parametrize(
    ("given", "url", "is_dev"),
    [
        ({}, "https://inn.gs", False),
        ({"base_url": "http://mine"}, "http://mine", False),
        ({"dev": "1"}, "http://localhost:8288", True),
        ({"dev": "1", "base_url": "http://mine"}, "http://mine", True),
        ({"dev": "http://dev", "base_url": "http://mine"}, "http://dev", True),
        ({"dev": "off", "base_url": "http://mine"}, "http://mine", False),
    ],
)
def test_where_the_event_api_is(given: dict[str, str], url: str, is_dev: bool) -> None:  # noqa: FBT001 - from the list above
    api = EventApiSettings(**given)  # type: ignore[arg-type]  # the keys are in the list above
    assert (api.url, api.is_dev) == (url, is_dev)


def test_who_only_uses_settings_loads_no_pydantic() -> None:
    script = "import sys, bridge.settings, bridge.roles; print('pydantic' in sys.modules)"
    ran = subprocess.run([*command("bridge")[:2], "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"

"""The configuration: each variable, each key, and which wins."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge import config
from bridge.errors import ConfigInvalid
from bridge.journal import exists, fault_of
from bridge.journal.sqlite.place import path_of
from bridge.settings import Settings, declared

ENOUGH = {"STRIPE_WEBHOOK_SECRET": "whsec_1", "INNGEST_EVENT_KEY": "key"}

VARIABLES: dict[str, tuple[str, str, Callable[[Settings], object], object]] = {
    "BRIDGE_JOURNAL": ("journal = 'sqlite:///b.db'", "sqlite:///a.db", lambda s: s.journal, "sqlite:///a.db"),
    "BRIDGE_JOURNAL_CONNECTIONS": ("journal_connections = 2", "7", lambda s: s.journal_connections, 7),
    "BRIDGE_HOST": ("host = '127.0.0.2'", "::1", lambda s: s.host, "::1"),
    "BRIDGE_PORT": ("port = 9000", "0", lambda s: s.port, 0),
    "BRIDGE_ADMIN_HOST": ("admin_host = '127.0.0.2'", "127.0.0.1", lambda s: s.admin_host, "127.0.0.1"),
    "BRIDGE_ADMIN_PORT": ("admin_port = 9001", "65535", lambda s: s.admin_port, 65535),
    "BRIDGE_ADMIN_TOKEN": ("admin_token = 'env:HOME'", "new, old", lambda s: s.admin_token, ("new", "old")),
    "BRIDGE_TRANSFORMS": ("transforms = ['.']", "/:..", lambda s: s.transforms, ("/", "..")),
    "INNGEST_EVENT_KEY": ("event_api.key = 'env:PATH'", "key", lambda s: s.event_api.key, "key"),
    "INNGEST_EVENT_API_BASE_URL": (
        "event_api.base_url = 'http://file'",
        "http://variable",
        lambda s: s.event_api.url,
        "http://variable",
    ),
    "INNGEST_BASE_URL": (
        "event_api.base_url = 'http://file'",
        "http://variable",
        lambda s: s.event_api.url,
        "http://variable",
    ),
    "INNGEST_DEV": ("event_api.dev = '0'", "http://dev:1", lambda s: s.event_api.url, "http://dev:1"),
    "INNGEST_ENV": ("event_api.env = 'file'", "branch", lambda s: s.event_api.env, "branch"),
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str = "", **variables: str) -> Settings:
    Path("bridge.toml").write_text(text)
    return config.load({**ENOUGH, **variables})


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_wins_over_the_file(name: str) -> None:
    in_file, value, read, expected = VARIABLES[name]
    assert read(load(**{name: value})) == expected
    assert read(load(in_file, **{name: value})) == expected


@pytest.mark.parametrize("name", VARIABLES.keys() - {"INNGEST_EVENT_KEY", "BRIDGE_ADMIN_TOKEN"})
def test_a_key_of_the_file_does_without_its_variable(name: str) -> None:
    in_file, _, read, expected = VARIABLES[name]
    assert read(load(in_file)) not in {expected, read(load())} or name == "INNGEST_DEV"


def test_every_declared_variable_is_tested_here() -> None:
    names = {name for _, field in declared() for name in field.metadata["env"].split(", else ") if name}
    assert names == set(VARIABLES)


def test_without_a_file_and_with_the_variables_alone_the_defaults_hold() -> None:
    settings = config.load(ENOUGH)
    assert (settings.host, settings.port, settings.admin_host, settings.admin_port) == (
        "0.0.0.0",  # noqa: S104 - compared, not bound
        8080,
        "127.0.0.1",
        8081,
    )
    assert settings.journal == "sqlite:///bridge.db"
    assert settings.event_api.url == "https://inn.gs"
    assert list(settings.sources) == ["stripe"]


def test_each_provider_is_enabled_by_its_variable_alone() -> None:
    names = {
        "STRIPE_WEBHOOK_SECRET": "stripe",
        "SLACK_SIGNING_SECRET": "slack",
        "INTERCOM_CLIENT_SECRET": "intercom",
    }
    for variable, source in names.items():
        settings = config.load({variable: "s", "INNGEST_DEV": "1"})
        assert {name: each.provider for name, each in settings.sources.items()} == {source: source}
    assert len(config.load({**dict.fromkeys(names, "s"), "INNGEST_DEV": "1"}).sources) == 3


def test_the_file_says_all_that_can_be_set() -> None:
    Path("eu.secret").write_text("whsec_eu\n")
    text = """
        journal = "sqlite:///x.db"
        transform_timeout = 1
        [event_api]
        key = "env:PRODUCTION_KEY"
        max_event_bytes = 2048
        timeout = 2.5
        [retention]
        bodies = 1
        ids = 2
        [sources.stripe-eu]
        provider = "stripe"
        secrets = ["file:eu.secret", "env:OLD_EU"]
        prefix = "billing/eu"
        max_body = 2048
        tolerance = 60
    """
    Path("named.toml").write_text(text)
    settings = config.load({"BRIDGE_CONFIG": "named.toml", "PRODUCTION_KEY": "key", "OLD_EU": "whsec_old"})
    assert (settings.transform_timeout, settings.retention.bodies, settings.retention.ids) == (1.0, 1, 2)
    api = settings.event_api
    assert (api.key, api.max_event_bytes, api.timeout) == ("key", 2048, 2.5)
    source = settings.sources["stripe-eu"].source("stripe-eu")
    assert (source.prefix, source.max_body, source.tolerance) == ("billing/eu", 2048, 60_000)
    assert source.secrets == (b"whsec_eu", b"whsec_old")


def test_two_sources_of_one_provider_have_secrets_of_their_own() -> None:
    text = """
        [sources.stripe-eu]
        provider = "stripe"
        secrets = ["env:EU"]
        [sources.stripe-us]
        provider = "stripe"
        secrets = "env:US"
    """
    Path("bridge.toml").write_text(text)
    settings = config.load({"EU": "whsec_eu", "US": "whsec_us", "INNGEST_DEV": "1"})
    assert {name: each.secrets for name, each in settings.sources.items()} == {
        "stripe-eu": ("whsec_eu",),
        "stripe-us": ("whsec_us",),
    }


def test_a_section_without_secrets_takes_those_of_its_providers_variable() -> None:
    settings = load("[sources.payments]\nprovider = 'stripe'\n[sources.stripe]\nprovider = 'stripe'\ntolerance = 60")
    assert settings.sources["payments"].secrets == settings.sources["stripe"].secrets == ("whsec_1",)
    assert settings.sources["stripe"].tolerance == 60


@pytest.mark.parametrize(
    ("given", "url", "is_dev"),
    [
        ("1", "http://localhost:8288", True),
        ("true", "http://localhost:8288", True),
        ("http://dev.example:9/", "http://dev.example:9/", True),
        ("0", "https://inn.gs", False),
        ("False", "https://inn.gs", False),
        ("", "https://inn.gs", False),
    ],
)
def test_the_dev_server_is_1_or_a_url(given: str, url: str, is_dev: bool) -> None:  # noqa: FBT001 - from the list above
    api = load(INNGEST_DEV=given).event_api
    assert (api.url, api.is_dev) == (url, is_dev)


def test_of_the_base_urls_the_event_apis_own_wins() -> None:
    both = {"INNGEST_EVENT_API_BASE_URL": "http://own", "INNGEST_BASE_URL": "http://general"}
    assert load(**both).event_api.url == "http://own"
    assert load(INNGEST_BASE_URL="http://general").event_api.url == "http://general"
    assert load(**both, INNGEST_DEV="1").event_api.url == "http://own"
    assert load(**both, INNGEST_DEV="http://dev").event_api.url == "http://dev"


def test_the_dev_server_needs_no_key_and_a_command_that_does_not_serve_needs_nothing() -> None:
    assert config.load({"SLACK_SIGNING_SECRET": "s", "INNGEST_DEV": "1"}).event_api.key == ""
    assert config.load({}, serving=False).sources == {}


def test_a_file_that_is_named_must_be_there_and_the_usual_one_need_not() -> None:
    assert config.load({**ENOUGH, "BRIDGE_CONFIG": ""}).port == 8080
    with pytest.raises(ConfigInvalid, match=r"^BRIDGE_CONFIG: missing.toml: No such file or directory$"):
        config.load({**ENOUGH, "BRIDGE_CONFIG": "missing.toml"})


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///bridge.db", "bridge.db"),
        ("sqlite:///./sub/bridge.db", "sub/bridge.db"),
        ("sqlite:///../bridge.db", "../bridge.db"),
        ("sqlite:///var/lib/bridge.db", "/var/lib/bridge.db"),
        ("sqlite:////var/lib/bridge.db", "/var/lib/bridge.db"),
        ("sqlite:///var/with%20space.db", "/var/with space.db"),
    ],
)
def test_a_journals_url_names_a_file(url: str, path: str) -> None:
    assert path_of(url) == Path(path)
    assert fault_of(url) == ""
    assert load(BRIDGE_JOURNAL=url).journal == url


def test_a_journal_is_there_once_its_file_is() -> None:
    assert not exists("sqlite:///bridge.db")
    Path("bridge.db").touch()
    assert exists("sqlite:///bridge.db")


def test_the_real_environment_gives_every_fault_as_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """os.environ raises TypeError when it is asked for something that is no text: an unknown key has no variable."""
    for name in [name for name in os.environ if name.startswith(("BRIDGE_", "INNGEST_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BRIDGE_PORT", "none")
    Path("bridge.toml").write_text("unheard_of = 1\n[event_api]\ntimeout = 'long'\n[sources.x]\nbogus = 1")
    with pytest.raises(ConfigInvalid) as raised:
        config.load(os.environ, serving=False)
    assert [fault.partition(":")[0] for fault in raised.value.faults] == [
        "BRIDGE_PORT",
        "event_api.timeout",
        "sources.x.provider",
        "sources.x.bogus",
        "unheard_of",
    ]


def test_a_variable_that_is_empty_is_not_set_except_for_a_secrets() -> None:
    """`NAME=` in an .env file, or `${NAME:-}` in a compose file, makes no wish."""
    names = VARIABLES.keys() - {"INNGEST_EVENT_KEY", "BRIDGE_ADMIN_TOKEN"}
    for blank in ("", " "):
        assert load("port = 9000\nhost = '127.0.0.2'", **dict.fromkeys(names, blank)) == load(
            "port = 9000\nhost = '127.0.0.2'"
        )
    assert load(INNGEST_EVENT_API_BASE_URL="", INNGEST_BASE_URL="http://general").event_api.url == "http://general"


def test_secrets_can_be_forgotten_once_they_are_read() -> None:
    text = """
        event_api.key = "env:PRODUCTION_KEY"
        [sources.eu]
        provider = "stripe"
        secrets = ["env:STRIPE_EU", "env:older_eu"]
        [sources.us]
        provider = "stripe"
        secrets = "env:STRIPE_US"
    """
    Path("bridge.toml").write_text(text)
    held = ["PRODUCTION_KEY", "STRIPE_EU", "older_eu", "STRIPE_US", "STRIPE_WEBHOOK_SECRET", "SLACK_SIGNING_SECRET"]
    environment = dict.fromkeys([*held, "INTERCOM_CLIENT_SECRET", "INNGEST_EVENT_KEY", "STRIPE_API_KEY", "PATH"], "s")
    config.forget_secrets(environment)
    assert environment == {"STRIPE_API_KEY": "s", "PATH": "s"}


def test_what_is_right_is_still_read_beside_what_is_wrong() -> None:
    Path("bridge.toml").write_text("port = 'x'\nadmin_port = 9001\ntransforms = ['nowhere', '.']\njournal = 'x'")
    settings: Any
    settings, faults = config.read(ENOUGH)
    assert len(faults) == 3
    assert (settings.admin_port, settings.transforms, settings.journal) == (9001, (".",), "")


@pytest.mark.parametrize("name", ["BRIDGE_JOURNAL", "BRIDGE_HOST", "INNGEST_ENV", "INNGEST_EVENT_API_BASE_URL"])
def test_a_variable_that_is_empty_is_not_set(name: str) -> None:
    """An .env file's `NAME=`, a compose file's `${NAME:-}`."""
    assert load(**ENOUGH, **{name: ""}) == load(**ENOUGH)


def test_settings_that_are_printed_show_no_password() -> None:
    settings = load(**ENOUGH, BRIDGE_JOURNAL="postgresql://user:sesame@host/db")
    assert "sesame" in settings.journal
    assert "sesame" not in repr(settings)


def test_two_event_keys_are_a_fault() -> None:
    with pytest.raises(ConfigInvalid, match="INNGEST_EVENT_KEY: several keys, expected one"):
        load(**{**ENOUGH, "INNGEST_EVENT_KEY": "one,two"})


def test_secrets_are_taken_out_of_the_environment_also_those_the_file_names() -> None:
    """Whatever is started later, the user's transforms among it, inherits the rest alone."""
    Path("bridge.toml").write_text('[sources.eu]\nprovider = "stripe"\nsecrets = ["env:EU_SECRET"]\n')
    held = dict.fromkeys(("EU_SECRET", "SLACK_SIGNING_SECRET", "BRIDGE_JOURNAL"), "s")
    environment = {**ENOUGH, **held, "PATH": "/bin", "BRIDGE_PORT": "1"}
    config.forget_secrets(environment)
    assert environment == {"PATH": "/bin", "BRIDGE_PORT": "1"}

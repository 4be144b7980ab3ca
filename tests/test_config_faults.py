"""Every fault of a configuration is a line that names its place, all of them at once, and none tells a secret."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import config, providers
from bridge.errors import ConfigInvalid
from bridge.journal import EXPECTED
from bridge.settings import declared

ENOUGH = {"STRIPE_WEBHOOK_SECRET": "whsec_1", "INNGEST_EVENT_KEY": "key"}
SECRET = "whsec_NeverToBeShown"
KNOWN = ", ".join(providers.load())
STRIPE = "[sources.stripe]\nprovider = 'stripe'\n"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def faults(text: str | bytes = "", variables: Mapping[str, str] | None = None, **more: str) -> list[str]:
    Path("bridge.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    try:
        config.load({**(ENOUGH if variables is None else variables), **more})
    except ConfigInvalid as invalid:
        return list(invalid.faults)
    return []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("ports = 1", "ports: unknown key; did you mean port?"),
        ("[event_api]\nurl = 'x'", "event_api.url: unknown key"),
        ("event_api = 1", "event_api: expected a table"),
        ("sources = 1", "sources: expected tables, [sources.NAME]"),
        ("[sources]\nstripe = 'whsec'", "sources.stripe: expected a table"),
        ("port = 'http'", "port: expected a whole number"),
        ("port = 70000", "port: must be at most 65535"),
        ("port = -1", "port: must be at least 0"),
        ("port = true", "port: neither true nor false is a value for it"),
        ("port = 1.5", "port: expected a whole number"),
        ("host = ''", "host: empty"),
        ("host = 1", "host: expected a text, in quotes"),
        ("host = 'ü..x'", "host: neither an address nor the name of a host"),
        ("admin_host = 'a b'", "admin_host: neither an address nor the name of a host"),
        ("transforms = 'here'", "transforms: expected a list"),
        ("transforms = ['.', 1]", "transforms: expected a text, in quotes"),
        ("transforms = ['nowhere']", "transforms: nowhere: no such file or directory"),
        ("transforms = ['bridge.toml']", "transforms: bridge.toml: not a directory"),
        ('transforms = ["a\\u0000b"]', "transforms: a b: there is a NUL in it"),
        ("transform_timeout = 0", "transform_timeout: must be more than 0"),
        ("transform_timeout = nan", "transform_timeout: must be at most 60"),
        (
            "[retention]\nids = 1",
            "retention.ids: shorter than retention.bodies, but a body without its id would be a new delivery",
        ),
        ("[retention]\nbodies = 0", "retention.bodies: must be at least 1"),
        ("event_api.max_batch_events = 5001", "event_api.max_batch_events: must be at most 5000"),
        ("event_api.dev = 1", "event_api.dev: expected a text, in quotes"),
        ("event_api.env = 'prüfung'", "event_api.env: sent as a header, so it must be printable ASCII"),
        ("event_api.key = 'env:NOWHERE'", "event_api.key: NOWHERE is not set"),
        ("journal = 'bridge.db'", f"journal: no URL, expected {EXPECTED}"),
        ("journal = 'sqlite://['", f"journal: no URL, expected {EXPECTED}"),
        ("journal = 'sqlite:///%00'", "journal: there is a NUL in its path"),
        (f"journal = 'sqlite:///{'a' * 300}'", "journal: File name too long"),
        ("journal = 'sqlite:///tmp/'", "journal: /tmp is a directory, expected sqlite:///path/to/file.db"),
        (
            "journal = 'sqlite://bridge.db'",
            "journal: expected sqlite:///path/to/file.db, with three slashes and the name of a file",
        ),
        ('"two\\nlines" = 1', "two lines: unknown key"),
        ("[sources.x]", "sources.x.provider: missing"),
        ("[sources.x]\nprovider = 'github'", f"sources.x.provider: unknown, expected one of {KNOWN}"),
        ("[sources.x]\nprovider = 'slack'", "sources.x.secrets: missing, and SLACK_SIGNING_SECRET is not set"),
        (STRIPE + "bogus = 1", "sources.stripe.bogus: unknown key"),
        (STRIPE + "secrets = []", "sources.stripe.secrets: empty, so nothing could be verified"),
        (STRIPE + "max_body = 1", "sources.stripe.max_body: must be at least 1024"),
        (STRIPE + "tolerance = 0", "sources.stripe.tolerance: must be at least 1"),
        (STRIPE + "prefix = ''", "sources.stripe.prefix: empty"),
        (STRIPE + f"prefix = '{'{x}' * 50}'", "sources.stripe.prefix: longer than 100 characters"),
        ("event_api.timeout = 'x'", "event_api.timeout: expected a number"),
    ],
)
def test_a_fault_names_the_key_and_says_what_is_wrong(text: str, fault: str) -> None:
    env = {"INNGEST_DEV": "1"} if text.startswith("event_api.key") else {}
    assert faults(text, ENOUGH | env if not env else {"STRIPE_WEBHOOK_SECRET": "s"} | env) == [fault]


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("BRIDGE_PORT", "http", "expected a whole number"),
        ("BRIDGE_JOURNAL", "bridge.db", f"no URL, expected {EXPECTED}"),
        ("BRIDGE_TRANSFORMS", "nowhere", "nowhere: no such file or directory"),
        ("BRIDGE_HOST", "ü" * 80, "neither an address nor the name of a host"),
        ("BRIDGE_HOST", "\udcff", "not UTF-8"),
        ("BRIDGE_TRANSFORMS", "/::/", "empty"),
        ("INNGEST_BASE_URL", "inn.gs", "expected a URL such as https://inn.gs"),
        ("INNGEST_BASE_URL", "http://[", "expected a URL such as https://inn.gs"),
        ("INNGEST_BASE_URL", "http://x:99999", "expected a URL such as https://inn.gs"),
        ("INNGEST_BASE_URL", "https://inn.gs/e/key", "expected a URL such as https://inn.gs"),
        ("INNGEST_EVENT_API_BASE_URL", "file:///etc", "expected a URL such as https://inn.gs"),
        ("INNGEST_DEV", "localhost:8288", "expected 1, 0 or a URL such as http://localhost:8288"),
        ("INNGEST_ENV", "a\nb", "sent as a header, so it must be printable ASCII"),
        ("INNGEST_EVENT_KEY", " ", "blank"),
        ("INNGEST_EVENT_KEY", "one,two", "several keys, expected one"),
        ("INNGEST_EVENT_KEY", "\udcff", "not UTF-8"),
        ("STRIPE_WEBHOOK_SECRET", "", "blank"),
        ("STRIPE_WEBHOOK_SECRET", ",,", "blank"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_1,,whsec_2", "a blank secret between commas"),
        ("STRIPE_WEBHOOK_SECRET_FILE", "", "the file it names: Is a directory"),
        ("STRIPE_WEBHOOK_SECRET_FILE", "nowhere", "the file it names: No such file or directory"),
        ("STRIPE_WEBHOOK_SECRET_FILE", "blank", "the file it names: blank"),
        ("STRIPE_WEBHOOK_SECRET_FILE", "latin", "the file it names: not UTF-8"),
        ("INNGEST_EVENT_KEY_FILE", "blank", "the file it names: blank"),
    ],
)
def test_a_fault_of_a_variable_names_the_variable(name: str, value: str, fault: str) -> None:
    Path("blank").write_text(" \n")
    Path("latin").write_bytes(b"\xff")
    enough = {key: given for key, given in ENOUGH.items() if key != name.removesuffix("_FILE")}
    assert faults("", {**enough, name: value}) == [f"{name}: {fault}"]


@pytest.mark.parametrize("name", ["../x", "A", "a" * 64, "", "-a", "a/b", "a.b", "ä", "a b"])
def test_a_sources_name_must_do_in_a_url(name: str) -> None:
    [fault] = faults(f"[sources.'{name}']\nprovider = 'stripe'")
    assert fault.startswith(f"sources.{name}: a name is lower-case letters, digits, - and _, at most 63")


@pytest.mark.parametrize("prefix", ["inngest", "Inngest", "inngest/mine", "mine/", "a\\u001bb"])
def test_a_prefix_must_do_in_an_events_name(prefix: str) -> None:
    [fault] = faults(STRIPE + f'prefix = "{prefix}"')
    assert fault.startswith("sources.stripe.prefix: must be printable")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"port = ", "bridge.toml: Invalid value (at end of document)"),
        (b"[a]\n[a]", "bridge.toml: Cannot declare ('a',) twice (at line 2, column 3)"),
        (b"host = '\xff'", "bridge.toml: not UTF-8"),
        (b"x = " + b"[" * 5000, "bridge.toml: can't be read: a name with a NUL in it, or too deeply nested"),
    ],
)
def test_a_file_that_is_no_toml_is_one_fault_and_what_it_might_say_is_not_missing(text: bytes, fault: str) -> None:
    assert faults(text, {}) == [fault]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (STRIPE + f"secrets = ['{SECRET}']", "sources.stripe.secrets"),
        (STRIPE + f"secrets = '{SECRET}'", "sources.stripe.secrets"),
        (STRIPE + f"secrets = ['env:{SECRET}']", "sources.stripe.secrets"),
        (STRIPE + f"secrets = ['file:{SECRET}']", "sources.stripe.secrets"),
        (STRIPE + f"secrets = ['env:STRIPE_WEBHOOK_SECRET', '{SECRET}']", "sources.stripe.secrets, number 2"),
        (f"event_api.key = '{SECRET}'", "event_api.key"),
    ],
)
def test_a_secret_in_the_file_is_a_fault_that_does_not_repeat_it(text: str, key: str) -> None:
    [fault] = faults(text, {"STRIPE_WEBHOOK_SECRET": "s", "INNGEST_DEV": "1"})
    assert fault.startswith(f"{key}: ")
    assert SECRET not in fault


def test_a_secret_that_stands_where_its_file_belongs_is_not_repeated() -> None:
    assert SECRET not in str(faults("", {"INNGEST_DEV": "1", "STRIPE_WEBHOOK_SECRET_FILE": SECRET}))


def test_a_variable_and_its_file_together_are_a_fault() -> None:
    Path("secret").write_text("s")
    [fault] = faults("", ENOUGH, STRIPE_WEBHOOK_SECRET_FILE="secret")
    assert fault == "STRIPE_WEBHOOK_SECRET: set, and STRIPE_WEBHOOK_SECRET_FILE too: set one of the two"


def test_all_faults_are_told_at_once_each_once() -> None:
    text = """
        port = 'x'
        bogus = 1
        [sources.a]
        other = 1
        [sources.b]
        provider = 'nobody'
        [sources.takes-what-slack-has]
        provider = 'slack'
        [sources.C]
        provider = 'stripe'
        secrets = ['env:C']
        max_body = 1
        [retention]
        ids = 1
    """
    told = faults(text, {"SLACK_SIGNING_SECRET": ",", "INNGEST_ENV": "ü", "C": ""})
    assert sorted(fault.partition(":")[0] for fault in told) == sorted(
        [
            "SLACK_SIGNING_SECRET",
            "C",
            "sources.C.max_body",
            "port",
            "bogus",
            "sources.a.provider",
            "sources.a.other",
            "sources.b.provider",
            "sources.C",
            "retention.ids",
            "INNGEST_ENV",
            "INNGEST_EVENT_KEY",
        ]
    )


def test_what_is_missing_is_told_beside_what_is_wrong_but_not_where_it_is_wrong_itself() -> None:
    assert [fault.partition(":")[0] for fault in faults("port = 'x'", {})] == ["port", "sources", "INNGEST_EVENT_KEY"]
    assert faults("", {"STRIPE_WEBHOOK_SECRET": "", "INNGEST_EVENT_KEY": ""}) == [
        "STRIPE_WEBHOOK_SECRET: blank",
        "INNGEST_EVENT_KEY: blank",
    ]


_SECRETS = st.sampled_from([SECRET, f"env:{SECRET}", f"file:{SECRET}", f"file:\0{SECRET}", "env:HELD", "file:", ""])
_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
_VALUES = st.recursive(
    st.none().map(lambda _: "env:X") | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_KEYS = {key.rpartition(".")[2] for key, _ in declared()} - {"secrets", "key"}
_TABLE = st.dictionaries(st.sampled_from(sorted(_KEYS)) | _TEXT, _VALUES, max_size=4)
_SOURCE = st.builds(
    lambda table, provider, secrets: table | provider | secrets,
    _TABLE,
    st.fixed_dictionaries({}, optional={"provider": st.sampled_from(["stripe", "slack", "x"])}),
    st.fixed_dictionaries({}, optional={"secrets": _SECRETS | st.lists(_SECRETS, max_size=3)}),
)
_API = st.builds(lambda table, key: table | key, _TABLE, st.fixed_dictionaries({}, optional={"key": _SECRETS}))
_FILES = st.builds(
    lambda table, more: table | more,
    _TABLE,
    st.fixed_dictionaries(
        {},
        optional={
            "sources": st.dictionaries(st.sampled_from(["stripe", "a", "B", "x\ny"]) | _TEXT, _SOURCE | _VALUES),
            "event_api": _API | _VALUES,
            "retention": _TABLE | _VALUES,
        },
    ),
)
_HOLDERS = ["HELD", "INNGEST_EVENT_KEY", *(each.environment for each in providers.load().values())]
_PLAIN = [name for _, each in declared() for name in each.metadata["env"].split(", else ") if name not in _HOLDERS]
_VARIABLES = st.builds(
    lambda secret, plain: secret | plain,
    st.dictionaries(
        st.sampled_from([*_HOLDERS, *(f"{name}_FILE" for name in _HOLDERS)]),
        st.sampled_from([SECRET, f"{SECRET},", f" {SECRET}\n\0", f"{SECRET}\udcff", "", " ", ",", f"/{SECRET}"]),
    ),
    st.dictionaries(st.sampled_from(sorted(filter(None, _PLAIN))), st.text(st.characters(), max_size=12)),
)


@settings(deadline=None)
@given(_FILES, _VARIABLES, st.booleans())
def test_whatever_stands_there_is_a_configuration_or_a_list_of_faults_without_any_secret(
    file: dict[str, Any],
    variables: dict[str, str],
    serving: bool,  # noqa: FBT001 - what hypothesis gives
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "any.toml")
        path.write_bytes("\n".join(f"{_toml(key)} = {_toml(value)}" for key, value in file.items()).encode())
        found, told = config.read({**variables, "BRIDGE_CONFIG": str(path)}, serving=serving)
    invalid = ConfigInvalid(told)
    assert all(fault.isprintable() for fault in invalid.faults)
    assert SECRET not in str(invalid) + repr(found)
    assert told or not serving or all(source.secrets for source in found.sources.values())


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in value) + '"'
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case dict():
            return f"{{{', '.join(f'{_toml(key)} = {_toml(each)}' for key, each in value.items())}}}"
    return repr(value)

"""Where secrets may be: in the environment, in a file that is named, in a directory of the service manager's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bridge import config
from bridge.config import secrets
from bridge.errors import ConfigInvalid
from bridge.settings import Settings

DEV = {"INNGEST_DEV": "1"}


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Path]:
    """An empty folder, and in it the directories of Docker and systemd."""
    monkeypatch.chdir(tmp_path)
    found = {name: tmp_path / name for name in ("containers", "credentials")}
    for each in found.values():
        each.mkdir()
    monkeypatch.setattr(secrets, "_CONTAINERS", found["containers"])
    return found


def load(**variables: str) -> Settings:
    return config.load({**DEV, **variables})


def faults(**variables: str) -> list[str]:
    with pytest.raises(ConfigInvalid) as raised:
        load(**variables)
    return list(raised.value.faults)


def test_a_file_of_the_variables_name_is_enough_where_containers_have_their_secrets(
    directories: Mapping[str, Path],
) -> None:
    values = {
        "STRIPE_WEBHOOK_SECRET": "whsec_new\nwhsec_old\n",
        "INNGEST_EVENT_KEY": "key\n",
        "BRIDGE_JOURNAL": "postgresql://u:p@h/d\n",
        "BRIDGE_ADMIN_TOKEN": "token\n",
    }
    for name, value in values.items():
        (directories["containers"] / name).write_text(value)
    settings = config.load({})
    assert settings.sources["stripe"].secrets == ("whsec_new", "whsec_old")
    assert settings.event_api.key == "key"
    assert settings.journal == "postgresql://u:p@h/d"
    assert settings.admin_token == ("token",)


def test_systemds_credentials_are_found_and_come_first(directories: Mapping[str, Path]) -> None:
    (directories["credentials"] / "SLACK_SIGNING_SECRET").write_text("systemd's")
    (directories["containers"] / "SLACK_SIGNING_SECRET").write_text("docker's")
    settings = load(CREDENTIALS_DIRECTORY=str(directories["credentials"]))
    assert settings.sources["slack"].secrets == ("systemd's",)


def test_a_variable_that_the_file_names_may_be_a_file_there(directories: Mapping[str, Path]) -> None:
    Path("bridge.toml").write_text('[sources.eu]\nprovider = "stripe"\nsecrets = ["env:STRIPE_EU"]\n')
    (directories["containers"] / "STRIPE_EU").write_text("whsec_eu")
    assert load().sources["eu"].secrets == ("whsec_eu",)


def test_a_name_can_not_lead_out_of_the_directory(directories: Mapping[str, Path]) -> None:
    (directories["containers"].parent / "outside").write_text("not meant")
    Path("bridge.toml").write_text('[sources.eu]\nprovider = "stripe"\nsecrets = ["env:../outside"]\n')
    assert faults() == ["sources.eu.secrets: the variable is not set"]


def test_a_secret_in_two_places_is_a_fault_that_names_both(directories: Mapping[str, Path]) -> None:
    there = directories["containers"] / "STRIPE_WEBHOOK_SECRET"
    there.write_text("from the file")
    assert faults(STRIPE_WEBHOOK_SECRET="s") == [f"STRIPE_WEBHOOK_SECRET: set, and {there} too: set one of the two"]
    Path("named").write_text("the one that was named")
    assert load(STRIPE_WEBHOOK_SECRET_FILE="named").sources["stripe"].secrets == ("the one that was named",)


def test_a_place_that_can_not_be_looked_into_does_not_pass_for_an_empty_one(directories: Mapping[str, Path]) -> None:
    loop = directories["containers"].parent / "loop"
    loop.symlink_to(loop)
    assert faults(CREDENTIALS_DIRECTORY=str(loop))[0] == f"{loop}: Too many levels of symbolic links"
    given = dict.fromkeys(["STRIPE_WEBHOOK_SECRET", "SLACK_SIGNING_SECRET", "INTERCOM_CLIENT_SECRET"], "s")
    ours = {"INNGEST_EVENT_KEY": "k", "BRIDGE_JOURNAL": "sqlite:///j.db", "BRIDGE_ADMIN_TOKEN": "t"}
    assert load(CREDENTIALS_DIRECTORY=str(loop), **given, **ours).admin_token == ("t",), "nothing is looked for there"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ","])
def test_each_line_is_one_wherever_it_was_written(end: str) -> None:
    assert load(STRIPE_WEBHOOK_SECRET=f"new{end} old{end if end != ',' else ''}").sources["stripe"].secrets == (
        "new",
        "old",
    )


@pytest.mark.parametrize("content", ["", " \n", "\n\n"])
def test_an_empty_file_there_is_a_fault(directories: Mapping[str, Path], content: str) -> None:
    there = directories["containers"] / "STRIPE_WEBHOOK_SECRET"
    there.write_text(content)
    assert faults() == [f"{there}: blank"]


def test_every_file_that_holds_a_secret_is_known_so_that_a_change_can_be_seen(directories: Mapping[str, Path]) -> None:
    text = """
        event_api.key = "file:event.key"
        [sources.eu]
        provider = "stripe"
        secrets = ["env:STRIPE_EU", "file:/old/eu"]
    """
    Path("bridge.toml").write_text(text)
    environment = {"SLACK_SIGNING_SECRET_FILE": "slack", "CREDENTIALS_DIRECTORY": str(directories["credentials"])}
    raw, _ = config.open_file(environment)
    found = secrets.files(raw, environment)
    assert found >= {Path("event.key"), Path("/old/eu"), Path("slack")}
    for name in ("STRIPE_EU", "STRIPE_WEBHOOK_SECRET", "INNGEST_EVENT_KEY", "BRIDGE_JOURNAL", "BRIDGE_ADMIN_TOKEN"):
        assert found >= {directories["credentials"] / name, directories["containers"] / name}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "bridge.internal"])  # noqa: S104 - not bound
def test_a_private_listener_that_others_reach_needs_a_token(host: str) -> None:
    enough = {"STRIPE_WEBHOOK_SECRET": "s", "BRIDGE_ADMIN_HOST": host}
    assert faults(**enough) == [
        f"BRIDGE_ADMIN_HOST: others can reach {host}, so set BRIDGE_ADMIN_TOKEN, which they will be asked for"
    ]
    assert load(**enough, BRIDGE_ADMIN_TOKEN="t").admin_token == ("t",)
    assert faults(**enough, BRIDGE_ADMIN_TOKEN=" ") == ["BRIDGE_ADMIN_TOKEN: blank"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_one_that_this_machine_alone_reaches_needs_none(host: str) -> None:
    assert load(STRIPE_WEBHOOK_SECRET="s", BRIDGE_ADMIN_HOST=host).admin_token == ()

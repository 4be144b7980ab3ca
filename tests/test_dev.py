"""What `bridge dev` adds to a configuration, and where it sends: never to the real Event API."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from commands import closed_url, standing_in

from bridge import providers
from bridge.dev import Destination, known_secret, on_this_machine, with_every_provider
from bridge.event_api import EventApi
from bridge.model import Event
from bridge.settings import DEV_SERVER, EventApiSettings, Settings, SourceSettings


@asynccontextmanager
async def destination(
    api: EventApiSettings, *, on_event: Callable[[dict[str, Any]], None] = lambda _: None
) -> AsyncIterator[tuple[Destination, EventApiSettings]]:
    found = Destination(Settings(event_api=api), on_event=on_event)
    try:
        yield found, (await found.open()).event_api
    finally:
        await found.close()


@pytest.fixture
def closed() -> Iterator[str]:
    """A URL where nothing listens, and nothing else will."""
    with closed_url() as url:
        yield url


@pytest.fixture
def silent() -> Iterator[str]:
    """A URL where something listens that never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_every_provider_without_a_source_gets_one_with_a_secret_everybody_knows() -> None:
    mine = SourceSettings(provider="stripe", secrets=("whsec_mine",))
    found = with_every_provider(Settings(sources={"payments": mine})).sources
    others = {name: name for name in providers.load() if name != "stripe"}
    assert {name: source.provider for name, source in found.items()} == {"payments": "stripe", **others}
    assert found["payments"] is mine
    assert found["slack"].secrets == (known_secret("slack"),)


def test_a_source_whose_secret_is_not_here_gets_that_one_too() -> None:
    found = with_every_provider(Settings(sources={"live": SourceSettings(provider="stripe", secrets=())})).sources
    assert found["live"].secrets == (known_secret("stripe"),)


def test_a_source_that_is_named_after_another_provider_is_kept() -> None:
    mine = SourceSettings(provider="slack", secrets=("mine",))
    found = with_every_provider(Settings(sources={"stripe": mine})).sources
    assert found["stripe"] is mine
    assert set(found) == providers.load().keys() - {"slack"}


def test_it_listens_on_this_machine_alone_unless_the_environment_says_otherwise() -> None:
    assert on_this_machine(Settings(host="0.0.0.0"), {}).host == "127.0.0.1"  # noqa: S104 - not bound
    assert on_this_machine(Settings(host="::"), {"BRIDGE_HOST": "::"}).host == "::"


def test_its_journal_is_not_that_of_the_service_unless_the_environment_says_so() -> None:
    """What was acknowledged there must not end in a stand-in."""
    service = Settings(journal="sqlite:////var/lib/bridge.db")
    assert on_this_machine(service, {}).journal == "sqlite:///bridge-dev.db"
    assert on_this_machine(service, {"BRIDGE_JOURNAL": service.journal}).journal == service.journal


async def test_a_dev_server_that_answers_gets_the_events(closed: str) -> None:
    async with standing_in() as server:
        for given in (
            EventApiSettings(dev=server.url, key="production"),
            EventApiSettings(dev=f"{server.url}/", base_url=closed),
            EventApiSettings(dev="1", base_url=server.url),
        ):
            async with destination(given) as (found, api):
                assert not found.is_stand_in
                assert (api.url.rstrip("/"), api.is_dev, api.key) == (server.url, True, "")


async def test_the_dev_server_on_its_usual_port_is_found_without_being_named() -> None:
    try:
        async with standing_in(port=8288), destination(EventApiSettings()) as (found, api):
            assert (api.url, found.is_stand_in) == (DEV_SERVER, False)
    except OSError:
        pytest.skip("something else listens on port 8288")


async def test_where_no_dev_server_answers_the_stand_in_gets_them_and_shows_them(closed: str) -> None:
    shown: list[dict[str, Any]] = []
    async with destination(EventApiSettings(dev=closed), on_event=shown.append) as (found, api):
        assert (found.is_stand_in, found.sought, api.url) == (True, closed, found.stand_in.url)
        async with EventApi(dev=api.is_dev, base_url=api.url) as client:
            await client.send([Event(name="test/one")])
    assert [event["name"] for event in shown] == ["test/one"]


@pytest.mark.parametrize("url", ["http://[", "nonsense", "http://host.invalid", "ftp://x"])
async def test_a_url_that_is_none_leads_to_the_stand_in_too(url: str) -> None:
    async with destination(EventApiSettings(dev=url)) as (found, _):
        assert found.is_stand_in


async def test_one_that_listens_and_never_answers_is_not_waited_for(silent: str) -> None:
    async with destination(EventApiSettings(dev=silent)) as (found, _):
        assert found.is_stand_in


async def test_nothing_goes_to_the_event_api_of_production() -> None:
    """Not even where the dev server was asked for at its address."""
    async with standing_in("production") as real:
        for dev in ("", "1", real.url):
            given = EventApiSettings(key="production", base_url=real.url, dev=dev, env="branch")
            async with destination(given) as (_, api):
                assert api.url != real.url
                assert (api.key, api.base_url, api.env, api.is_dev) == ("", "", "branch", True)
        assert real.asked == 0


async def test_limits_of_an_event_are_the_configured_ones(closed: str) -> None:
    async with destination(EventApiSettings(dev=closed, max_event_bytes=2048)) as (_, api):
        assert api.max_event_bytes == 2048

"""The stand-in Event API answers as a real one was recorded to, and misbehaves as it is told."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from bridge import stand_in
from bridge.stand_in import EMPTY, PAGE, Behaviour, CutOff, Hang, Refuse, Reset, Short, StandIn

RECORDINGS = Path(__file__).parent / "recordings" / "event-api.jsonl"
# The key the recorded server knew, where it took not just any.
KEY = "evtkey-local-1"
COMPARED = ("Content-Type", "Location", "Allow", "X-Inngest-Server-Kind")
LEFT_OUT = {
    "2.dev.options": "CORS: no browser sends to it",
    "2.start.options": "CORS: no browser sends to it",
    "3.ct_form_body": "the real server reads forms too; nothing here sends one",
    "4.syntax_after_race_0": "a race in the real server, recorded with both ends: the others show the other",
    "4.syntax_after_race_3": "the same race",
}
# The recorded server was built without its dashboard. One with it answers these with the dashboard's page.
NO_DASHBOARD = {"2.dev.missing_key", "2.dev.bearer_only", "2.dev.key_with_slash", "2.dev.double_slash_base_url"}
ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def recordings() -> list[Any]:
    found = [json.loads(line) for line in RECORDINGS.read_text().splitlines()]
    return [pytest.param(each, id=each["case"]) for each in found if each["case"] not in LEFT_OUT]


@pytest.fixture
async def api() -> AsyncIterator[StandIn]:
    api = StandIn()
    await api.start()
    yield api
    await api.stop()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        yield client


async def post(client: aiohttp.ClientSession, api: StandIn, *events: object, seed: str = "") -> tuple[int, Any]:
    """Status and parsed body."""
    headers = {"x-inngest-event-id-seed": seed}
    body = BytesIO(json.dumps(events).encode())
    async with client.post(f"{api.url}/e/any", data=body, headers=headers) as response:
        return response.status, json.loads(await response.read())


def shape(text: str, *, exact: bool) -> object:
    """The parsed body, with every id that is one replaced by a word, unless a seed fixes it."""
    body = json.loads(text) if text else ""
    if isinstance(body, dict) and not exact:
        body["ids"] = ["an id" if ULID.fullmatch(each) else each for each in body.get("ids", ())]
    return body


@pytest.mark.parametrize("recorded", recordings())
async def test_it_answers_as_recorded(recorded: Any, client: aiohttp.ClientSession) -> None:
    request, expected = recorded["request"], recorded["response"]
    api = StandIn(key=KEY if recorded["case"].startswith(("2.start", "4.", "8.start")) else None)
    await api.start()
    body = request["body"]
    data = base64.b64decode(body["base64"]) if isinstance(body, dict) else body.encode()
    url = URL(api.url + request["path"], encoded=True)
    async with client.request(
        request["method"], url, data=data, headers=request["headers"], allow_redirects=False
    ) as response:
        text = await response.text()
    await api.stop()
    assert response.status == expected["status"]
    if recorded["case"] in NO_DASHBOARD:
        assert text.startswith("<!DOCTYPE html>") and not api.events
        return
    assert {name: response.headers[name] for name in COMPARED if name in expected["headers"]} == expected["headers"]
    seeded = re.match(r"[1-9][0-9]{0,14},[A-Za-z0-9+/]+==", request["headers"].get("x-inngest-event-id-seed", ""))
    exact = bool(seeded) and "toobig" not in recorded["case"]
    assert shape(text, exact=exact) == shape(expected["body"], exact=exact)


def test_what_is_left_out_was_recorded() -> None:
    cases = {json.loads(line)["case"] for line in RECORDINGS.read_text().splitlines()}
    assert cases >= LEFT_OUT.keys() | NO_DASHBOARD


@pytest.mark.parametrize(("path", "body"), [("/health", {"status": 200, "message": "OK"}), ("/dev", None)])
async def test_it_says_that_it_is_there(path: str, body: object, api: StandIn, client: aiohttp.ClientSession) -> None:
    async with client.get(api.url + path) as response:
        found = json.loads(await response.read())
    assert response.status == 200 and response.headers["Content-Type"] == "application/json"
    assert body is None or found == body


async def test_with_a_key_it_is_no_dev_server(client: aiohttp.ClientSession) -> None:
    api = StandIn(key=KEY)
    await api.start()
    async with client.get(api.url + "/dev") as response:
        assert (response.status, await response.text()) == (404, "404 page not found\n")
    await api.stop()


async def test_an_unknown_key_is_refused_before_the_body_is_read() -> None:
    api = StandIn(key=KEY)
    await api.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(api.url).port)
    writer.write(b"POST /e/wrong HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    assert b" 401 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
    await api.stop()
    assert [(request.status, request.body) for request in api.requests] == [(401, b"")]


async def test_the_nth_event_of_a_seed_adds_n(api: StandIn, client: aiohttp.ClientSession) -> None:
    entropy = base64.b64encode(b"abcdef\xff\xff\xff\xfe").decode()
    first = (await post(client, api, {"name": "a"}, {"name": "b"}, seed=f"1743130137367,{entropy}"))[1]["ids"]
    again = (await post(client, api, {"name": "a"}, {"name": "b"}, seed=f"1743130137367,{entropy}"))[1]["ids"]
    assert first == again
    # The last four bytes overflow without touching the others.
    assert first[0].endswith("ZZZZZZ") and first[1].endswith("000000") and first[0][:19] == first[1][:19]


@pytest.mark.parametrize(
    "seed", ["0,AAAAAAAAAAAAAA==", f"{1 << 48},AAAAAAAAAAAAAA==", "1,AAAAAAAAAAAAAA", "1,AAAA", "x"]
)
async def test_a_malformed_seed_is_ignored(seed: str, api: StandIn, client: aiohttp.ClientSession) -> None:
    assert (await post(client, api, {"name": "a"}, seed=seed)) != (await post(client, api, {"name": "a"}, seed=seed))


async def test_whoever_waits_for_events_is_told(api: StandIn, client: aiohttp.ClientSession) -> None:
    waiting = asyncio.create_task(api.received(3))
    await post(client, api, {"name": "a"}, {"name": "b"})
    assert not waiting.done()
    await post(client, api, {"name": "c"})
    assert [event["name"] for event in await waiting] == ["a", "b", "c"]


async def test_every_event_is_shown_to_on_event(client: aiohttp.ClientSession) -> None:
    shown: list[dict[str, Any]] = []
    api = StandIn(on_event=shown.append)
    await api.start()
    await post(client, api, {"name": "a"}, {"name": ""}, {"name": "b"})
    await api.stop()
    assert [event["name"] for event in shown] == ["a"]


async def test_only_the_newest_are_kept(
    api: StandIn, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "EVENTS_KEPT", 2)
    monkeypatch.setattr(stand_in, "REQUESTS_KEPT", 1)
    await post(client, api, {"name": "a"}, {"name": "b"})
    await post(client, api, {"name": "c"})
    assert [event["name"] for event in await api.received(3)] == ["b", "c"]
    assert [request.body for request in api.requests] == [b'[{"name": "c"}]']


@pytest.mark.parametrize(
    ("behaviour", "status", "text"),
    [
        (Refuse(status=503, body="busy", headers={"Retry-After": "7"}), 503, "busy"),
        (EMPTY, 200, ""),
        (PAGE, 200, stand_in._PAGE),
    ],
)
async def test_a_refusal_accepts_nothing(
    behaviour: Refuse, status: int, text: str, api: StandIn, client: aiohttp.ClientSession
) -> None:
    api.misbehave = [behaviour]
    async with client.post(f"{api.url}/e/k", data=b'{"name":"a"}') as response:
        assert (response.status, await response.text()) == (status, text)
    assert response.headers.get("Retry-After") == behaviour.headers.get("Retry-After")
    assert api.accepted == 0 and api.requests[0].status == status
    assert (await post(client, api, {"name": "b"}))[0] == 200  # one behaviour, one request


async def test_it_can_refuse_an_event_by_its_name_for_good(api: StandIn, client: aiohttp.ClientSession) -> None:
    api.unwanted = {"b": "no b here"}
    for _ in range(2):
        status, body = await post(client, api, {"name": "a"}, {"name": "b"}, {"name": "c"})
        assert (status, len(body["ids"]), body["error"]) == (400, 1, "no b here")
    assert [event["name"] for event in api.events] == ["a", "a"]


@pytest.mark.parametrize(("by", "left"), [(0, 3), (2, 1), (9, 0)])
async def test_it_can_leave_out_ids_and_the_events_they_are_for(
    by: int, left: int, api: StandIn, client: aiohttp.ClientSession
) -> None:
    api.misbehave = [Short(by=by)]
    status, body = await post(client, api, {"name": "a"}, {"name": "b"}, {"name": "c"})
    assert (status, len(body["ids"]), api.accepted) == (200, left, 3)
    api.misbehave = [Short(by=by, taking=False)]
    status, body = await post(client, api, {"name": "a"}, {"name": "b"}, {"name": "c"})
    assert (status, len(body["ids"]), api.accepted) == (200, left, 3 + left)


@pytest.mark.parametrize(
    ("behaviour", "error", "accepted"),
    [
        (Reset(), ConnectionResetError, 0),
        (Reset(accepting=True), ConnectionResetError, 1),
        (CutOff(), aiohttp.ClientPayloadError, 1),
    ],
)
async def test_it_can_drop_the_connection(
    behaviour: Behaviour, error: type[Exception], accepted: int, api: StandIn, client: aiohttp.ClientSession
) -> None:
    api.always = behaviour
    for _ in range(2):
        with pytest.raises((aiohttp.ClientError, OSError)) as raised:
            await post(client, api, {"name": "a"})
        assert isinstance(raised.value, error) or raised.value.errno == 104  # type: ignore[attr-defined]  # an OSError has it
    assert [request.status for request in api.requests] == [0, 0] and api.accepted == 2 * accepted
    api.always = None
    assert (await post(client, api, {"name": "a"}))[0] == 200


async def test_it_can_hang_until_it_is_stopped_and_start_again_where_it_was(client: aiohttp.ClientSession) -> None:
    api = StandIn()
    await api.start()
    url = api.url
    api.misbehave = [Hang()]
    hanging = asyncio.create_task(post(client, api, {"name": "a"}))
    await api.requested(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(hanging), timeout=0.05)
    await api.stop()
    with pytest.raises((aiohttp.ClientError, OSError)):
        await hanging
    with pytest.raises(aiohttp.ClientConnectorError):
        await post(client, api, {"name": "b"})
    await api.start(int(url.rpartition(":")[2]))
    assert api.url == url
    assert (await post(client, api, {"name": "c"}))[0] == 200
    assert [event["name"] for event in api.events] == ["c"]
    await api.stop()


async def test_it_stops_without_waiting_for_a_body_that_never_comes(api: StandIn) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(api.url).port)
    half = b"POST /e/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n["
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + half)
    await reader.readuntil(b'"OK"}\n')  # the next is being read
    async with asyncio.timeout(5):
        await api.stop()
    writer.close()
    await writer.wait_closed()


async def test_a_taken_port_is_an_error(api: StandIn) -> None:
    other = StandIn()
    with pytest.raises(OSError, match="address already in use"):
        await other.start(int(api.url.rpartition(":")[2]))
    await other.stop()

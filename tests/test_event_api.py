"""The Event API's client, against the stand-in: what it sends, and what it makes of everything that may come back."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bridge.errors import EventApiError
from bridge.event_api import EventApi, Verdict
from bridge.model import Event
from bridge.retry import Policy
from bridge.stand_in import EMPTY, PAGE, Behaviour, CutOff, Hang, Refuse, Reset, Short, StandIn

KEY = "s3cret/key+%2F ä"
MISBEHAVIOUR = [
    (Refuse(), Verdict.UNAVAILABLE, "answered 500"),
    (Refuse(status=429, body='{"status":429}'), Verdict.UNAVAILABLE, "answered 429"),
    (Refuse(status=303, headers={"Location": f"/e/{KEY}"}), Verdict.MISCONFIGURED, "answered 303: is the base URL"),
    (Refuse(status=404, body=json.dumps({"error": f"no /e/{KEY}"})), Verdict.MISCONFIGURED, "answered 404: no /e/[ev"),
    (Refuse(status=409, body=KEY), Verdict.REFUSED, "answered 409"),
    (Refuse(status=413), Verdict.TOO_LARGE, "answered 413"),
    (EMPTY, Verdict.UNAVAILABLE, "answered 200 with nothing in it"),
    (PAGE, Verdict.MISCONFIGURED, "answered 200, but not as the Event API"),
    (Refuse(status=200, body="x" * (1 << 20)), Verdict.MISCONFIGURED, "answered 200, but not as"),
    (Refuse(status=200, body="x" * ((1 << 20) + 1)), Verdict.UNAVAILABLE, "answered 200 with more than 1 MiB"),
    (Refuse(status=200, body="junk", headers={"Content-Encoding": "gzip"}), Verdict.UNAVAILABLE, "the answer was cut"),
    (Short(), Verdict.UNAVAILABLE, "answered 200, with 1 ids for 2 events"),
    (CutOff(), Verdict.UNAVAILABLE, "the answer was cut off"),
    (Reset(), Verdict.UNAVAILABLE, "connection reset"),
    (Reset(accepting=True), Verdict.UNAVAILABLE, "connection reset"),
    (Hang(), Verdict.UNAVAILABLE, "timed out after 0.2 s"),
]
BATCH = [b'{"name":"a"}', b'{"name":"b"}']


@pytest.fixture
async def server() -> AsyncIterator[StandIn]:
    server = StandIn(key=KEY)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def api(server: StandIn) -> AsyncIterator[EventApi]:
    async with EventApi(KEY, base_url=server.url + "//", env="branch", timeout=0.2, max_batch_events=3) as api:
        yield api


async def test_a_batch_is_one_request(server: StandIn, api: EventApi) -> None:
    answer = await api.post(BATCH, seed="1743130137367,eii2YKXRVTJPuA==")
    assert answer.verdict is Verdict.ACCEPTED
    assert answer.ids == ("01JQDAE4RQF8MBCR55T5AK4KXS", "01JQDAE4RQF8MBCR55T5AK4KXT")
    [(path, headers, body, status)] = server.requests
    assert (path.count("/"), body, status) == (2, b'[{"name":"a"},{"name":"b"}]', 200)
    assert headers["Content-Type"] == "application/json" and headers["x-inngest-env"] == "branch"
    assert "Cookie" not in headers


async def test_a_batch_of_more_than_1_mib_is_one_request_too(server: StandIn, api: EventApi) -> None:
    large = b'{"name":"a","data":{"x":"%b"}}' % (b"x" * (1 << 20))
    assert (await api.post([large, large])).verdict is Verdict.ACCEPTED
    assert server.accepted == 2


async def test_without_a_branch_or_a_seed_no_header_says_so(server: StandIn) -> None:
    async with EventApi(KEY, base_url=server.url) as api:
        await api.post(BATCH)
    assert not {"x-inngest-env", "x-inngest-event-id-seed"} & {name.lower() for name in server.requests[0].headers}


@pytest.mark.parametrize(("behaviour", "verdict", "error"), MISBEHAVIOUR)
async def test_misbehaviour_is_reported_and_the_next_request_succeeds(
    behaviour: Behaviour, verdict: Verdict, error: str, server: StandIn, api: EventApi
) -> None:
    server.misbehave = [behaviour]
    answer = await api.post(BATCH)
    assert (answer.verdict, answer.ids) == (verdict, ())
    assert answer.error.startswith(error)
    assert (await api.post(BATCH)).verdict is Verdict.ACCEPTED
    assert len(server.requests) == 2  # a redirect, for one, was not followed


async def test_it_goes_on_when_the_event_api_is_back(server: StandIn, api: EventApi) -> None:
    await server.stop()
    answer = await api.post(BATCH)
    assert answer.verdict is Verdict.UNAVAILABLE and answer.error.startswith("connection refused")
    await server.start(int(server.url.rpartition(":")[2]))
    assert (await api.post(BATCH)).verdict is Verdict.ACCEPTED


async def test_a_probe_sends_no_event(server: StandIn, api: EventApi) -> None:
    assert (await api.probe()).verdict is Verdict.ACCEPTED
    assert server.events == [] and server.requests[0].body == b"[]"


async def test_a_probe_tells_a_wrong_key_and_a_wrong_url(server: StandIn) -> None:
    async with EventApi("other", base_url=server.url) as wrong_key:
        answer = await wrong_key.probe()
    assert (answer.verdict, answer.error) == (Verdict.MISCONFIGURED, "answered 401: Event key not found")
    async with EventApi(KEY, base_url=server.url + "/api") as wrong_url:
        assert (await wrong_url.probe()).verdict is Verdict.MISCONFIGURED


async def test_the_dev_server_needs_no_key() -> None:
    server = StandIn()
    await server.start()
    async with EventApi(dev=True, base_url=server.url) as api:
        assert (await api.post(BATCH)).verdict is Verdict.ACCEPTED
    await server.stop()
    assert server.requests[0].path == "/e/dev"


async def test_no_cookie_is_sent_back(server: StandIn, api: EventApi) -> None:
    server.misbehave = [Refuse(headers={"Set-Cookie": "a=b"})]
    await api.post(BATCH)
    await api.post(BATCH)
    assert "Cookie" not in server.requests[1].headers


async def test_a_proxy_of_the_environment_is_used(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    async with EventApi(KEY, base_url="http://nowhere.invalid") as api:
        assert (await api.post(BATCH)).error.startswith("answered 200, but not as the Event API")


async def test_outside_async_with_it_says_what_to_do(server: StandIn) -> None:
    api = EventApi(KEY, base_url=server.url)
    with pytest.raises(RuntimeError, match="async with"):
        await api.post(BATCH)
    async with api:
        pass
    with pytest.raises(RuntimeError, match="async with"):
        await api.send([Event(name="a")])


@pytest.mark.parametrize("key", ["", " ", "\n"])
def test_an_empty_key_is_an_error(key: str) -> None:
    with pytest.raises(ValueError, match="event key is empty"):
        EventApi(key)


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "inn.gs",
        "ftp://inn.gs",
        "http://",
        "http://a:b",
        "http://[",
        "http://a:0",
        f"http://a/?{KEY}",
        f"http://a#{KEY}",
    ],
)
def test_an_impossible_base_url_is_an_error_that_does_not_repeat_it(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url must be") as raised:
        EventApi("k", base_url=base_url)
    assert KEY not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("wrong", [{"env": "a\nb"}, {"env": "ä"}, {"max_batch_events": 0}, {"max_batch_events": 5001}])
def test_what_could_never_be_sent_is_an_error(wrong: dict[str, str | int]) -> None:
    with pytest.raises(ValueError, match=re.escape(next(iter(wrong)))):
        EventApi("k", **wrong)  # type: ignore[arg-type]  # one of several types


async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"]")
    writer.write(b"SSH-2.0 " + KEY.encode() + b"\r\n\r\n")
    writer.close()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"]")
    writer.close()


@pytest.mark.parametrize(
    ("answering", "error"),
    [(talk_nonsense, "no usable answer ("), (hang_up, "the connection was closed without an answer")],
)
async def test_a_server_that_speaks_no_http_is_unavailable(
    answering: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], error: str
) -> None:
    async with await asyncio.start_server(answering, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with EventApi(KEY, base_url=f"http://127.0.0.1:{port}") as api:
            answer = await api.post(BATCH)
    assert answer.verdict is Verdict.UNAVAILABLE and answer.error.startswith(error)
    assert "s3cret" not in repr(answer)


async def test_tls_to_a_plain_port_is_unavailable(server: StandIn) -> None:
    async with EventApi(KEY, base_url=server.url.replace("http:", "https:")) as api:
        assert (await api.post(BATCH)).error.startswith("no TLS connection")


@pytest.mark.parametrize("failure", [socket.gaierror(socket.EAI_NONAME, KEY), UnicodeError(KEY)])
async def test_a_name_that_is_not_resolved_is_unavailable(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    async with EventApi(KEY, base_url="http://nowhere.invalid") as api:
        assert (await api.post(BATCH)).error == "the name of the host was not resolved"


def in_all_it_says(error: BaseException | None) -> str:
    if error is None:
        return ""
    said = f"{error!r} {error} {vars(error)}" + "".join(traceback.format_exception(error))
    return said + in_all_it_says(error.__cause__) + in_all_it_says(error.__context__)


@pytest.mark.parametrize("behaviour", [each[0] for each in MISBEHAVIOUR] + [None])
async def test_the_key_gets_out_nowhere(
    behaviour: Behaviour | None,
    server: StandIn,
    api: EventApi,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("bridge.event_api.PATIENCE", Policy(first=0, longest=0, attempts=2))
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    if behaviour is None:
        await server.stop()
    server.always = behaviour
    answer = await api.post(BATCH)
    with pytest.raises(EventApiError) as raised:
        await api.send([Event(name="a"), Event(name="b")])
    logged = "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    everything = f"{answer} {api!r} {api} {logged}" + in_all_it_says(raised.value)
    assert "s3cret" not in everything and "/e/" not in everything.replace("no /e/[event key]", "")

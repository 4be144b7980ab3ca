"""What the README shows to be copied works: configurations, code and commands."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import runpy
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import click
import orjson
import pytest
import stripe
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from readme import PROSE, blocks

from bridge import config, providers, samples
from bridge.cli import main
from bridge.model import Delivery, Entry, Outcome, Source, WebhookRequest
from bridge.stand_in import StandIn
from bridge.transform import Result, Transform, Transforms, begin, end, failed, listed
from bridge.verify import Provider, verify

NOW = 1_800_000_000_000
SECRET = b"a secret"
TRANSFORMS = [text for text in blocks("python") if "def transform(" in text]


@pytest.mark.parametrize("text", blocks("toml"))
def test_a_configuration_can_be_used_as_it_stands(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bridge.toml").write_text(text)
    Path("my_transforms").mkdir()
    for path in map(Path, re.findall(r'"file:([^"]+)"', text)):
        path.parent.mkdir(exist_ok=True)
        path.write_text("a secret\n")
    variables = re.findall(r'"env:([^"]+)"', text)
    settings = config.load(dict.fromkeys(["INNGEST_EVENT_KEY", *variables], "a value"))
    assert set(re.findall(r"^\[sources\.([^]]+)\]", text, re.MULTILINE)) == set(settings.sources)


@pytest.mark.parametrize("text", blocks("python"))
def test_code_compiles_and_is_typed(text: str) -> None:
    compile(text, "README.md", "exec")
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [node.name for node in functions if node.returns is None] == []


def _verified(provider: Provider, body: bytes) -> tuple[Delivery, Entry]:
    """The delivery, and the entry it would be in the journal."""
    headers = provider.scheme.sign(body, secret=SECRET, now=NOW)
    source = Source(name=provider.name, provider=provider.name, prefix=provider.name, secrets=(SECRET,))
    request = WebhookRequest(headers=headers, body=body, received_at=NOW)
    delivery = verify(request, source=source, provider=provider, now=NOW)
    assert isinstance(delivery, Delivery)
    return delivery, Entry.of(delivery)


async def _run(provider: Provider, body: bytes, transform: Transform | None) -> Result:
    _, entry = _verified(provider, body)
    begun = begin(entry, provider=provider, transform=transform)
    if isinstance(begun, Result):
        return begun
    delivery, made = begun
    try:
        events = listed(await made) if inspect.isawaitable(made) else listed(made)
    except Exception as error:  # noqa: BLE001 - as the worker does
        return failed(error)
    return end(
        events, delivery=delivery, provider=provider, transform=transform, generation=0, now=NOW, max_bytes=1 << 18
    )


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Transform]:
    """What the README shows, as the file it says it is."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_1")

    def load(text: str) -> Transform:
        [name] = re.findall(r'^"""my_transforms/(\w+\.py): ', text)
        (tmp_path / name).write_text(text)
        transforms, faults = Transforms.load([tmp_path])
        assert not faults
        transform = transforms.find("stripe", "stripe")
        assert transform is not None
        assert transform.path == tmp_path / name
        return transform

    return load


@asynccontextmanager
async def stripe_at(url: str) -> AsyncIterator[stripe.StripeClient]:
    """The client of the example, but for the address."""
    async with ClientSession() as session:
        http = stripe.AIOHTTPClient(timeout=4, session=session)
        yield stripe.StripeClient(
            "sk_test_1", base_addresses={"api": url.rstrip("/")}, http_client=http, max_network_retries=0
        )


@pytest.fixture
async def stripe_client() -> AsyncIterator[stripe.StripeClient]:
    """Of a stand-in for Stripe's API that knows every customer."""

    async def customer(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer sk_test_1"
        return web.json_response({"id": request.match_info["id"], "object": "customer", "email": "zoe@example.com"})

    application = web.Application()
    application.router.add_get("/v1/customers/{id}", customer)
    server = TestServer(application)
    async with server, stripe_at(str(server.make_url("/"))) as client:
        yield client


@pytest.mark.parametrize("text", TRANSFORMS)
async def test_a_transform_gives_the_events_it_names(
    text: str, load: Callable[[str], Transform], stripe_client: stripe.StripeClient
) -> None:
    transform = load(text)
    if "client" in transform.function.__globals__:
        transform.function.__globals__["client"] = stripe_client
    provider, made = providers.load()["stripe"], list[bytes]()
    for name in samples.names("stripe"):
        result = await _run(provider, samples.body("stripe", name), transform)
        assert result.outcome is None, result.error
        made += result.events
    events = [orjson.loads(event) for event in made]
    assert {event["name"] for event in events} >= set(re.findall(r'Event\(name="([^"]+)"', text))
    if "client" in transform.function.__globals__:
        assert "zoe@example.com" in [event["data"].get("customer", {}).get("email") for event in events]
    else:
        [item] = [event for event in events if event["name"] == "billing/item.updated"]
        assert item["id"].endswith(f":{item['data']['id']}")


async def test_a_transform_can_want_no_event_and_another_time(load: Callable[[str], Transform]) -> None:
    provider = providers.load()["stripe"]
    balance = b'{"object":"event","id":"evt_1","type":"balance.available","data":{"object":{}}}'
    plain, thin = TRANSFORMS
    assert (await _run(provider, balance, load(plain))).outcome is Outcome.SKIPPED
    transform = load(thin)
    async with stripe_at("http://127.0.0.1:1") as nowhere:
        transform.function.__globals__["client"] = nowhere
        result = await _run(provider, samples.body("stripe", "v1.customer.created"), transform)
    assert (result.outcome, result.after) == (Outcome.POSTPONED, 30)


async def test_the_client_of_the_event_api_sends_what_is_shown() -> None:
    [text] = [text for text in blocks("python") if "EventApi(" in text]
    stand_in = StandIn(key="a-key")
    await stand_in.start()
    try:
        environment = {**os.environ, "INNGEST_EVENT_KEY": "a-key", "INNGEST_EVENT_API_BASE_URL": stand_in.url}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", text, env=environment, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
    finally:
        await stand_in.stop()
    [event] = stand_in.events
    assert process.returncode == 0
    assert f'name="{event["name"]}", id="{event["id"]}"' in text
    assert re.fullmatch(rb"\['[0-9A-Z]{26}'\]\n", said)


def test_the_provider_that_is_shown_takes_what_its_own_documentation_signs(tmp_path: Path) -> None:
    [text] = [text for text in blocks("python") if "PROVIDER = " in text]
    (tmp_path / "circleci.py").write_text(text)
    provider: Provider = runpy.run_path(str(tmp_path / "circleci.py"))["PROVIDER"]
    assert provider.name == "circleci"
    # https://circleci.com/docs/guides/integration/outbound-webhooks/
    mac = "v1=734cc62f32841568f45715aeb9f4d7891324e6d948e4c6c60c0621cdac48623a"
    request = WebhookRequest(headers={"circleci-signature": mac}, body=b"hello world", received_at=NOW)
    provider.scheme.check(request, secrets=[b"secret"], now=NOW, tolerance=0)
    delivery, _ = _verified(provider, b'{"id":"3888f21b-eaa7","type":"workflow-completed"}')
    assert (delivery.id, delivery.type, delivery.fault) == ("3888f21b-eaa7", "workflow-completed", "")


async def test_the_table_of_names_and_ids_is_true_of_the_samples() -> None:
    transforms, _ = Transforms.load([])
    rows = [
        line.split(" | ") for line in PROSE.splitlines() if re.match(r"\| (Stripe|Slack|Intercom)(, \w+)? \| `", line)
    ]
    told = {(row[0].strip("| ").split(",")[0].lower(), row[1].strip("`")): row[2:] for row in rows}
    assert len(told) == len(rows) >= 10
    seen = set()
    for name, provider in providers.load().items():
        for sample in samples.names(name):
            delivery, _ = _verified(provider, samples.body(name, sample))
            if (row := told.get((name, delivery.type))) is None:
                continue
            seen.add((name, delivery.type))
            result = await _run(provider, samples.body(name, sample), transforms.find(name, name))
            assert f"`{orjson.loads(result.events[0])['name']}`" in row[0]
            assert delivery.id.startswith(row[1].strip("` |").split("...")[0])
    assert seen == set(told)


def _commands() -> list[list[str]]:
    """Every line in a block that runs the command, less what is before and behind it."""
    lines = [line for text in blocks("sh") for line in text.splitlines()]
    runs = [shlex.split(run, comments=True) for line in lines for run in line.split(" && ")]
    bare = [[word for word in words if not re.match(r"[A-Z_]+=|exec$", word)] for words in runs]
    return [words for words in bare if words and Path(words[0]).name == "bridge"]


def _parse(arguments: list[str]) -> None:
    """Raises click's own errors where the command would."""
    name, *rest = arguments
    command = main.get_command(click.Context(main), name)
    if command is None:
        raise click.UsageError(f"there is no command {name}")
    command.make_context(name, rest)


def test_every_command_that_is_shown_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("body.json").write_text("{}")
    shown = _commands()
    assert len(shown) > 12
    for _, *arguments in shown:
        _parse(arguments)


def test_every_command_in_the_text_is_one() -> None:
    for words in (shlex.split(text) for text in re.findall(r"`bridge ([a-z][^`]*)`", PROSE)):
        try:
            _parse(words)
        except click.MissingParameter:
            continue  # named, not shown

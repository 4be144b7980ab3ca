"""`bridge send` and `bridge sources`: a signed webhook arrives, and what does not is told in a line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from commands import Ran, closed_url, on_terminal, run
from receiving import PROVIDERS, Receiving, listening, receiving

from bridge import providers, samples
from bridge.clock import wall_clock
from bridge.model import Source

SECRETS = {
    "STRIPE_WEBHOOK_SECRET": "secret of stripe",
    "SLACK_SIGNING_SECRET": "secret of slack",
    "INTERCOM_CLIENT_SECRET": "secret of intercom",
}


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Receiving]:
    async with receiving(tmp_path) as found:
        found.now = wall_clock()
        yield found


async def send(*arguments: str, to: Receiving, **variables: str) -> Ran:
    """To the port a receiver listens on, in a thread: the receiver is served by this one."""
    given = {**SECRETS, "BRIDGE_PORT": str(to.port), **variables}
    return await asyncio.to_thread(run, "send", *arguments, cwd=to.folder, **given)


@pytest.fixture
def closed() -> Iterator[str]:
    """A port where nothing listens, and nothing else will."""
    with closed_url() as url:
        yield url.rpartition(":")[2]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_every_sample_is_accepted_as_a_new_delivery_each_time(receiver: Receiving, provider: str) -> None:
    names = samples.names(provider)
    for name in [*names, names[0]]:
        ran = await send(provider, name, to=receiver)
        assert ran.status == 0
        assert ran.out.startswith(f"http://127.0.0.1:{receiver.port}/webhooks/{provider}: 200 in ")
    entries = await receiver.entries()
    assert len(entries) == len(names) + 1
    assert all(entry.type and entry.source == provider for entry in entries)


async def test_a_form_is_sent_as_one_and_json_as_json(receiver: Receiving) -> None:
    kinds = {"slash_command": "application/x-www-form-urlencoded", "app_mention": "application/json"}
    for name, kind in kinds.items():
        await send("slack", name, to=receiver)
        entry = await receiver.store.load((await receiver.entries())[-1].seq)
        assert entry is not None and entry.headers is not None and entry.headers["content-type"] == kind


async def test_an_unchanged_sample_is_a_duplicate_the_second_time(receiver: Receiving) -> None:
    for _ in range(2):
        assert (await send("stripe", "customer.created", "--unchanged", to=receiver)).status == 0
    [entry] = await receiver.entries()
    stored = await receiver.store.load(entry.seq)
    assert stored is not None and stored.body == samples.body("stripe", "customer.created")


async def test_a_file_is_sent_as_it_is(receiver: Receiving) -> None:
    body = b'{"id": "evt_mine",   "object":"event", "type":"a.b"}\n'
    (receiver.folder / "body.json").write_bytes(body)
    assert (await send("stripe", "--file", "body.json", to=receiver)).status == 0
    [entry] = await receiver.entries()
    stored = await receiver.store.load(entry.seq)
    assert stored is not None and (stored.id, stored.body) == ("evt_mine", body)


async def test_it_tells_the_id_by_which_the_delivery_is_found_again(receiver: Receiving) -> None:
    ran = await send("stripe", "customer.created", to=receiver)
    [entry] = await receiver.entries()
    assert ran.out.endswith(f" ms  customer.created {entry.id}\n")


async def test_json_tells_where_it_went_and_what_was_answered(receiver: Receiving) -> None:
    ran = await send("slack", "app_mention", "--json", to=receiver)
    told = json.loads(ran.out)
    assert told.pop("seconds") > 0
    [entry] = await receiver.entries()
    url = f"http://127.0.0.1:{receiver.port}/webhooks/slack"
    assert told == {"url": url, "id": entry.id, "type": "app_mention", "status": 200, "text": ""}


@pytest.mark.parametrize("to", ["127.0.0.1:{}", "http://127.0.0.1:{}/", "http://127.0.0.1:{}/webhooks/stripe/"])
async def test_to_is_an_address_or_a_whole_url(receiver: Receiving, to: str) -> None:
    ran = await send("stripe", "invoice.paid", "--to", to.format(receiver.port), to=receiver, BRIDGE_PORT="1")
    assert ran.status == 0
    assert len(await receiver.entries()) == 1


async def test_what_is_not_accepted_ends_with_1_and_the_answer(receiver: Receiving) -> None:
    ran = await send("stripe", "invoice.paid", to=receiver, STRIPE_WEBHOOK_SECRET="another")
    assert (ran.status, "401" in ran.out) == (1, True)
    assert "bridge: it was signed with the secret configured here, and the bridge there has another\n" in ran.err
    ran = await asyncio.to_thread(
        run, "send", "stripe", "invoice.paid", cwd=receiver.folder, BRIDGE_PORT=str(receiver.port)
    )
    assert (ran.status, "401" in ran.out) == (1, True)
    assert "signed with the secret of `bridge dev`" in ran.err and "set STRIPE_WEBHOOK_SECRET" in ran.err
    ran = await send("stripe", "invoice.paid", "--json", to=receiver, STRIPE_WEBHOOK_SECRET="another")
    assert (ran.status, json.loads(ran.out)["status"]) == (1, 401)
    ran = await send("stripe", "invoice.paid", "--to", f"http://127.0.0.1:{receiver.port}/other", to=receiver)
    assert (ran.status, "404" in ran.out) == (1, True)
    assert await receiver.entries() == []


async def test_without_a_secret_it_signs_as_for_bridge_dev(tmp_path: Path) -> None:
    source = Source(name="stripe", provider="stripe", prefix="stripe", secrets=(b"whsec_stripe_in_development",))
    async with receiving(tmp_path, sources=[source]) as found:
        found.now = wall_clock()
        ran = await asyncio.to_thread(run, "send", "stripe", "invoice.paid", cwd=tmp_path, BRIDGE_PORT=str(found.port))
    assert ran.status == 0


async def test_of_two_sources_the_first_is_signed_for_or_the_one_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text(
        "[sources.eu]\nprovider = 'stripe'\nsecrets = ['env:EU']\n[sources.us]\nprovider = 'stripe'\nsecrets = ['env:US']"
    )
    sources = [Source(name=name, provider="stripe", prefix="stripe", secrets=(name.encode(),)) for name in ("eu", "us")]
    async with receiving(tmp_path, sources=sources) as found:
        found.now = wall_clock()
        given = {"EU": "eu", "US": "us", "BRIDGE_PORT": str(found.port)}
        for more in ([], ["--source", "us"]):
            ran = await asyncio.to_thread(run, "send", "stripe", "invoice.paid", *more, cwd=tmp_path, **given)
            assert ran.status == 0
        assert [entry.source for entry in await found.entries()] == ["eu", "us"]
        ran = await asyncio.to_thread(run, "send", "stripe", "invoice.paid", "--source", "x", cwd=tmp_path, **given)
    assert ran.status == 2
    assert "no source `x` of stripe is configured; there are: eu, us" in ran.err


def test_where_nothing_listens_one_line_says_so_and_what_to_do(tmp_path: Path, closed: str) -> None:
    ran = run("send", "stripe", "invoice.paid", cwd=tmp_path, BRIDGE_PORT=closed, BRIDGE_HOST="0.0.0.0")  # noqa: S104 - not bound
    assert ran == Ran(
        1,
        "",
        f"bridge: http://127.0.0.1:{closed}/webhooks/stripe: connection refused."
        " Is a bridge running there? `bridge dev` starts one\n",
    )


@pytest.mark.parametrize(
    ("to", "why"),
    [("http://host.invalid", "the name of the host was not resolved"), ("ftp://127.0.0.1", "no usable answer")],
)
def test_an_address_that_leads_nowhere_is_a_line_too(tmp_path: Path, to: str, why: str) -> None:
    ran = run("send", "stripe", "invoice.paid", "--to", to, cwd=tmp_path)
    assert (ran.status, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert f"bridge: {to}/webhooks/stripe: {why}" in ran.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["stripe", "nonsense"], "no sample `nonsense` of stripe; there are: account.updated, "),
        (["nobody"], f"'nobody' is not one of {', '.join(map(repr, providers.load()))}"),
        (["stripe", "--file", "nowhere"], "'nowhere' does not exist"),
        (["stripe", "invoice.paid", "--file", __file__], "either a sample's TYPE, or --file"),
        (["stripe", "invoice.paid", "--to", "http://["], "no address of a bridge"),
        (["stripe", "invoice.paid", "--to", "://"], "no address of a bridge"),
    ],
)
def test_a_slip_is_told_with_what_there_is(tmp_path: Path, arguments: list[str], told: str) -> None:
    ran = run("send", *arguments, cwd=tmp_path)
    assert (ran.status, ran.out) == (2, "")
    assert told in " ".join(ran.err.split())


@pytest.mark.parametrize("provider", PROVIDERS)
def test_without_a_type_it_lists_the_samples(tmp_path: Path, provider: str) -> None:
    assert run("send", provider, cwd=tmp_path) == Ran(0, "".join(f"{name}\n" for name in samples.names(provider)))
    listed = run("send", provider, "--json", cwd=tmp_path).out.splitlines()
    assert [json.loads(line) for line in listed] == [{"provider": provider, "type": n} for n in samples.names(provider)]


async def test_an_answer_does_not_steer_the_terminal(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        del request
        return web.Response(status=502, body=b"\x1b[2J\xc2\x9b31m [bold]gone[/] :tada:\n\xff" + b"x" * 5000)

    app = web.Application()
    app.router.add_post("/{tail:.*}", answer)
    async with listening(web.AppRunner(app)) as port:
        ran = await asyncio.to_thread(
            on_terminal, "send", "stripe", "invoice.paid", "--to", f"127.0.0.1:{port}", cwd=tmp_path
        )
    assert ran.status == 1
    assert "\x1b[31m502\x1b[0m" in ran.out
    assert "\ufffd[2J\ufffd31m [bold]gone[/] :tada: \ufffdxxx" in ran.out
    assert len(ran.out) < 1500

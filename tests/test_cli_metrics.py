"""`bridge metrics`: what the bridge on this machine has counted, with the token from where the bridge has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
from commands import Ran, closed_url, run, standing_in
from prometheus_client.parser import text_string_to_metric_families
from receiving import samples
from service import SECRETS, Service, delivery, service

from bridge.cli.running import get
from bridge.errors import BridgeError

TOKEN = "tokén of the tests"


@asynccontextmanager
async def running(folder: Path, **more: str) -> AsyncIterator[Service]:
    """With one delivery that was counted."""
    async with standing_in() as api, service(folder, api.url, more) as found:
        assert (await found.post(delivery(1))).status == 200
        await found.until_finished()
        yield found


def printed(of: Service, *names: str, **variables: str) -> Ran:
    """With only these variables, and the one that tells where it listens: its own says any port."""
    return run("metrics", *names, cwd=of.folder, BRIDGE_ADMIN_PORT=str(urlsplit(of.private).port), **variables)


async def test_all_that_prometheus_would_get_is_printed(tmp_path: Path) -> None:
    async with running(tmp_path) as found:
        ran = printed(found)
        assert ran.status == 0
        assert samples(ran.out).keys() == (await found.metrics()).keys()
        assert samples(ran.out)["bridge_deliveries_total", "accepted", "stripe"] == 1
        text = (await found.ask("GET", f"{found.private}/metrics")).text
        assert [line for line in ran.out.splitlines() if line.startswith("#")] == [
            line for line in text.splitlines() if line.startswith("#")
        ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["bridge_rejections_total"], {"bridge_rejections"}),
        (["bridge_deliv", "bridge_ack"], {"bridge_deliveries", "bridge_ack_seconds"}),
        (["bridge_journal_entries", "bridge_nothing"], {"bridge_journal_entries"}),
    ],
)
async def test_of_names_those_that_begin_so(tmp_path: Path, names: list[str], expected: set[str]) -> None:
    async with running(tmp_path) as found:
        families = list(text_string_to_metric_families(printed(found, *names).out))
        assert {family.name for family in families} == expected
        assert all(family.samples for family in families)
        ran = printed(found, "bridge_delivered", "x")
        assert (ran.status, ran.out) == (1, "")
        assert ran.err.startswith("bridge: no metric's name begins with bridge_delivered or x; there are bridge_")
        assert "bridge_deliveries_total, " in ran.err


async def test_the_token_is_found_where_the_bridge_finds_it(tmp_path: Path) -> None:
    for name in ("credentials", "settings"):
        (tmp_path / name).mkdir()
    (tmp_path / "credentials/BRIDGE_ADMIN_TOKEN").write_text(f"{TOKEN}\n")
    (tmp_path / "settings/bridge.toml").write_text('admin_token = "file:credentials/BRIDGE_ADMIN_TOKEN"\n')
    async with running(tmp_path, CREDENTIALS_DIRECTORY=str(tmp_path / "credentials")) as found:
        for where in (
            {"BRIDGE_ADMIN_TOKEN": TOKEN},
            {"BRIDGE_ADMIN_TOKEN_FILE": str(tmp_path / "credentials/BRIDGE_ADMIN_TOKEN")},
            {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")},
            {"BRIDGE_CONFIG": str(tmp_path / "settings/bridge.toml")},
            {"BRIDGE_ADMIN_TOKEN": f"another,{TOKEN}"},  # while it is rotated
        ):
            ran = printed(found, "bridge_deliveries", **where)
            assert samples(ran.out)["bridge_deliveries_total", "accepted", "stripe"] == 1, where


async def test_whoever_is_refused_is_told_why_and_no_token(tmp_path: Path) -> None:
    async with running(tmp_path, BRIDGE_ADMIN_TOKEN=TOKEN) as found:
        without, with_another = printed(found), printed(found, BRIDGE_ADMIN_TOKEN="another", **SECRETS)
    url = f"bridge: {found.private}/metrics: 401: ".replace("localhost", "127.0.0.1")
    assert without == (
        1,
        "",
        f"{url}it asks for BRIDGE_ADMIN_TOKEN, and none is to be found here: run this where it runs, as the same user\n",
    )
    assert with_another == (1, "", f"{url}the running bridge has another BRIDGE_ADMIN_TOKEN than is configured here\n")


def test_a_token_that_no_header_can_hold_is_not_told() -> None:
    with pytest.raises(BridgeError, match="no header can hold the token") as raised:
        get("http://127.0.0.1:9/metrics", within=1, most=1, headers={"Authorization": b"Bearer a\rb"})
    assert raised.value.__suppress_context__


def test_where_none_runs_that_is_said(tmp_path: Path) -> None:
    with closed_url() as url:
        ran = run("metrics", cwd=tmp_path, BRIDGE_ADMIN_PORT=str(urlsplit(url).port))
    assert ran == (1, "", f"bridge: {url}/metrics: Connection refused\n")


@pytest.fixture
def other(request: pytest.FixtureRequest) -> Iterator[str]:
    """The port of a server that is no bridge, and always answers so."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = request.param
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments: object) -> None:
            del arguments

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.handle_request, daemon=True).start()
        yield str(server.server_port)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ((200, b"<p>hello</p>"), "what answers there has no metrics, so it is no bridge"),
        ((404, b"# HELP a b\n"), "404"),
    ],
    indirect=["other"],
)
def test_what_is_no_bridge_is_told_from_one(tmp_path: Path, other: str, said: str) -> None:
    ran = run("metrics", cwd=tmp_path, BRIDGE_ADMIN_PORT=other)
    assert ran == (1, "", f"bridge: http://127.0.0.1:{other}/metrics: {said}\n")


@pytest.mark.parametrize("other", [(200, b"# HELP a b\x1b[31m\na 1\xff\n")], indirect=True)
def test_what_another_says_steers_no_terminal(tmp_path: Path, other: str) -> None:
    ran = run("metrics", cwd=tmp_path, BRIDGE_ADMIN_PORT=other)
    assert ran == (0, "# HELP a b\N{REPLACEMENT CHARACTER}[31m\na 1\N{REPLACEMENT CHARACTER}\n", "")


def test_a_configuration_that_became_wrong_is_no_reason(tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text("prot = 1\n")
    with closed_url() as url:
        ran = run("metrics", cwd=tmp_path, BRIDGE_ADMIN_HOST="0.0.0.0", BRIDGE_ADMIN_PORT=str(urlsplit(url).port))  # noqa: S104 - nothing is bound
    assert ran.err == f"bridge: {url}/metrics: Connection refused\n"

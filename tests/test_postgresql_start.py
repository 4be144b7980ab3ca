"""What `bridge serve` and `bridge check` say of a PostgreSQL that can't be used: one line, exit status 2, and no password."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import postgres
import pytest
from commands import BRIDGE, Process, closed_url, delivery, fill, run, standing_in
from load import load
from postgres import Cluster, free_port
from service import service, until

from bridge.model import State

PASSWORD = "sesame_NeverToBeShown"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    found = Cluster()
    found.start()
    found.run(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    found.run("CREATE SCHEMA theirs")
    found.run("GRANT USAGE ON SCHEMA theirs TO guest")
    yield found
    found.stop()


async def run_async(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: it has a loop of its own."""
    return await asyncio.to_thread(
        subprocess.run,
        [BRIDGE, *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "STRIPE_WEBHOOK_SECRET": "whsec_1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


BAD = [
    ("mysql://guest:{password}@127.0.0.1/x", "unknown scheme `mysql`, expected sqlite:///"),
    ("postgresql://guest:{password}@127.0.0.1:{port}/nowhere", 'database "nowhere" does not exist'),
    ("postgresql://nobody:{password}@127.0.0.1:{port}/postgres", 'role "nobody" does not exist'),
    (
        "postgresql://guest:{password}@127.0.0.1:{port}/postgres?options=-csearch_path%3Dtheirs",
        "permission denied for schema theirs",
    ),
    ("postgresql://guest:{password}@127.0.0.1:{closed}/postgres", "Connection refused"),
    ("postgresql://guest:{password}@127.0.0.1:{port}/postgres?sslmode=require", "server does not support SSL"),
    ("postgresql://guest:{password}@127.0.0.1:{port}/postgres?sslmod=require", "did you mean sslmode?"),
    ("postgresql://guest:{password}/@127.0.0.1:{port}/postgres", "percent-encoded"),
]


@pytest.fixture(params=BAD, ids=[why for _, why in BAD])
def bad(request: pytest.FixtureRequest, cluster: Cluster) -> tuple[str, str]:
    """A URL, and what is said of it."""
    url, why = request.param
    return url.format(password=PASSWORD, port=cluster.port, closed=free_port()), why


async def test_it_refuses_to_start_with_a_line(tmp_path: Path, bad: tuple[str, str]) -> None:
    url, why = bad
    async with standing_in() as api, service(tmp_path, api.url, {"BRIDGE_JOURNAL": url}, start=False) as refusing:
        said = await refusing.refuses_to_start()
    [line] = [line for line in said.splitlines() if line.startswith("bridge: ")]
    assert why in line
    assert PASSWORD not in said


async def test_check_says_the_same(tmp_path: Path, bad: tuple[str, str]) -> None:
    url, why = bad
    async with standing_in() as api:
        ran = await run_async("check", cwd=tmp_path, BRIDGE_JOURNAL=url, INNGEST_DEV=api.url)
    assert ran.returncode == 2
    [line] = ran.stderr.splitlines()
    assert why in line
    assert PASSWORD not in ran.stdout + ran.stderr


async def test_check_shows_where_it_looked_without_the_password(tmp_path: Path, cluster: Cluster) -> None:
    url = f"postgresql://guest:{PASSWORD}@127.0.0.1:{cluster.port}/postgres"
    cluster.run("GRANT CREATE ON SCHEMA public TO guest")
    async with standing_in() as api:
        ran = await run_async("check", cwd=tmp_path, BRIDGE_JOURNAL=url, INNGEST_DEV=api.url)
    assert ran.returncode == 0, ran.stderr
    assert f"postgresql://guest@127.0.0.1:{cluster.port}/postgres" in ran.stdout
    assert PASSWORD not in ran.stdout + ran.stderr


def test_nor_does_a_bridge_for_development(tmp_path: Path, cluster: Cluster) -> None:
    url, shown = cluster.place(user=f"guest:{PASSWORD}"), f"postgresql://guest@127.0.0.1:{cluster.port}/postgres"
    ports = {"BRIDGE_PORT": "0", "BRIDGE_ADMIN_PORT": "0"}
    with (
        closed_url() as closed,
        Process("dev", cwd=tmp_path, INNGEST_DEV=closed, BRIDGE_JOURNAL=url, **ports) as process,
    ):
        process.until(shown)
        process.until("what the journal holds")
        process.signal(signal.SIGINT)
        assert process.ended(within=10).status == 0
    assert PASSWORD not in process.said


async def test_it_opens_no_more_connections_than_it_may(tmp_path: Path, cluster: Cluster) -> None:
    more = {"BRIDGE_JOURNAL": cluster.place(application_name="few"), "BRIDGE_JOURNAL_CONNECTIONS": "1"}
    async with standing_in() as api, service(tmp_path, api.url, more) as running:
        async with load(running, connections=8) as acknowledged:
            await until(lambda: len(acknowledged) >= 500)
        # To receive, for the private listener, to forward, and to be woken.
        assert cluster.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'few'") == 4


def test_looking_into_none_is_a_slip_and_a_url_may_come_from_a_file(tmp_path: Path) -> None:
    with postgres.schema() as url:
        (tmp_path / "url").write_text(f"{url}\n")
        assert "there is no journal yet; `bridge serve` makes it" in run("list", cwd=tmp_path, BRIDGE_JOURNAL=url).err
        fill(tmp_path, [(delivery("evt_1"), State.PENDING)])
        assert run("journal", "copy", "sqlite:///bridge.db", "env:URL", cwd=tmp_path, URL=url).status == 0
        listed = run("list", cwd=tmp_path, BRIDGE_JOURNAL_FILE=f"{tmp_path}/url")
    assert (listed.status, listed.err) == (0, "")
    assert "evt_1" in listed.out


def test_where_there_is_no_postgresql_the_tests_fail_and_are_not_skipped() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/contract/test_journals.py",
            "-k",
            "byte_for_byte",
        ],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "TEST_POSTGRES_URL": f"postgresql://127.0.0.1:{free_port()}/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "14 passed" in done.stdout, "SQLite's"
    assert "7 errors" in done.stdout
    assert "skipped" not in done.stdout

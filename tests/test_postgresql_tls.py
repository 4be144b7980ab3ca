"""How a PostgreSQL is reached by its URL: over TLS, as whom, what it finds there, and what is said where it can't be."""

from __future__ import annotations

import asyncio
import io
import logging
import ssl
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import LiteralString, TypeAlias
from urllib.parse import quote

import orjson
import psycopg
import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st
from postgres import Cluster, free_port, ids, opened, until_appended, why_not
from receiving import logging_into
from service import elapsed, until
from tls_proxy import Proxy

from bridge import journal as journals
from bridge.errors import JournalUnavailable
from bridge.journal.postgresql.url import parameters
from bridge.model import Delivery

Make: TypeAlias = Callable[..., Delivery]

LEASE = 60_000
# The first rule that fits holds.
RULES = "host all locked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Where `locked` has to say his password."""
    started = Cluster()
    started.start()
    (started.data / "pg_hba.conf").write_text(RULES)
    started.run("CREATE ROLE locked LOGIN PASSWORD 'sesame'")
    started.run("SELECT pg_reload_conf()")
    yield started
    started.stop()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def certified(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def root(authority: trustme.CA, folder: Path) -> str:
    authority.cert_pem.write_to_path(str(folder / "root.pem"))
    return str(folder / "root.pem")


async def test_a_server_is_spoken_to_over_tls_where_its_url_says_so(
    cluster: Cluster, authority: trustme.CA, tmp_path: Path, make_delivery: Make
) -> None:
    url = cluster.place(sslmode="verify-full", sslrootcert=root(authority, tmp_path))
    async with Proxy(to=cluster.port, tls=certified(authority)) as proxy, opened(proxy.through(url)) as journal:
        assert await journal.append(make_delivery(body=bytes(1_000_000)))
        [entry] = await journal.claim(1, lease=LEASE)
        assert entry.size == 1_000_000
        assert len(proxy.arrivals) >= 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [("127.0.0.1 by another", "certificate verify failed"), ("localhost", "does not match host name")],
)
async def test_a_server_that_is_another_is_refused_with_what_its_certificate_lacks(
    cluster: Cluster, authority: trustme.CA, tmp_path: Path, name: str, reason: str
) -> None:
    host, _, by_another = name.partition(" ")
    tls = certified(trustme.CA() if by_another else authority, host)
    url = cluster.url(sslmode="verify-full", sslrootcert=root(authority, tmp_path))
    async with Proxy(to=cluster.port, tls=tls) as proxy, opened(proxy.through(url)) as journal:
        told = await why_not(journal.check())
        assert reason in told and "certificate" in told and "\n" not in told


async def test_who_asks_for_tls_never_gets_less(cluster: Cluster) -> None:
    async with opened(cluster.url(sslmode="require")) as journal:
        told = await why_not(journal.check())
        assert told.endswith(": server does not support SSL, but SSL was required")


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("postgresql://postgres:sesame@127.0.0.1:{port}/nosuch", 'database "nosuch" does not exist'),
        ("postgresql://nosuch:sesame@127.0.0.1:{port}/postgres", 'role "nosuch" does not exist'),
        ("postgresql://locked:not-sesame@127.0.0.1:{port}/postgres", "password authentication failed"),
        ("postgresql://locked@127.0.0.1:{port}/postgres", "no password supplied"),
        ("postgresql://postgres:sesame@nosuch.invalid:{port}/postgres", "nosuch.invalid"),
        ("postgresql://postgres:sesame@127.0.0.1:{closed}/postgres", "Connection refused"),
        ("postgresql://postgres:sesame@127.0.0.1:{closed},127.0.0.1:{port}/nosuch", 'database "nosuch" does not exist'),
        ("postgresql://locked:sesame@127.0.0.1:{port}/postgres?options=-csearch_path%3Dnosuch", "no schema"),
        ("postgresql://locked:sesame@127.0.0.1:{port}/postgres", "permission denied for schema public"),
        ("postgresql://postgres:sesame@127.0.0.1:{port}/postgres?sslmode=sesame", "sslmode"),
        ("postgresql://postgres:sesame@127.0.0.1:{port}/postgres?sslmode=verify-full", "SSL"),
        ("postgresql://postgres:sesame@nosuch..invalid:{port}/postgres", "host"),
    ],
)
async def test_a_place_where_no_journal_can_be_is_told_in_one_line(cluster: Cluster, where: str, reason: str) -> None:
    url = where.format(port=cluster.port, closed=free_port())
    for attempt in (journals.open, journals.rehearse):
        took = elapsed()
        with pytest.raises(JournalUnavailable) as raised:
            await attempt(url)
        told = str(raised.value)
        assert told.startswith(f"{journals.shown(url)}: ") and reason in told
        assert "\n" not in told and "attempts" not in told and len(told) < 300
        assert not {"sesame", "not-sesame"} & {*told.replace(":", " ").replace("@", " ").split()}
        assert took() < 3


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://bob:sesame@host/db?sslmod=require", "did you mean sslmode?"),
        ("postgresql://bob:sesame@host/db?colour=red", "parameters behind the ? are libpq's"),
        ("postgresql://bob:sesame@host:port/db", "percent-encoded"),
        ("postgresql://bob:sesame@1@host/db", "@ as %40"),
        ("postgresql://bob:sesame/1@host/db", "/ as %2F"),
        ("postgresql://bob:1/sesame@host/db", "/ as %2F"),
        ("postgresql://bob:%sesame@host/db", "% as %25"),
        ("postgres://bob:sesame@[::1/db", "expected postgresql://user:password@host/database"),
    ],
)
def test_a_url_that_is_none_is_explained_in_one_line_without_any_part_of_it(url: str, reason: str) -> None:
    fault = journals.fault_of(url)
    assert reason in fault and "\n" not in fault
    assert not {"sesame", "bob", "1@host"} & {*fault.replace(":", " ").split()}
    assert "sesame" not in fault + journals.shown(url)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
@example("%40@:/?#[]&=+ ,'\\")
def test_a_password_that_is_encoded_may_be_any_text_and_is_never_shown(text: str) -> None:
    password = f"sesame{text}sesame"
    written = quote(password, safe="")
    for url in (f"postgresql://bob:{written}@host:1/db", f"postgresql://bob@host:1/db?password={written}"):
        assert parameters(url)["password"] == password
        assert journals.fault_of(url) == ""
        assert journals.shown(url) == "postgresql://bob@host:1/db"


@given(st.text("12@:/?#[]&=+% ,x"))
@example("12/")
def test_a_password_that_should_have_been_encoded_is_not_shown_either(text: str) -> None:
    for written in (f"{text}sesame", f"sesame{text}"):
        url = f"postgresql://bob:{written}@host/db"
        assert "sesame" not in journals.fault_of(url) + journals.shown(url)


async def test_no_password_gets_into_a_log_whatever_happens(
    cluster: Cluster, make_delivery: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cluster.run("CREATE SCHEMA secret AUTHORIZATION locked")
    options = {"options": "-csearch_path=secret"}
    url, wrong = cluster.url(user="locked:sesame", **options), cluster.url(user="locked:sesame1", **options)
    closed = url.replace(f":{cluster.port}/", f":{free_port()}/")
    logged, said = io.StringIO(), list[str]()
    with warnings.catch_warnings(record=True) as warned, logging_into(logged):
        warnings.simplefilter("always")
        for each in (wrong, closed):
            async with opened(each) as journal:
                try:
                    await journal.append(make_delivery())
                except JournalUnavailable as unavailable:
                    said += traceback.format_exception(unavailable)
        async with opened(url) as journal:
            assert await journal.append(make_delivery("before"))
            await journal.claim(1, lease=LEASE)
            cluster.stop()
            said.append(await why_not(journal.append(make_delivery("lost"))))
            cluster.start()
            await until_appended(journal, make_delivery("after"))
    said += [*map(str, warned), *map(repr, caplog.records), *caplog.messages]
    assert "Connection refused" in "".join(said) and "password authentication failed" in "".join(said)
    assert "sesame" not in "".join(said) + logged.getvalue()
    assert all(orjson.loads(line) for line in logged.getvalue().splitlines())


def test_what_the_driver_complains_of_is_a_line_of_our_log_without_its_words() -> None:
    with logging_into(logged := io.StringIO()):
        logging.getLogger("psycopg").warning("%s", "sesame")
    assert orjson.loads(logged.getvalue())["event"] == "library.message"
    assert "sesame" not in logged.getvalue()


def asked(url: str, query: LiteralString) -> int:
    with psycopg.connect(url) as connection:
        [number] = connection.execute(query).fetchone() or (0,)
        return int(number)


async def test_a_rehearsal_makes_no_journal_and_stores_something_where_there_is_one(cluster: Cluster) -> None:
    url, stored = cluster.place(), "SELECT count(*) FROM bridge_probe"
    await journals.rehearse(url)
    assert asked(url, "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace") == 0
    async with opened(url) as journal:
        await journal.census()
        assert asked(url, stored) == 0
        await journals.rehearse(url)
        assert asked(url, stored) == 1
        assert await ids(journal) == []


ITS = "FROM pg_stat_activity WHERE usename = 'limited'"


def sessions(cluster: Cluster) -> int:
    return cluster.ask(f"SELECT count(*) {ITS}")


def end_sessions(cluster: Cluster) -> None:
    """Return when they are gone."""
    cluster.run(f"SELECT pg_terminate_backend(pid, 5000) {ITS}")


@pytest.fixture
def role(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """May log in so many times at once."""
    cluster.run(f"CREATE ROLE limited LOGIN CONNECTION LIMIT {request.param}")
    yield "limited"
    end_sessions(cluster)
    cluster.run("DROP OWNED BY limited")
    cluster.run("DROP ROLE limited")


@pytest.mark.parametrize("role", [1, 2], indirect=True)
async def test_a_server_that_grants_fewer_connections_is_used_over_those(
    cluster: Cluster, make_delivery: Make, role: str
) -> None:
    url = cluster.place(user=role)
    for turn in range(10):
        async with opened(url) as journal:
            appends = [journal.append(make_delivery(f"{turn}-{n}")) for n in range(10)]
            await asyncio.gather(*appends, journal.census(), ids(journal), journal.check(), journal.recover())
            assert len(await ids(journal)) == 10 * turn + 10
        await until(lambda: not sessions(cluster))


@pytest.mark.parametrize("role", [2], indirect=True)
async def test_who_claims_shares_what_few_connections_there_are(
    cluster: Cluster, make_delivery: Make, role: str
) -> None:
    async with opened(cluster.place(user=role)) as journal:
        names = [f"{n}" for n in range(20)]
        await asyncio.gather(*(journal.append(make_delivery(name)) for name in names), *map(ids, [journal] * 4))
        claimed = await asyncio.gather(*(journal.claim(2, lease=LEASE) for _ in range(10)))
        assert sorted(entry.id for each in claimed for entry in each) == sorted(names)


@pytest.mark.parametrize("role", [9], indirect=True)
async def test_a_server_that_grants_no_connection_any_more_is_quoted_until_it_does(
    cluster: Cluster, make_delivery: Make, role: str
) -> None:
    async with opened(cluster.place(user=role)) as journal:
        assert await journal.append(make_delivery("before"))
        cluster.run("ALTER ROLE limited CONNECTION LIMIT 0")
        end_sessions(cluster)
        for call in (journal.append(make_delivery("lost")), journal.claim(1, lease=LEASE), journal.census()):
            assert (await why_not(call)).endswith(': too many connections for role "limited"')
        cluster.run("ALTER ROLE limited CONNECTION LIMIT 9")
        await until_appended(journal, make_delivery("after"))
        assert await ids(journal) == ["before", "after"]


async def test_a_journal_whose_tables_were_dropped_begins_anew(cluster: Cluster, make_delivery: Make) -> None:
    async with opened(url := cluster.place()) as journal:
        assert await journal.append(make_delivery("before"))
        await asyncio.gather(*(ids(journal) for _ in range(4)))  # each has connected
        with psycopg.connect(url) as connection:
            connection.execute(
                "DROP TABLE bridge_schema, bridge_delivery, bridge_content, bridge_pending, bridge_finished, bridge_attempt"
            )
            connection.execute("DROP TABLE bridge_tally, bridge_probe")
        await until_appended(journal, make_delivery("after"))
        assert await ids(journal) == ["after"]

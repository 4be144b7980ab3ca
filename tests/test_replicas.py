"""Several bridges on one PostgreSQL: what one of them has answered 200 arrives, whoever of them is killed, and the server too."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import postgres
import pytest
from load import load
from postgres import Cluster, free_port
from processes import kill
from service import Service, delivery, service, until

from bridge.stand_in import Reset, StandIn


class Arrivals:
    """Which event ids each delivery arrived with, and how often."""

    def __init__(self) -> None:
        self.ids: dict[str, list[str]] = defaultdict(list)

    def note(self, event: dict[str, Any]) -> None:
        self.ids[event["data"]["id"]].append(event["id"])


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server that a test may restart: nobody else is on it."""
    found = Cluster()
    found.start()
    yield found
    found.stop()


@asynccontextmanager
async def two(folder: Path, url: str, arrivals: Arrivals) -> AsyncIterator[tuple[Service, Service]]:
    """Two bridges on one journal, started at the same moment on an empty database."""
    stand_in = StandIn(on_event=arrivals.note)
    await stand_in.start()
    folders = [folder / "a", folder / "b"]
    for each in folders:
        each.mkdir()
    more = [{"BRIDGE_JOURNAL": url, "BRIDGE_PORT": str(free_port())} for _ in folders]
    async with (
        service(folders[0], stand_in.url, more[0], start=False) as a,
        service(folders[1], stand_in.url, more[1], start=False) as b,
    ):
        await asyncio.gather(a.start(), b.start())
        yield a, b
    await stand_in.stop()


async def test_the_same_delivery_at_two_at_once_is_stored_once_and_both_answer_200(tmp_path: Path) -> None:
    arrivals = Arrivals()
    with postgres.schema() as url:
        async with two(tmp_path, url, arrivals) as (a, b):
            posted = [each.post(delivery(n)) for n in range(50) for each in (a, b, a)]
            answers = await asyncio.gather(*posted)
            assert {answer.status for answer in answers} == {200}
            entries = await a.until_finished(50)
            counted = [await each.metrics() for each in (a, b)]
    assert set(entries) == {f"evt_{n}" for n in range(50)}
    assert {id_: len(ids) for id_, ids in arrivals.ids.items()} == {f"evt_{n}": 1 for n in range(50)}
    accepted = [metrics["bridge_deliveries_total", "accepted", "stripe"] for metrics in counted]
    assert sum(accepted) == 50


async def test_while_the_server_is_away_both_answer_503_and_say_so_and_then_go_on_by_themselves(
    tmp_path: Path, cluster: Cluster
) -> None:
    arrivals = Arrivals()
    async with two(tmp_path, cluster.url(), arrivals) as (a, b):
        await asyncio.to_thread(cluster.stop)
        for n, each in enumerate((a, b)):
            answer = await each.post(delivery(n))
            assert answer.status == 503
            said = await each.ready()
            assert (said.status, len(said.text.splitlines())) == (503, 1)
            assert f"deliveries can't be stored: postgresql://postgres@127.0.0.1:{cluster.port}/postgres: " in said.text
        await asyncio.to_thread(cluster.start)
        for each in (a, b):
            await each.until_ready()  # though nobody has sent anything
        for n, each in enumerate((a, b)):
            assert (await each.post(delivery(n))).status == 200
        await a.until_finished(2)
    assert {id_: len(ids) for id_, ids in arrivals.ids.items()} == {"evt_0": 1, "evt_1": 1}


async def test_both_forward(tmp_path: Path) -> None:
    """A backlog that came in through one is shared by both."""
    arrivals = Arrivals()
    with postgres.schema() as url:
        async with two(tmp_path, url, arrivals) as (a, b):
            async with load(a, connections=4) as acknowledged:

                async def shared() -> bool:
                    counted = [await each.metrics() for each in (a, b)]
                    return all(metrics["bridge_events_total", "stripe"] > 0 for metrics in counted)

                await until(shared)
            await a.until_finished()
    assert acknowledged <= arrivals.ids.keys()


async def test_a_claim_of_a_killed_replica_is_forwarded_by_another_with_the_same_ids(tmp_path: Path) -> None:
    """It was killed between sending and settling: the Event API has the events already."""
    arrivals = Arrivals()
    stand_in = StandIn(on_event=arrivals.note)
    await stand_in.start()
    with postgres.schema() as url:
        more = {"BRIDGE_JOURNAL": url}
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        async with service(tmp_path / "a", stand_in.url, more) as a:
            stand_in.always = Reset(accepting=True)
            assert (await a.post(delivery(1))).status == 200
            await stand_in.received(1)
            forwarder = a.child("forwarder")
            kill(forwarder)  # first: it would give back what it holds when it finds itself alone
            await a.kill()
            stand_in.always = None
            async with service(tmp_path / "b", stand_in.url, more) as b:
                await b.until_finished(1)
    await stand_in.stop()
    assert len(arrivals.ids["evt_1"]) > 1
    assert set(arrivals.ids["evt_1"]) == {"stripe/customer.created:evt_1"}

"""Another way to the same PostgreSQL is taken while the bridge runs, another PostgreSQL never; and one that hangs holds up no stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from postgres import Cluster
from reloading import refused, taken, told
from service import delivery, elapsed, service

from bridge import journal
from bridge.stand_in import StandIn

ANOTHER = "journal: restart the bridge to change it; what is pending stays in this one"


def file_with(url: str, folder: Path) -> tuple[Path, dict[str, str]]:
    """A file for the URL, and an environment that names it."""
    place = folder / "journal"
    place.write_text(url)
    return place, {"BRIDGE_JOURNAL": "", "BRIDGE_JOURNAL_FILE": str(place)}


async def test_who_opens_it_is_changed_as_soon_as_it_may(tmp_path: Path, api: StandIn, cluster: Cluster) -> None:
    """A secret is often rotated before everybody knows the new one: what fails for now is tried again by itself."""
    url = cluster.place()
    place, more = file_with(url, tmp_path)
    async with service(tmp_path, api.url, more) as running:
        assert (await running.post(delivery(1))).status == 200
        place.write_text(f"{url}&dbname=nowhere")
        why = await refused(running)
        assert "nowhere" in why[0]
        place.write_text(f"{url}&user=rotated")
        why = await refused(running, 2)
        assert "rotated" in why[1]
        assert (await running.post(delivery(2))).status == 200
        cluster.run("CREATE ROLE rotated SUPERUSER LOGIN")
        assert await taken(running) == ["journal"]
        assert (await running.post(delivery(3))).status == 200
        await api.received(3)
        assert (await running.ready()).status == 200
        assert told(running, "configuration.refused") == why, "it says the same once"


async def test_a_role_that_is_led_to_other_tables_takes_nobody_along(
    tmp_path: Path, api: StandIn, cluster: Cluster
) -> None:
    """Where a URL leads depends on who asks. What is pending would stay behind, and what was there be known no more."""
    for name in ("alice", "bob"):
        cluster.run(f"CREATE ROLE {name} LOGIN")
        cluster.run(f"CREATE SCHEMA AUTHORIZATION {name}")
    place, more = file_with(cluster.url(user="alice"), tmp_path)
    async with service(tmp_path, api.url, more) as running:
        place.write_text(cluster.url(user="bob"))
        [why] = await refused(running)
        assert cluster.ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'bob'") == 0, "no tables are made there"
        await (await journal.open(cluster.url(user="bob"))).close()
        assert await refused(running, 2) == [why, ANOTHER]
        assert (await running.post(delivery(1))).status == 200
        await api.received(1)
        assert told(running, "configuration.taken") == []


async def test_one_that_hangs_holds_up_no_stop(tmp_path: Path, api: StandIn, cluster: Cluster) -> None:
    """A service manager kills after 10 s."""
    async with service(tmp_path, api.url, {"BRIDGE_JOURNAL": cluster.place()}) as running:
        assert (await running.post(delivery(1))).status == 200
        with cluster.frozen():
            tasks = [asyncio.create_task(again_and_again(running.ready)) for _ in range(3)]
            tasks += [asyncio.create_task(again_and_again(running.metrics)) for _ in range(3)]
            tasks += [asyncio.create_task(again_and_again(partial(running.post, delivery("late")))) for _ in range(3)]
            await asyncio.sleep(3)
            took, status = elapsed(), await running.stop()
            assert (status, took() < 10) == (0, True), took()
            for task in tasks:
                task.cancel()


async def again_and_again(ask: Callable[[], Awaitable[object]]) -> None:
    while True:
        with suppress(KeyError, ValueError):  # nobody has answered
            await ask()
        await asyncio.sleep(0.05)

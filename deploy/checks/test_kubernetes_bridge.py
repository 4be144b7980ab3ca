"""The real bridge, as the pods of deploy/kubernetes would start it, and what their probes hear of it in bad times."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import postgres
import pytest
from node import HERE, Node
from processes import kill, send
from rendered import (
    OVERLAYS,
    TRANSFORM,
    Object,
    as_in_the_readme,
    command,
    container,
    one,
    probes,
    secret_in_the_readme,
    workload,
)
from service import BRIDGE, SECRETS, Service, delivery, until
from tools import run

from bridge.settings import Settings
from bridge.stand_in import StandIn

KEY = "the event key"


@dataclass
class Pod:
    """A node's bridge, and what is around it."""

    node: Node
    service: Service
    api: StandIn
    cluster: postgres.Cluster

    @contextmanager
    def nothing_can_be_stored(self) -> Iterator[None]:
        if workload(self.node.objects)["kind"] == "StatefulSet":
            other = sqlite3.connect(f"{self.node.root}/data/bridge.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            yield
            other.close()
            return
        self.cluster.stop(signal.SIGQUIT)
        yield
        self.cluster.start()

    async def probed(self) -> dict[str, int]:
        """What each probe hears: a status, or 0 for no answer in time."""
        found = probes(self.node.objects)
        return dict(zip(found, await asyncio.gather(*map(self._probe, found.values())), strict=True))

    async def _probe(self, probe: Object) -> int:
        ports = {each["name"]: each["containerPort"] for each in container(self.node.objects)["ports"]}
        listeners = {Settings().port: self.service.public, Settings().admin_port: self.service.private}
        url = listeners[ports[probe["httpGet"]["port"]]] + probe["httpGet"]["path"]
        try:
            return (await self.service.ask("GET", url, timeout=_within(probe["timeoutSeconds"]))).status
        except TimeoutError:
            return 0

    async def until_unready(self, reason: str) -> None:
        """/readyz says so."""

        async def says_so() -> bool:
            answer = await self.service.ready()
            return answer.status == 503 and reason in answer.text

        await until(says_so, every=0.1)


def _within(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)


@pytest.fixture(scope="module")
def cluster() -> Iterator[postgres.Cluster]:
    started = postgres.Cluster()
    started.start()
    yield started
    started.stop()


@pytest.fixture(params=OVERLAYS)
def node(request: pytest.FixtureRequest, api: StandIn, cluster: postgres.Cluster, tmp_path: Path) -> Node:
    """With all that the README says to write, and a Secret as its command makes one, with secrets of ours."""
    secret = secret_in_the_readme(tmp_path, request.param)
    secret |= {name: SECRETS[name] for name in secret.keys() & SECRETS.keys()} | {"INNGEST_EVENT_KEY": KEY}
    if "BRIDGE_JOURNAL" in secret:
        secret["BRIDGE_JOURNAL"] = cluster.place()
    return Node(as_in_the_readme(tmp_path, request.param), tmp_path / "root", secret, api.url)


@pytest.fixture
async def api() -> AsyncIterator[StandIn]:
    started = StandIn(key=KEY)
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
async def running(node: Node, api: StandIn, cluster: postgres.Cluster) -> AsyncIterator[Pod]:
    async with serving(node) as service:
        yield Pod(node, service, api, cluster)


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[Service]:
    found = Service(node.root / "data", node.environment() | HERE)
    try:
        await found.start()
        yield found
    finally:
        await found.close()


async def checked(node: Node, *, status: int = 0) -> str:
    """What `bridge check` says, with every variable as the pod has it: it looks at no port."""
    environment = node.environment() | {"COLUMNS": "300"}
    # Not in our own loop: the stand-in answers in it.
    return await asyncio.to_thread(
        run, "env", "-C", node.root / "data", BRIDGE, "check", environment=environment, status=status
    )


async def test_bridge_check_finds_everything_right_in_a_pod(node: Node) -> None:
    said = await checked(node)
    assert [line.split()[0] for line in said.splitlines()] == ["ok"] * 4, said
    assert "4 sources: stripe-live, intercom, slack, stripe" in said
    assert "of your own: stripe" in said
    assert node.secret.get("BRIDGE_JOURNAL", node.here("sqlite:///data/bridge.db")).partition("?")[0] in said


async def test_what_comes_in_is_forwarded_as_the_users_transform_has_it(running: Pod) -> None:
    assert (await running.service.post(delivery(1))).status == 200
    [event] = await running.api.received(1)
    assert event["name"] == "mine/transformed"


async def test_metrics_are_for_who_has_the_token_that_prometheus_has(running: Pod) -> None:
    [endpoint] = one(running.node.objects, "ServiceMonitor")["spec"]["endpoints"]
    authorization = endpoint["authorization"]
    token = running.node.secret[authorization["credentials"]["key"]]
    url = running.service.private + endpoint["path"]
    assert (await running.service.ask("GET", url)).status == 401
    headers = {"Authorization": f"{authorization['type']} {token}"}
    answer = await running.service.ask("GET", url, headers=headers)
    assert answer.status == 200 and "bridge_forwarding_held 0" in answer.text


async def test_without_a_token_no_pod_starts(node: Node) -> None:
    node.change_secret("BRIDGE_ADMIN_TOKEN", None)
    assert "so set BRIDGE_ADMIN_TOKEN" in await checked(node, status=2)


async def test_no_pod_takes_another_journal_than_its_overlay_is_for(node: Node) -> None:
    """SQLite with a URL in the Secret, PostgreSQL without one: neither does quietly what the other would."""
    if "BRIDGE_JOURNAL" in node.secret:
        node.change_secret("BRIDGE_JOURNAL", None)
        assert "BRIDGE_JOURNAL_FILE: the file it names: No such file" in await checked(node, status=2)
    else:
        node.change_secret("BRIDGE_JOURNAL", "postgresql://db.internal/bridge")
        assert "BRIDGE_JOURNAL: set, and" in await checked(node, status=2)


async def test_a_sick_event_api_or_journal_neither_restarts_a_pod_nor_takes_it_out_of_the_service(running: Pod) -> None:
    service, well = running.service, {"startupProbe": 200, "readinessProbe": 200, "livenessProbe": 200}
    assert await running.probed() == well
    running.api._key = "another"
    assert (await service.post(delivery(1))).status == 200
    await running.until_unready("forwarding is held")
    assert await running.probed() == well
    with running.nothing_can_be_stored():
        await running.until_unready("deliveries can't be stored")
        assert await running.probed() == well
        assert (await service.post(delivery(2))).status == 503, "by the bridge itself"
        kill(service.child("receiver"))  # the one that is started in its place has never seen the journal
        await until(lambda: service.child("receiver"))
        assert await running.probed() == well
    running.api._key = KEY
    await service.until_ready()


async def test_while_the_event_api_is_away_webhooks_are_taken(running: Pod) -> None:
    await running.api.stop()
    assert (await running.service.post(delivery(1))).status == 200
    await until(lambda: "event_api.unavailable" in running.service.logged)
    assert set((await running.probed()).values()) == {200}
    assert (await running.service.post(delivery(2))).status == 200


async def test_a_receiver_that_hangs_is_taken_out_of_the_service_and_at_last_restarted(running: Pod) -> None:
    receiver = running.service.child("receiver")
    try:
        send(signal.SIGSTOP, [receiver])
        assert set((await running.probed()).values()) == {0}
    finally:
        send(signal.SIGCONT, [receiver])
    found = probes(running.node.objects)
    out, restart = (
        found[each]["periodSeconds"] * found[each]["failureThreshold"] for each in ("readinessProbe", "livenessProbe")
    )
    assert out <= 15 and restart >= 120, "what is slow for a while is left alone"


@pytest.mark.parametrize("node", ["sqlite"], indirect=True)
async def test_a_saved_journal_is_whole_and_can_be_put_back_while_the_bridge_runs(node: Node, api: StandIn) -> None:
    async with serving(node) as service:
        assert (await service.post(delivery(1))).status == 200
        await api.received(1)
        await service.until_finished(1)
        await asyncio.to_thread(node.run, command(".backup("))
    saved = node.root.parent / "saved.db"
    assert saved.stat().st_mode & 0o777 == 0o600
    for journal in (node.root / "data").glob("bridge.db*"):
        journal.unlink()
    async with serving(node) as service:
        assert (await service.post(delivery(2))).status == 200
        await service.until_finished(1)
        assert "1 copied: 0 pending, 0 dead, 0 skipped, 1 forwarded" in await asyncio.to_thread(
            node.run, command("journal copy")
        )
        assert {*await service.entries()} == {"evt_1", "evt_2"}
    assert [path.name for path in (node.root / "data").glob("*saved*")] == []


@pytest.mark.parametrize("node", ["sqlite"], indirect=True)
async def test_a_change_on_sqlite_is_taken_by_the_pod_that_runs_or_refused(node: Node, api: StandIn) -> None:
    folder = node.root.parent
    inside = "".join(line for line in command("kill -HUP").splitlines(keepends=True) if "kubectl exec" in line)

    async def tell(service: Service) -> None:
        await asyncio.to_thread(node.run, inside, init=service.pid)

    async with serving(node) as service:
        assert (await service.post(delivery(1))).status == 200
        await api.received(1)
        changed = as_in_the_readme(folder, "sqlite", transform=TRANSFORM.replace("mine/", "changed/"))
        with pytest.raises(AssertionError, match="changed/transformed"):  # it is not in the pod yet, and one sees that
            await tell(service)
        node.apply(changed)
        await tell(service)
        await until(lambda: "configuration.taken" in service.logged)
        assert (await service.post(delivery(2))).status == 200
        await api.received(2)
        node.apply(as_in_the_readme(folder, "sqlite", transform="import nothing_of_the_kind"))
        await tell(service)
        await until(lambda: "configuration.refused" in service.logged)
        assert "nothing_of_the_kind" in service.logged
        assert (await service.post(delivery(3))).status == 200
        names = [event["name"] for event in await api.received(3)]
        assert names == ["mine/transformed", "changed/transformed", "changed/transformed"]


async def test_a_transform_can_be_tried_in_a_pod_that_runs(node: Node) -> None:
    async with serving(node):
        assert "of your own: stripe" in await asyncio.to_thread(node.run, command("/tmp/new"))  # noqa: S108 - the pod's
        (node.root.parent / "transforms/stripe.py").write_text("import nothing_of_the_kind")
        with pytest.raises(AssertionError, match="No module named 'nothing_of_the_kind'"):
            await asyncio.to_thread(node.run, command("/tmp/new"))  # noqa: S108 - as above

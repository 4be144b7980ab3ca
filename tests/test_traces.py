"""Traces: one for a delivery over all processes, nothing of its payload, and nobody waits for who collects them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from collector import Collector, Span, collecting
from commands import delivery as stored
from conftest import Place
from service import Service, delivery, elapsed, service, until

from bridge import journal as journals
from bridge.stand_in import Hang, Refuse, StandIn
from bridge.traces import Traces

PRIVATE = "zoe@example.com"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as found:
        yield found


def one(spans: Sequence[Span], name: str) -> Span:
    [found] = [span for span in spans if span.name == name]
    return found


async def test_one_trace_leads_from_the_receipt_to_the_event_api_over_two_processes(
    tmp_path: Path, place: Place, api: StandIn, collector: Collector
) -> None:
    async with place(tmp_path) as url:
        more = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "BRIDGE_JOURNAL": url, **SOON}
        async with service(tmp_path, api.url, more) as running:
            body = delivery(1).replace(b'"n":1', f'"email":"{PRIVATE}"'.encode())
            assert (await running.post(body)).status == 200
            spans = await collector.until("POST /webhooks/{source}", "journal append", "forward", "transform", "send")
    assert len({span.trace for span in spans}) == 1
    receipt, forward = one(spans, "POST /webhooks/{source}"), one(spans, "forward")
    assert (receipt.process, receipt.parent) == ("receiver", "")
    assert (forward.process, forward.parent) == ("forwarder", receipt.id)
    assert one(spans, "journal append").parent == receipt.id
    assert one(spans, "transform").parent == one(spans, "send").parent == forward.id
    who = {"bridge.source": "stripe", "bridge.provider": "stripe", "bridge.delivery.id": "evt_1"}
    ids = ["stripe/customer.created:evt_1"]
    assert receipt.attributes == {**who, "bridge.outcome": "accepted"}
    assert forward.attributes == {
        **who, "bridge.state": "forwarded", "bridge.outcome": "forwarded", "bridge.event.ids": ids
    }  # fmt: skip
    assert one(spans, "transform").attributes == {"bridge.outcome": "transformed", "bridge.batch.entries": 1}
    assert one(spans, "send").attributes == {
        "bridge.event_api.answer": "accepted", "bridge.batch.events": 1, "bridge.event.ids": ids
    }  # fmt: skip
    assert not any(span.failed for span in spans)
    assert all(receipt.start <= span.start <= span.end <= forward.end for span in spans)
    sent = b"".join(collector.bodies)
    assert PRIVATE.encode() not in sent and b"whsec" not in sent and b"data" not in sent


async def test_a_repetition_and_a_replay_have_traces_of_their_own(
    tmp_path: Path, api: StandIn, collector: Collector
) -> None:
    async with service(tmp_path, api.url, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **SOON}) as running:
        for _ in range(2):
            assert (await running.post(delivery(1))).status == 200
            await asyncio.sleep(0.01)  # another millisecond
        await running.until_finished()
        await running.run("replay", "evt_1")
        await api.received(2)
        received = ["POST /webhooks/{source}", "journal append"]
        spans = await collector.until(*received * 2, *["forward", "transform", "send"] * 2)
        first, again = sorted((span for span in spans if span.name == received[0]), key=lambda span: span.start)
        assert (first.attributes["bridge.outcome"], again.attributes["bridge.outcome"]) == ("accepted", "duplicate")
        assert first.trace != again.trace
        forward, replay = sorted((span for span in spans if span.name == "forward"), key=lambda span: span.start)
        assert (forward.trace, forward.parent, forward.links) == (first.trace, first.id, ())
        assert (replay.parent, replay.links) == ("", (first.trace,))
        assert replay.trace not in {first.trace, again.trace}


async def test_what_went_wrong_can_be_seen_and_not_what_was_said_of_it(
    tmp_path: Path, api: StandIn, collector: Collector
) -> None:
    (tmp_path / "stripe.py").write_text(f"def transform(delivery):\n    raise ValueError({PRIVATE!r})")
    more = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "BRIDGE_TRANSFORMS": str(tmp_path), **SOON}
    async with service(tmp_path, api.url, more) as running:
        assert (await running.post(delivery(1))).status == 200
        spans = await collector.until("POST /webhooks/{source}", "journal append", "forward", "transform")
        forward = one(spans, "forward")
        assert forward.failed
        assert (forward.attributes["bridge.state"], forward.attributes["bridge.outcome"]) == ("dead", "raised")
        assert one(spans, "transform").attributes["bridge.outcome"] == "raised"
        assert PRIVATE.encode() not in b"".join(collector.bodies)


async def test_a_request_that_is_not_accepted_is_a_span_that_failed_and_so_is_each_that_follows(
    tmp_path: Path, api: StandIn, collector: Collector
) -> None:
    api.misbehave = [Refuse(status=503, body=PRIVATE)]
    async with service(tmp_path, api.url, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **SOON}) as running:
        assert (await running.post(delivery(1))).status == 200
        spans = await collector.until(
            "POST /webhooks/{source}", "journal append", "forward", "transform", "send", "send"
        )
        sends = sorted((span for span in spans if span.name == "send"), key=lambda span: span.start)
        answers = [(span.attributes["bridge.event_api.answer"], span.failed) for span in sends]
        assert answers == [("unavailable", True), ("accepted", False)]
        assert one(spans, "forward").attributes["bridge.event.ids"] == ["stripe/customer.created:evt_1"]
        assert PRIVATE.encode() not in b"".join(collector.bodies)


@pytest.mark.parametrize("how", [Hang(), Refuse(status=503)])
async def test_what_is_on_its_way_when_the_bridge_stops_is_told_as_released_and_as_no_error(
    tmp_path: Path, api: StandIn, collector: Collector, how: Hang | Refuse
) -> None:
    api.always = how
    async with service(tmp_path, api.url, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **SOON}) as running:
        assert (await running.post(delivery(1))).status == 200
        await until(lambda: api.asked and {"transform"} <= {span.name for span in collector.spans()})
        assert await running.stop() == 0
    spans = collector.spans()
    forward = one(spans, "forward")
    assert (forward.attributes["bridge.state"], forward.attributes["bridge.outcome"]) == ("pending", "released")
    assert not forward.failed
    assert one(spans, "transform").parent == forward.id
    assert one(spans, "POST /webhooks/{source}").id == forward.parent


async def test_a_claim_whose_lease_ended_is_told_as_lapsed_and_the_next_one_as_another(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    store = await journals.open(f"sqlite:///{tmp_path}/bridge.db")
    await store.append(stored("evt_1"))
    traces = Traces("forwarder")
    claiming = traces.forwarding(store)
    assert len(await claiming.claim(1, lease=1)) == 1
    await until(lambda: claiming.claim(1, lease=60_000))
    await asyncio.to_thread(traces.close)
    await store.close()
    first, second = sorted(collector.spans(), key=lambda span: span.start)
    assert [each.attributes["bridge.outcome"] for each in (first, second)] == ["lapsed", "released"]
    assert (first.trace, first.parent) == (second.trace, second.parent)


async def test_a_batch_is_told_by_its_size(tmp_path: Path, api: StandIn, collector: Collector) -> None:
    async with service(tmp_path, api.url, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **SOON}, start=False) as later:
        async with later.journal() as store:
            for n in range(3):
                await store.append(stored(f"evt_{n}"))
        await later.start()
        await later.until_finished(3)
        spans = await collector.until(*["forward", "transform", "send"] * 3)
    assert [span.attributes["bridge.batch.entries"] for span in spans if span.name == "transform"] == [3, 3, 3]


async def test_the_usual_variables_hold_and_what_opens_the_collector_is_kept_from_transforms(
    tmp_path: Path, api: StandIn, collector: Collector
) -> None:
    module = "import os\nfrom bridge import Event\n\ndef transform(delivery):\n    return Event(name='x/y', data=dict(os.environ))"
    (tmp_path / "stripe.py").write_text(module)
    more = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20sesame",
        "OTEL_SERVICE_NAME": "named",
        "BRIDGE_TRANSFORMS": str(tmp_path),
        **SOON,
    }
    async with service(tmp_path, api.url, more) as running:
        assert (await running.post(delivery(1))).status == 200
        await collector.until("POST /webhooks/{source}", "journal append", "forward", "transform", "send")
        assert {each["authorization"] for each in collector.headers} == {"Bearer sesame"}
        [event] = await api.received(1)
        assert not [name for name in event["data"] if "HEADERS" in name]


async def test_a_trace_is_sampled_whole_or_not_at_all(tmp_path: Path, api: StandIn, collector: Collector) -> None:
    more = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    more |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **SOON}
    async with service(tmp_path, api.url, more) as running:
        for n in range(40):
            assert (await running.post(delivery(n))).status == 200
        await running.until_finished(40)
    kinds: dict[str, set[str]] = {}
    for span in collector.spans():
        kinds.setdefault(span.trace, set()).add(span.name)
    assert 5 < len(kinds) < 35
    whole = {"POST /webhooks/{source}", "journal append", "forward", "transform", "send"}
    assert all(names == whole for names in kinds.values())


@pytest.mark.parametrize("state", ["hangs", "is away"])
async def test_nobody_waits_for_a_collector(tmp_path: Path, api: StandIn, collector: Collector, state: str) -> None:
    collector.hangs = state == "hangs"
    url = collector.url if collector.hangs else "http://127.0.0.1:9"
    async with service(tmp_path, api.url, {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **SOON}) as running:
        for n in range(20):
            since = elapsed()
            assert (await running.post(delivery(n))).status == 200
            assert since() < 1
        await api.received(20)
        since = elapsed()
        assert await running.stop() == 0
        assert since() < 8
        said = {(line["event"], line.get("logger", "")) for line in running.log()}
        expected = {("service.started", ""), ("service.stopping", ""), ("service.stopped", "")}
        assert {event for event, _ in said - expected} <= {"library.message"}
        assert all("127.0.0.1:9" not in line for line in running.logged.splitlines() if "library.message" in line)


async def test_where_traces_are_off_nothing_of_them_is_loaded(tmp_path: Path, api: StandIn) -> None:
    script = (
        "import sys, bridge.roles, bridge.serve; from bridge import config; config.read({}); "
        "print([name for name in sys.modules if 'telemetry' in name])"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    assert said == b"[]\n"
    async with service(tmp_path, api.url, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}) as running:
        assert (await running.post(delivery(1))).status == 200
        await api.received(1)
        assert not _loaded(running)


def _loaded(of: Service) -> list[str]:
    """Files of it that the children have open, or in memory: protobuf's is a shared object."""
    maps = [Path(f"/proc/{of.child(name)}/maps").read_text() for name in ("receiver", "forwarder")]
    return [line for text in maps for line in text.splitlines() if "protobuf" in line or "telemetry" in line]

"""What is wrong with OpenTelemetry's variables is a fault like any other, and where traces fail all the same nothing else does."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from collector import Collector, collecting
from commands import Process, closed_url, run
from service import delivery, service, until

from bridge import config
from bridge.config import traces
from bridge.errors import ConfigInvalid
from bridge.stand_in import StandIn

ON = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}
ENOUGH = {"STRIPE_WEBHOOK_SECRET": "s", "INNGEST_DEV": "1", "BRIDGE_CONFIG": os.devnull}
SMALL = {"OTEL_BSP_MAX_QUEUE_SIZE": "100"}
SMALLER = "OTEL_BSP_MAX_QUEUE_SIZE: smaller than OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
SESAME = "NeverToBeShown"


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as found:
        yield found


def faults(variables: Mapping[str, str]) -> list[str]:
    try:
        config.load({**ENOUGH, **variables})
    except ConfigInvalid as invalid:
        return list(invalid.faults)
    return []


def shadowed(folder: Path) -> None:
    """As if what sends traces were not installed, for who has this folder in PYTHONPATH."""
    (folder / "opentelemetry").mkdir()
    (folder / "opentelemetry" / "__init__.py").touch()


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "expected a URL such as http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:0x", "expected a URL such as http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://c:4318?key={SESAME}", "expected a URL such as http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c.example ", "expected a URL such as http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://", "expected a URL such as http://localhost:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "only http/protobuf is spoken"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "only http/protobuf is spoken"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"Bearer {SESAME}", "expected name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f'a=b,authorization="{SESAME}"', "expected name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SESAME};x", "expected name=value"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", f"authorization=Bearer%0A{SESAME}", "expected name=value"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", f"api key={SESAME}", "expected name=value"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "abc", "expected a number of seconds"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "nan", "expected a number of seconds"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0", "expected a number of seconds"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "expected none, gzip or deflate"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem", "no file that can be read"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/nowhere/key.pem", "no file that can be read"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "expected one of always_on, "),
        ("OTEL_BSP_SCHEDULE_DELAY", "...", "expected a whole number, 1 to"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "expected a whole number, 1 to"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1" + "0" * 20, "expected a whole number, 1 to"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "expected a whole number, 1 to"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100", "smaller than OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "x", "expected a whole number, 0 to"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "1.5", "expected a whole number, 0 to"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1", "expected a whole number, 0 to"),
    ],
)
def test_a_value_that_is_passed_over_or_fatal_is_a_fault_that_names_it(name: str, value: str, fault: str) -> None:
    [told] = faults({**ON, name: value})
    assert told.startswith(f"{name}: {fault}")
    assert SESAME not in told
    assert faults({name: value} if name not in ON else {}) == [], "traces are off"
    config.load({**ENOUGH, **ON, name: value}, serving=False)


@pytest.mark.parametrize("share", ["x", "1.5", "-0.1", "nan", "50%"])
def test_a_share_of_traces_is_from_0_to_1(share: str) -> None:
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": share}
    [told] = faults({**ON, **sampler})
    assert told.startswith("OTEL_TRACES_SAMPLER_ARG: expected the share of traces that are sent, from 0 to 1")
    assert faults({**ON, **sampler, "OTEL_TRACES_SAMPLER": "always_on"}) == [], "nobody asks for it"


def test_all_faults_are_told_at_once() -> None:
    wrong = {"OTEL_TRACES_SAMPLER": "x", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "5000", "OTEL_EXPORTER_OTLP_TIMEOUT": "x"}
    told = {fault.partition(":")[0] for fault in faults({**ON, **wrong})}
    assert told == {"OTEL_TRACES_SAMPLER", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_EXPORTER_OTLP_TIMEOUT"}


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20dTpw, x-scope=a=b==,"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=two words"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://dynatrace.example/e/0a1b/api/v2/otlp/"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c.example/v1/traces?version=1"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "100", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100"},
        {"OTEL_BSP_SCHEDULE_DELAY": " 100 ", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5"},
        {"OTEL_TRACES_SAMPLER": "TraceIdRatio", "OTEL_TRACES_SAMPLER_ARG": "1e-3"},
        {"OTEL_TRACES_SAMPLER": "traceidratio"},
        {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0", "OTEL_EXPORTER_OTLP_COMPRESSION": "GZIP"},
        {"OTEL_EXPORTER_OTLP_CERTIFICATE": __file__},
        dict.fromkeys(("OTEL_TRACES_SAMPLER", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_SPAN_LINK_COUNT_LIMIT"), ""),
    ],
)
def test_what_opentelemetry_takes_is_no_fault(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ON, **variables}.items():
        monkeypatch.setenv(name, value)
    assert faults(os.environ) == []


async def test_what_sends_traces_is_made_once_before_and_neither_sends_nor_stays_nor_speaks(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What nobody has thought of is a fault too: this variable names what can be installed beside OpenTelemetry."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SESAME}")
    before = threading.enumerate()
    assert await asyncio.to_thread(faults, os.environ) == []
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", SESAME)
    [told] = await asyncio.to_thread(faults, os.environ)
    assert told.startswith("OTEL_EXPORTER_OTLP_ENDPOINT: OpenTelemetry can't be started")
    assert told.endswith(": RuntimeError")
    assert [each.name for each in threading.enumerate() if each not in before and "Otel" in each.name] == []
    assert os.environ["OTEL_EXPORTER_OTLP_HEADERS"] == f"authorization={SESAME}", "the service has need of it"
    assert collector.bodies == []
    assert capfd.readouterr() == ("", "")


def test_without_what_sends_them_traces_are_a_fault_that_tells_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traces, "find_spec", lambda _: None)
    [told] = faults(ON)
    assert "pip install 'webhook-event-bridge[traces]'" in told


async def test_serve_does_not_start_with_what_its_processes_would_fall_over(tmp_path: Path, api: StandIn) -> None:
    for variables, told in (
        (SMALL, SMALLER),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": SESAME}, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT: expected a whole number"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": SESAME}, "OTEL_EXPORTER_OTLP_HEADERS: expected name=value"),
        (
            {"OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": SESAME},
            "OTEL_EXPORTER_OTLP_ENDPOINT: OpenTelemetry can't",
        ),
    ):
        async with service(tmp_path, api.url, {**ON, **variables}, start=False) as refusing:
            [said] = (await refusing.refuses_to_start()).splitlines()
            assert said.startswith(f"bridge: {told}")
            assert SESAME not in said


def test_check_tells_it_too(tmp_path: Path) -> None:
    with closed_url() as url:
        ran = run("check", cwd=tmp_path, STRIPE_WEBHOOK_SECRET="s", INNGEST_DEV=url, **ON, **SMALL)
    assert ran.status == 2
    assert "FAIL configuration" in ran.out
    assert f"bridge: {SMALLER}" in ran.err


async def test_a_reload_that_finds_it_changes_nothing(tmp_path: Path, api: StandIn, collector: Collector) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    more = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority)}
    async with service(tmp_path, api.url, more) as running:
        receiver = running.child("receiver")
        authority.unlink()
        running.send_signal(signal.SIGHUP)
        await until(lambda: "configuration.refused" in running.logged)
        [reason] = [line["reason"] for line in running.log() if line["event"] == "configuration.refused"]
        assert reason == "OTEL_EXPORTER_OTLP_CERTIFICATE: no file that can be read"
        assert running.child("receiver") == receiver


def test_dev_tells_it_and_does_not_start(tmp_path: Path) -> None:
    shadowed(tmp_path)
    for variables, told in (
        ({"PYTHONPATH": str(tmp_path)}, "pip install 'webhook-event-bridge[traces]', or unset it"),
        (SMALL, SMALLER),
    ):
        with closed_url() as url:
            ports = {"BRIDGE_PORT": "0", "BRIDGE_ADMIN_PORT": "0"}
            with Process("dev", cwd=tmp_path, INNGEST_DEV=url, **ON, **ports, **variables) as process:
                ran = process.ended()
        assert ran.status == 2
        assert told in ran.out
        assert len(ran.out.splitlines()) == 1


async def test_deliveries_go_on_where_traces_fail_all_the_same(
    tmp_path: Path, api: StandIn, collector: Collector
) -> None:
    """As where what sends them is replaced by another version under a running bridge."""
    transforms = tmp_path / "transforms"
    transforms.mkdir()
    module = "import os\nfrom bridge import Event\n\ndef transform(delivery):\n    return Event(name='x/y', data=dict(os.environ))"
    (transforms / "stripe.py").write_text(module)
    more = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={SESAME}",
        "BRIDGE_TRANSFORMS": str(transforms),
        "OTEL_RESOURCE_ATTRIBUTES": SESAME,  # which OpenTelemetry quotes where nobody keeps it from that
        "PYTHONPATH": str(tmp_path),
    }
    async with service(tmp_path, api.url, more) as running:
        shadowed(tmp_path)
        for name in ("receiver", "forwarder"):
            os.kill(running.child(name), signal.SIGKILL)
        await until(lambda: running.logged.count("traces.failed") == 2)
        await running.until_ready()
        assert (await running.post(delivery(1))).status == 200
        [event] = await api.received(1)
        assert not [name for name in event["data"] if "HEADERS" in name]
        assert await running.stop() == 0
    failed = {line["process"]: line["error"] for line in running.log() if line["event"] == "traces.failed"}
    assert failed == dict.fromkeys(("receiver", "forwarder"), "ImportError")
    assert [line["event"] for line in running.log()].count("process.ended") == 2, "those that were killed"
    assert collector.bodies == [] and SESAME not in running.logged

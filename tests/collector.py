"""What collects traces, for the tests of them: takes OTLP over HTTP, and shows the spans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from service import until


class Span(NamedTuple):
    process: str
    trace: str
    id: str
    parent: str
    name: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    failed: bool
    start: int
    end: int


class Collector:
    """Takes what is sent to `/v1/traces`, as any collector does."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self.hangs = False

    async def take(self, request: web.Request) -> web.Response:
        while self.hangs:
            await asyncio.sleep(0.1)
        self.bodies.append(await request.read())
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(content_type="application/x-protobuf")

    def spans(self) -> list[Span]:
        found = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                about = {each.key: _value(each.value) for each in resource.resource.attributes}
                assert about["service.name"] in {"webhook-event-bridge", "named"}
                found += [
                    _span(about["bridge.process"], each) for scope in resource.scope_spans for each in scope.spans
                ]
        return found

    async def until(self, *names: str) -> list[Span]:
        """The spans, once there are so many of these names."""
        await until(lambda: sorted(span.name for span in self.spans()) == sorted(names))
        return self.spans()


def _span(process: str, span: Any) -> Span:
    return Span(
        process,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        {each.key: _value(each.value) for each in span.attributes},
        tuple(link.trace_id.hex() for link in span.links),
        span.status.code == 2,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
    )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, str(kind))


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    found = Collector()
    application = web.Application()
    application.router.add_post("/v1/traces", found.take)
    async with TestServer(application) as server:
        found.url = str(server.make_url("/"))
        yield found
        found.hangs = False

"""An OpenTelemetry collector for tests: takes OTLP over HTTP, as protobuf, and keeps it."""

import zlib
from collections.abc import Mapping
from typing import Any, Self

import msgspec
from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue


class Span(msgspec.Struct, frozen=True):
    """One span. Ids are hexadecimal; `parent` is '' for the first of a trace."""

    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    failed: bool


class Record(msgspec.Struct, frozen=True):
    """One log record."""

    body: str
    level: str
    trace: str
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """`async with Collector() as collector`: exporters go to `collector.url`."""

    def __init__(self, *, status: int = 200) -> None:
        """`status` is what every export is answered with."""
        self.url = ""
        self.spans: list[Span] = []
        self.records: list[Record] = []
        self.received: list[bytes] = []
        """The bodies of all exports."""
        self.headers: list[Mapping[str, str]] = []
        self._status = status
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/base/v1/traces", self._traces)
        app.router.add_post("/base/v1/logs", self._logs)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/base"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    async def _body(self, request: web.Request) -> bytes:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        self.headers.append(request.headers)
        if request.headers.get("Content-Encoding") == "deflate":
            body = zlib.decompress(body)
        self.received.append(body)
        return body

    async def _traces(self, request: web.Request) -> web.Response:
        export = ExportTraceServiceRequest.FromString(await self._body(request))
        for resource in export.resource_spans:
            about = _plain(resource.resource.attributes)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    failed = span.status.code == span.status.STATUS_CODE_ERROR
                    self.spans.append(Span(span.name, *ids, _plain(span.attributes), about, failed))
        return web.Response(status=self._status)

    async def _logs(self, request: web.Request) -> web.Response:
        export = ExportLogsServiceRequest.FromString(await self._body(request))
        for resource in export.resource_logs:
            about = _plain(resource.resource.attributes)
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    attributes = _plain(record.attributes)
                    text = record.body.string_value
                    self.records.append(Record(text, record.severity_text, record.trace_id.hex(), attributes, about))
        return web.Response(status=self._status)


def _plain(attributes: "Any | list[KeyValue]") -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in attributes}

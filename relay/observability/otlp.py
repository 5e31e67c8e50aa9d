"""The export to a collector: OTLP over HTTP, by the OpenTelemetry SDK. Imported only if a collector is configured.

The SDK's own environment variables apply: headers, batches, sampling, limits. Both exporters buffer in bounded memory
and send from threads of their own; events that a slow or absent collector does not accept are dropped.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from conclave import __version__
from conclave.errors import Code, ConclaveError, Refusal
from relay.observability import redaction
from relay.observability.logs import Event
from relay.observability.tracing import Attributes

_SEVERITIES = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}
_NOT_FIELDS = ("event", "level", "timestamp", "trace_id", "span_id", "exception")
_SERVER_ERRORS = (Code.INTERNAL, Code.UNAVAILABLE)

_propagator = TraceContextTextMapPropagator()


class Exporter:
    """The tracer of this process, and the sink of its log events."""

    def __init__(self, endpoint: str, node: str) -> None:
        """Export to a collector's base URL.

        Raises:
            Exception: any that the SDK raises for its environment variables.
        """
        logging.getLogger("opentelemetry.util.re").addFilter(_hide_header)
        resource = Resource.create(
            {"service.name": "conclave", "service.version": __version__, "service.instance.id": node}
        )
        spans = TracerProvider(resource=resource, shutdown_on_exit=False)
        spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")))
        records = LoggerProvider(resource=resource, shutdown_on_exit=False)
        records.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{endpoint}/v1/logs")))
        self._tracer = spans.get_tracer("conclave", __version__)
        self._logger = records.get_logger("conclave", __version__)
        self.closers: Sequence[Callable[[], object]] = (spans.shutdown, records.shutdown)
        """Functions that flush and end the two exporters. They block, so run them in threads."""

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[str]:
        return _Recorded(self._tracer.start_span(name, kind=SpanKind.SERVER, attributes=attributes))

    def post(self, attributes: Attributes) -> AbstractContextManager[str]:
        return _Recorded(self._tracer.start_span("post", kind=SpanKind.PRODUCER, attributes=attributes))

    def delivery(self, carrier: str, attributes: Attributes) -> AbstractContextManager[str]:
        parent = _propagator.extract({"traceparent": carrier}, Context())
        span = self._tracer.start_span("fan-out", parent, kind=SpanKind.CONSUMER, attributes=attributes)
        return _Recorded(span)

    def ids(self) -> tuple[str, str] | None:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)

    def log(self, event: Event) -> None:
        """Export a log event whose values are sanitized."""
        attributes = {name: value for name, value in event.items() if name not in _NOT_FIELDS and value is not None}
        if (error := event.get("exception")) is not None:
            attributes["exception.type"] = error["type"]
            attributes["exception.stacktrace"] = "\n".join(redaction.format_lines(error))
        level = str(event["level"])
        self._logger.emit(
            LogRecord(
                severity_text=level.upper(),
                severity_number=_SEVERITIES.get(level, SeverityNumber.UNSPECIFIED),
                body=str(event["event"]),
                attributes=attributes,
            )
        )


class _Recorded(AbstractContextManager[str]):
    """A span that is the current one inside the `with`. It records the type of an exception, never its text."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> str:
        self._token = attach(trace.set_span_in_context(self._span))
        context = self._span.get_span_context()
        if not context.trace_flags.sampled:
            return ""
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        detach(self._token)
        if isinstance(error, Refusal):
            self._span.set_attribute("conclave.refusal", error.code.value)
        if isinstance(error, Refusal) and error.code in _SERVER_ERRORS:
            self._span.set_status(Status(StatusCode.ERROR, error.code.value))
        elif isinstance(error, Exception) and not isinstance(error, ConclaveError):
            self._span.set_attribute("error.type", type(error).__qualname__)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _hide_header(record: logging.LogRecord) -> bool:
    """Replace the SDK's warning, which quotes a malformed header: it may be the collector's password."""
    record.msg = "a header for the collector is not NAME=VALUE with URL encoding; it is left out"
    record.args = ()
    return True

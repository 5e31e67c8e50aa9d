"""Logs: events with fields, on stderr, as text or as JSON. Values from peers cannot forge a line.

One pipeline serves this project's events and the libraries' records. It adds the bound fields (node, session), the
level, the time and the trace, sanitizes every value, hands the event to an exporter if there is one, and writes a line.
"""

import asyncio
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import orjson
import structlog
from aiohttp.http_exceptions import HttpProcessingError
from typing_extensions import override

from conclave.errors import ConfigError
from relay.observability import log_levels, redaction, tracing

Event = MutableMapping[str, Any]
Sink = Callable[[Event], None]

_LONGEST = 1000
"""The limit of one value, in characters."""
_EXPORTER_LIBRARIES = ("opentelemetry", "urllib3", "requests", "charset_normalizer")

_sink: Sink | None = None


class LateField:
    """A bound field whose value is read when an event is logged."""

    def __init__(self, read: Callable[[], str]) -> None:
        self.read = read

    @override
    def __repr__(self) -> str:
        return self.read()


def configure(*, verbose: bool = False) -> None:
    """Configure the logs of this process: JSON if CONCLAVE_LOG_FORMAT=json, else text; colours only on a terminal.

    `relay.observability.log_levels` decides on the level; libraries are logged from warnings on.

    Raises:
        ConfigError: CONCLAVE_LOG is not a level, or CONCLAVE_LOG_FORMAT not a format.
    """
    lowest = log_levels.level(os.environ, verbose=verbose)
    as_json = is_json(os.environ)
    structlog.configure(
        processors=[_drop]
        if lowest >= log_levels.OFF
        else [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace,
            _sanitize,
            _export,
            _json if as_json else _text(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(lowest, logging.CRITICAL)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_LibraryHandler()], level=max(logging.WARNING, lowest), force=True)
    logging.captureWarnings(True)
    server = logging.getLogger("aiohttp.server")
    server.filters = [_is_no_http_noise]
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)  # its warnings quote peers


def is_json(environment: Mapping[str, str]) -> bool:
    """Return True if CONCLAVE_LOG_FORMAT asks for JSON; the default is text.

    Raises:
        ConfigError: it is neither; the text lists the formats.
    """
    name = environment.get("CONCLAVE_LOG_FORMAT", "").strip()
    if name.lower() not in {"", "text", "json"}:
        raise ConfigError(f"invalid CONCLAVE_LOG_FORMAT `{name}` (expected text, json)")
    return name.lower() == "json"


def on_terminal() -> bool:
    """Return True if logs are text on a terminal, where a person also reads what the command line prints."""
    return not is_json(os.environ) and sys.stderr.isatty()


def export_to(sink: Sink | None) -> None:
    """Pass every later event to `sink` as well, except those of the exporter's own libraries. None ends that."""
    global _sink  # noqa: PLW0603 - one per process, as logging is
    _sink = sink


def bind_node(read: Callable[[], str]) -> None:
    """Add the node's name to all events of this task and of the tasks that it starts."""
    structlog.contextvars.bind_contextvars(node=LateField(read))


def bind_session(path: str, connection: str) -> None:
    """Add the session to all events of this task and of the tasks that it starts."""
    structlog.contextvars.bind_contextvars(path=path, connection=connection)


def log_uncaught(loop: asyncio.AbstractEventLoop) -> None:
    """Log exceptions that nothing catches, in the event loop or in a finaliser, without the values that they quote."""

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        what = re.split(r"[(<]", str(context.get("message", "")), maxsplit=1)[0].strip()
        structlog.get_logger().error("loop.error", what=what, exc_info=context.get("exception"))

    def report_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
        structlog.get_logger().error("unraisable", exc_info=unraisable.exc_value)

    loop.set_exception_handler(report)
    sys.unraisablehook = report_unraisable


# --- The pipeline ---


def _drop(_: Any, __: str, ___: Event) -> Event:
    raise structlog.DropEvent


def _add_trace(_: Any, __: str, event: Event) -> Event:
    ids = tracing.ids()
    if ids is not None:
        event["trace_id"], event["span_id"] = ids
    return event


def _sanitize(_: Any, __: str, event: Event) -> Event:
    """Read late fields, cut long values, and redact the exception."""
    error = _exception(event.pop("exc_info", None))
    event.pop("stack_info", None)
    for name, value in event.items():
        if isinstance(value, LateField):
            event[name] = value.read()
        elif not isinstance(value, str | int | float | bool | None):
            event[name] = _cut(repr(value))
        elif isinstance(value, str):
            event[name] = _cut(value)
    if error is not None:
        event["exception"] = redaction.redact(error)
    return event


def _exception(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    elif exc_info and not isinstance(exc_info, BaseException):
        exc_info = sys.exc_info()[1]
    return exc_info or None


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _export(_: Any, __: str, event: Event) -> Event:
    if _sink is not None and not str(event.get("logger", "")).startswith(_EXPORTER_LIBRARIES):
        _sink(event)
    return event


def _text() -> Any:
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    # repr of every string: a name with a line break or an escape sequence stays inside its field.
    console = structlog.dev.ConsoleRenderer(
        colors=colors, repr_native_str=True, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )

    def text(logger: Any, name: str, event: Event) -> str:
        event["event"] = _one_line(str(event.get("event", "")))
        error = event.pop("exception", None)
        line: str = console(logger, name, event)
        # The lines of a traceback are indented, so that none of them looks like an event.
        traceback = "".join(f"\n    {_one_line(each)}" for each in redaction.format_lines(error)) if error else ""
        return line + traceback

    return text


def _json(_: Any, __: str, event: Event) -> str:
    event = {**{first: event.pop(first, None) for first in ("timestamp", "level", "event")}, **event}
    try:
        text = orjson.dumps(event).decode()
    except TypeError:  # half a surrogate pair, or an integer of more than 64 bits
        text = json.dumps(event)
    return _one_line(text)


def _one_line(text: str) -> str:
    """Escape unprintable characters as JSON and Python do; a line of JSON keeps its meaning."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


# --- Records of libraries ---


class _LibraryHandler(logging.Handler):
    """Sends the records of the standard library's logging through the pipeline."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's mistake must not end in a trace on stderr with its values
            message = str(record.msg)
        levels = (each for each in (logging.CRITICAL, logging.ERROR) if each <= record.levelno)
        level = next(levels, logging.WARNING)
        structlog.get_logger().log(level, message, logger=record.name, exc_info=record.exc_info)


def _is_no_http_noise(record: logging.LogRecord) -> bool:
    """Drop the tracebacks that any peer can cause with a request that is not HTTP."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))

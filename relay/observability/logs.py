"""Logs: events with fields, on stderr, as text or as JSON. Values from peers cannot forge a line.

One pipeline for our own events and for what libraries say: the fields that are bound (node, session), the level, the
time, the trace; then every value is made fit to be shown; then the line is written, and handed to an exporter if there
is one.
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
"""How much of one value is logged, in characters."""
_EXPORTERS_OWN = ("opentelemetry", "urllib3", "requests", "charset_normalizer")

_sink: Sink | None = None


class Present:
    """A bound field whose value is looked up when a line is written."""

    def __init__(self, read: Callable[[], str]) -> None:
        self.read = read

    @override
    def __repr__(self) -> str:
        return self.read()


def configure(*, verbose: bool = False) -> None:
    """Set logging up for this process: JSON if CONCLAVE_LOG_FORMAT=json, else text; colours only on a terminal.

    How much is logged is decided by `relay.observability.log_levels`; libraries are heard from warnings on.

    Raises:
        ConfigError: CONCLAVE_LOG is not a level, or CONCLAVE_LOG_FORMAT not a form.
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
            _make_fit,
            _export,
            _json if as_json else _text(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(lowest, logging.CRITICAL)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Foreign()], level=max(logging.WARNING, lowest), force=True)
    logging.captureWarnings(True)
    server = logging.getLogger("aiohttp.server")
    server.filters = [_is_ours]
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)  # it warns of peers in their own words


def is_json(environment: Mapping[str, str]) -> bool:
    """Whether lines are JSON: what CONCLAVE_LOG_FORMAT says, else text.

    Raises:
        ConfigError: it is none of the words; the text lists them.
    """
    word = environment.get("CONCLAVE_LOG_FORMAT", "").strip()
    if word.lower() not in {"", "text", "json"}:
        raise ConfigError(f"invalid CONCLAVE_LOG_FORMAT `{word}` (expected text, json)")
    return word.lower() == "json"


def are_for_a_person() -> bool:
    """Whether lines are text on a terminal, with somebody before it who reads whatever else is printed there."""
    return not is_json(os.environ) and sys.stderr.isatty()


def export(sink: Sink | None) -> None:
    """Hand every event that is logged from now on to `sink` too; not those of the exporter's own libraries."""
    global _sink  # noqa: PLW0603 - one per process, as logging is
    _sink = sink


def bind_node(read: Callable[[], str]) -> None:
    """Have all that is logged from this task, and from those that it starts, name the node."""
    structlog.contextvars.bind_contextvars(node=Present(read))


def bind_session(path: str, connection: str) -> None:
    """Have all that is logged from this task, and from those that it starts, name the session."""
    structlog.contextvars.bind_contextvars(path=path, connection=connection)


def report_strays(loop: asyncio.AbstractEventLoop) -> None:
    """Log what nobody catches, in the event loop or in a finaliser, without the values that the usual words quote."""

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        what = re.split(r"[(<]", str(context.get("message", "")), maxsplit=1)[0].strip()
        structlog.get_logger().error("loop.error", what=what, exc_info=context.get("exception"))

    def report_unraisable(stray: "sys.UnraisableHookArgs") -> None:
        structlog.get_logger().error("unraisable", exc_info=stray.exc_value)

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


def _make_fit(_: Any, __: str, event: Event) -> Event:
    """Look up what is looked up late, cut what is too long, and describe the exception without its values."""
    error = _exception(event.pop("exc_info", None))
    event.pop("stack_info", None)
    for name, value in event.items():
        if isinstance(value, Present):
            event[name] = value.read()
        elif not isinstance(value, str | int | float | bool | None):
            event[name] = _cut(repr(value))
        elif isinstance(value, str):
            event[name] = _cut(value)
    if error is not None:
        event["exception"] = redaction.describe(error)
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
    if _sink is not None and not str(event.get("logger", "")).startswith(_EXPORTERS_OWN):
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
        fault = event.pop("exception", None)
        line: str = console(logger, name, event)
        # A trace has lines of its own, each set in, so that none of them looks like an event.
        below = "".join(f"\n    {_one_line(each)}" for each in redaction.lines(fault)) if fault else ""
        return line + below

    return text


def _json(_: Any, __: str, event: Event) -> str:
    event = {**{first: event.pop(first, None) for first in ("timestamp", "level", "event")}, **event}
    try:
        text = orjson.dumps(event).decode()
    except TypeError:  # half a surrogate pair, or an integer of more than 64 bits
        text = json.dumps(event)
    return _one_line(text)


def _one_line(text: str) -> str:
    """Write what is no visible character as JSON and Python do; a line of JSON keeps its meaning."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


# --- What libraries say ---


class _Foreign(logging.Handler):
    """Sends the records of the standard library's logging through our pipeline."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's mistake must not end in a trace on stderr with its values
            message = str(record.msg)
        steps = (each for each in (logging.CRITICAL, logging.ERROR) if each <= record.levelno)
        level = next(steps, logging.WARNING)
        structlog.get_logger().log(level, message, logger=record.name, exc_info=record.exc_info)


def _is_ours(record: logging.LogRecord) -> bool:
    """Keep out the traces that anybody can cause by sending what is not HTTP."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))

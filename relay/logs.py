"""Logs: events with fields, on stderr, as text or as JSON. Values from peers cannot forge a line."""

import logging
import os
import sys
from typing import Any

import orjson
import structlog
from aiohttp.http_exceptions import HttpProcessingError

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

# Traces without the values of variables: bodies, tokens and keys are among them.
_TRACES = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def configure(*, verbose: bool = False) -> None:
    """Set logging up for this process: JSON if CONCLAVE_LOG_FORMAT=json, else text; colours only on a terminal."""
    renderers = _renderers()
    structlog.configure(
        processors=[*_SHARED, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # The libraries' own words, warnings and worse, in the same form.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
            foreign_pre_chain=_SHARED,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("aiohttp.server").addFilter(_is_ours)


def _renderers() -> list[Any]:
    if os.environ.get("CONCLAVE_LOG_FORMAT", "").lower() == "json":
        return [_TRACES, structlog.processors.JSONRenderer(serializer=_json)]
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    # repr of every string: a name with a line break or an escape sequence stays inside its field.
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, repr_native_str=True, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )
    return [renderer]


def _json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=repr).decode()


def _is_ours(record: logging.LogRecord) -> bool:
    """Keep out the traces that anybody can cause by sending what is not HTTP."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))

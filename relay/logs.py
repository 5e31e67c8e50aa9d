"""Logs: events with fields, on stderr, as text or as JSON. Values from peers cannot forge a line."""

import logging
import os
import sys
from typing import Any

import orjson
import structlog


def _json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=repr).decode()


def configure(*, verbose: bool = False) -> None:
    """Set logging up for this process: JSON if CONCLAVE_LOG_FORMAT=json, else text; colours only on a terminal."""
    as_json = os.environ.get("CONCLAVE_LOG_FORMAT", "").lower() == "json"
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    renderer: Any = (
        structlog.processors.JSONRenderer(serializer=_json)
        if as_json
        # repr of every string: a name with a line break or an escape sequence stays inside its field.
        else structlog.dev.ConsoleRenderer(colors=colors, repr_native_str=True, pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.dict_tracebacks] if as_json else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )

"""Spans of logins, requests, posts and deliveries, across nodes. Without a tracer they cost nothing.

A trace begins with a login or a request. A post's trace continues where the message is delivered: its *carrier*, a W3C
traceparent, travels with the live message. Attributes never hold a body, a token or a key.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from relay.model.message import Message

Attributes = dict[str, str | int]


class Tracer(Protocol):
    """A recorder of spans. Entering a span returns its carrier, which is '' if the span is not sampled."""

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[str]:
        """Record a span, as a child of the current one or as a trace of its own."""

    def post(self, attributes: Attributes) -> AbstractContextManager[str]:
        """Record a post, as a child of the current span."""

    def delivery(self, carrier: str, attributes: Attributes) -> AbstractContextManager[str]:
        """Record a delivery of the message that was posted with `carrier`."""

    def ids(self) -> tuple[str, str] | None:
        """Return the ids of the current trace and span, as hexadecimal digits."""


class _NoSpan:
    """A span that is not recorded."""

    __slots__ = ()

    def __enter__(self) -> str:
        return ""

    def __exit__(self, *_: object) -> None:
        return None


_NO_SPAN = _NoSpan()
_tracer: Tracer | None = None
recording = False
"""True while spans are recorded. Live messages pass by here only then."""


def install(tracer: Tracer | None) -> None:
    """Record all later spans of this process with `tracer`, or none of them."""
    global _tracer, recording
    _tracer, recording = tracer, tracer is not None


def login() -> AbstractContextManager[str]:
    """Record a login, from the challenge to the session."""
    return _NO_SPAN if _tracer is None else _tracer.span("login", {})


def request(op: str, path: str) -> AbstractContextManager[str]:
    """Record a session's request."""
    if _tracer is None:
        return _NO_SPAN
    return _tracer.span(f"request {op}", {"conclave.op": op, "conclave.path": path})


def post(channel_id: str) -> AbstractContextManager[str]:
    """Record that a message is stored and published; the caller publishes the carrier with it."""
    return _NO_SPAN if _tracer is None else _tracer.post({"conclave.channel": channel_id})


def delivered(messages: Iterable[Message], channel_id: str, listeners: int) -> Iterable[Message]:
    """Yield the messages of a delivery. For a message with a carrier, the time until the next one is recorded."""
    return messages if _tracer is None else _recorded(_tracer, messages, channel_id, listeners)


def _recorded(tracer: Tracer, messages: Iterable[Message], channel_id: str, listeners: int) -> Iterable[Message]:
    for message in messages:
        if message.trace:
            attributes: Attributes = {
                "conclave.channel": channel_id,
                "conclave.message": message.id,
                "conclave.listeners": listeners,
            }
            with tracer.delivery(message.trace, attributes):
                yield message
        else:
            yield message


def ids() -> tuple[str, str] | None:
    """Return the ids of the current trace and span, or None without a recorded span."""
    return None if _tracer is None else _tracer.ids()

"""Spans: what happened when, across nodes. Nothing happens, and nothing is imported, until a tracer is installed.

A trace begins with a login or a request. A post's trace goes on where the message is delivered: its *carrier*, a W3C
traceparent, travels with the live message. Attributes never hold a body, a token or a key.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from relay.model.message import Message

Attributes = dict[str, str | int]


class Tracer(Protocol):
    """Who records spans. A span's `with` gives its carrier: '' if it is not recorded."""

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[str]:
        """Record what happens inside as a part of the present span, or as a trace of its own."""

    def post(self, attributes: Attributes) -> AbstractContextManager[str]:
        """Record a post, as the present span's part."""

    def delivery(self, carrier: str, attributes: Attributes) -> AbstractContextManager[str]:
        """Record a delivery of what was posted under `carrier`."""

    def ids(self) -> tuple[str, str] | None:
        """Return the present trace's id and the present span's, as hexadecimal digits."""


class _Nothing:
    """A span that nobody records."""

    __slots__ = ()

    def __enter__(self) -> str:
        return ""

    def __exit__(self, *_: object) -> None:
        return None


_NOTHING = _Nothing()
_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Have all spans of this process recorded from now on, or none."""
    global _tracer  # noqa: PLW0603 - one per process, as its logs are
    _tracer = tracer


def login() -> AbstractContextManager[str]:
    """Record a login, from the challenge to the session."""
    return _NOTHING if _tracer is None else _tracer.span("login", {})


def request(op: str, path: str) -> AbstractContextManager[str]:
    """Record a session's request of one kind."""
    if _tracer is None:
        return _NOTHING
    return _tracer.span(f"request {op}", {"conclave.op": op, "conclave.path": path})


def post(channel_id: str) -> AbstractContextManager[str]:
    """Record that a message is kept and published; the carrier is to go with it."""
    return _NOTHING if _tracer is None else _tracer.post({"conclave.channel": channel_id})


def delivered(messages: Sequence[Message], channel_id: str, listeners: int) -> Iterable[Message]:
    """Go through messages that are being handed out, recording for each that carries a trace what is done with it."""
    return messages if _tracer is None else _recorded(_tracer, messages, channel_id, listeners)


def _recorded(tracer: Tracer, messages: Sequence[Message], channel_id: str, listeners: int) -> Iterable[Message]:
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
    """Return the present trace's id and the present span's, if there is a span that is recorded."""
    return None if _tracer is None else _tracer.ids()

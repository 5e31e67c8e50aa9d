"""Requests for messages, with bodies as they are stored.

They stand in for Send, Whisper and History of `conclave.protocol.requests`: a body is converted once between the wire
and the log, in whichever version it comes and goes.
"""

import msgspec

from conclave.model import SessionPath
from relay.protocol.stored_body import StoredBody


class Post(msgspec.Struct, frozen=True):
    """Post a message; answered with `requests.Sent`."""

    channel: str
    body: StoredBody
    key: str | None = None


class Whisper(msgspec.Struct, frozen=True):
    """Send a message to one session; answered with `requests.Sent`."""

    to: SessionPath
    body: StoredBody
    key: str | None = None


class ReadHistory(msgspec.Struct, frozen=True):
    """Read a page of a channel's log; answered with `relay.redis.channel_log.LogPage`.

    `after` is a message's id, or a time in Unix milliseconds; positions are exclusive.
    """

    channel: str
    after: str | int | None = None
    before: str | None = None
    limit: int | None = None


class ReadSince(msgspec.Struct, frozen=True):
    """Read what is later than a time in Unix milliseconds, up to the end of a millisecond: v1's way to read a log.

    Answered with a list of `relay.model.message.Message`.
    """

    channel: str
    since_ms: int

"""Events: what a server sends without a request. v2 has all of them, v1 messages, whispers and roles."""

import msgspec

from conclave.protocol.body import Body


class Event(msgspec.Struct, frozen=True, tag_field="ev", omit_defaults=True):
    """Base of all events."""


class Message(Event, frozen=True, tag="message"):
    """A message in a channel that the session joined; never one of its own.

    `id` is its position in the channel, `ts` Unix milliseconds; a v1 server tells neither.
    """

    channel: str
    from_: str = msgspec.field(name="from")
    body: Body
    id: str | None = None
    ts: int | None = None


class Whispered(Event, frozen=True, tag="whisper"):
    """A message to this session. It is not stored."""

    from_: str = msgspec.field(name="from")
    body: Body
    id: str | None = None
    ts: int | None = None


class Left(Event, frozen=True, tag="left"):
    """The session has lost the channel: `kicked`, `banned`, `removed`, `deleted` or `private`."""

    channel: str
    reason: str


class Renamed(Event, frozen=True, tag="renamed"):
    """`channel` is called `to` from now on; the session stays in it."""

    channel: str
    to: str


class Gap(Event, frozen=True, tag="gap"):
    """Messages after the position `after`, and before the next message, are lost."""

    channel: str
    after: str


class Role(Event, frozen=True, tag="role"):
    """The role of the session's user: `admin` is true for admins of the server."""

    admin: bool


class Closing(Event, frozen=True, tag="closing"):
    """The last event. The code is that of the WebSocket close, `retry_after` in seconds.

    `error` is the code of the refusal (`conclave.errors.Code`), if a login was refused.
    """

    code: int
    reason: str
    retry_after: float | None = None
    error: str | None = None

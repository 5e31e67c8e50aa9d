"""What a server tells a session by itself: the events of protocol v2. v1 has messages, whispers and roles only."""

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
    """A message to this session; it is kept nowhere."""

    from_: str = msgspec.field(name="from")
    body: Body
    id: str | None = None
    ts: int | None = None


class Left(Event, frozen=True, tag="left"):
    """The session does not hear the channel any more: `kicked`, `banned`, `removed`, `deleted` or `private`."""

    channel: str
    reason: str


class Renamed(Event, frozen=True, tag="renamed"):
    """`channel` is called `to` from now on; the session still hears it."""

    channel: str
    to: str


class Gap(Event, frozen=True, tag="gap"):
    """Messages after the position `after`, and before the next one that comes, are lost."""

    channel: str
    after: str


class Role(Event, frozen=True, tag="role"):
    """Whether the session's user is an admin of the server now."""

    admin: bool


class Closing(Event, frozen=True, tag="closing"):
    """The last event. The code is that of the WebSocket close, `retry_after` in seconds.

    `error` is the code of the refusal (`conclave.errors.Code`), where it was a login that was refused.
    """

    code: int
    reason: str
    retry_after: float | None = None
    error: str | None = None

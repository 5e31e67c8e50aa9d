"""What every version of the protocol has in common on a connection: questions go out, answers and events come in.

An exchange is the pure half of a link: requests in, bytes out; bytes in, outcomes out. It knows one version's frames,
and nobody else on the client's side does. `Ticket` is whatever the caller wants back with the answer.
"""

from typing import Any, Generic, Protocol, TypeVar

import msgspec

from conclave.errors import Code, Refusal
from conclave.protocol.events import Event
from conclave.protocol.requests import Request

MESSAGE_BYTES = 16 * 1024 * 1024
"""The largest frame that a server takes or sends."""

CLOSED = "connection closed before a response arrived"

Ticket = TypeVar("Ticket")


class Answer(msgspec.Struct, Generic[Ticket], frozen=True):
    """The result of a request, or the refusal of it."""

    ticket: Ticket
    result: Any


class Received(msgspec.Struct, frozen=True):
    """Something that nobody asked for."""

    event: Event


class FollowUp(msgspec.Struct, frozen=True):
    """Send this at once: an answer has come, and the result needs another one."""

    data: bytes


class Ending(msgspec.Struct, frozen=True):
    """Why the server closed. `reason` is its sentence, None if it gave none; `shown` is what users see.

    `code` and `retry_after` are what `conclave.errors.LinkLost` says of them.
    """

    reason: str | None
    shown: str
    code: int | None = None
    retry_after: float | None = None


Outcome = Answer[Ticket] | Received | FollowUp


class Exchange(Protocol[Ticket]):
    """The requests that are open on one connection."""

    def ask(self, request: Request[Any], ticket: Ticket) -> bytes:
        """Note that `request` is asked now, and return what has to be sent for it, before anything else is.

        Raises:
            Refusal: if this version has no words for it, or the frame is larger than a server takes. Nothing is
                noted then.
            FrameError: if a value cannot be written at all, such as a string with a lone surrogate; likewise.
        """
        ...

    def receive(self, data: bytes) -> Outcome[Ticket] | None:
        """Tell what a message from the server means; None for one that means nothing.

        Raises:
            OutOfStep: if no later answer can be trusted; the connection has to be given up.
        """
        ...

    def open_tickets(self) -> list[Ticket]:
        """Return the tickets that were not answered yet, oldest first."""
        ...

    def closed(self, close: tuple[int, str] | None) -> Ending:
        """Say why the server ended the connection: what it said last, or what it did not.

        `close` is the code and the reason of its close frame, None if it just went away.
        """
        ...


def check_size(data: bytes) -> bytes:
    """Return `data` unchanged unless a server would drop the connection for it. Raises: Refusal."""
    if len(data) > MESSAGE_BYTES:
        raise Refusal(Code.TOO_LARGE, f"a frame of {len(data)} bytes exceeds the {MESSAGE_BYTES} byte cap")
    return data

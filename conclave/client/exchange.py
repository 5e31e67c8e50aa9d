"""The interface of an exchange: one version of the protocol on one connection, without I/O.

An exchange is the pure half of a link: requests in, bytes out; bytes in, outcomes out. It alone knows the frames of its
version. A ticket identifies a request; the caller chooses it and gets it back with the answer.
"""

from typing import Any, Generic, Protocol, TypeVar

import msgspec

from conclave.errors import Code, Refusal
from conclave.protocol.events import Event
from conclave.protocol.limits import FRAME_BYTES
from conclave.protocol.requests import Request

CLOSED = "connection closed before a response arrived"

Ticket = TypeVar("Ticket")


class Answer(msgspec.Struct, Generic[Ticket], frozen=True):
    """The result of a request, or its Refusal."""

    ticket: Ticket
    result: Any


class Received(msgspec.Struct, frozen=True):
    """An event: a message that answers no request."""

    event: Event


class FollowUp(msgspec.Struct, frozen=True):
    """Bytes to send immediately: the answer has come, and the result needs another one."""

    data: bytes


class Ending(msgspec.Struct, frozen=True):
    """The reason of a close. `reason` is the server's sentence, None if it gave none; `shown` is the text for users.

    `code` and `retry_after` are as in `conclave.errors.LinkLost`.
    """

    reason: str | None
    shown: str
    code: int | None = None
    retry_after: float | None = None


Outcome = Answer[Ticket] | Received | FollowUp


class Exchange(Protocol[Ticket]):
    """The requests that are open on one connection."""

    def ask(self, request: Request[Any], ticket: Ticket) -> bytes:
        """Register a request and return the bytes that have to be sent for it, before any others.

        Raises:
            Refusal: if this version cannot express it, or the frame is larger than a server accepts. Nothing is
                registered then.
            FrameError: if a value cannot be encoded, such as a string with a lone surrogate. Likewise.
        """
        ...

    def receive(self, data: bytes) -> Outcome[Ticket] | None:
        """Return the meaning of a message from the server; None for one without any.

        Raises:
            OutOfStep: if later answers cannot be matched with requests; the connection has to be closed.
        """
        ...

    def open_tickets(self) -> list[Ticket]:
        """Return the tickets of unanswered requests, oldest first."""
        ...

    def closed(self, close: tuple[int, str] | None) -> Ending:
        """Return the reason for the end of the connection.

        `close` is the code and the reason of the server's close frame, None if there was none.
        """
        ...


def check_size(data: bytes) -> bytes:
    """Return `data` unchanged if a server accepts a frame of its size. Raises: Refusal."""
    if len(data) > FRAME_BYTES:
        raise Refusal(Code.TOO_LARGE, f"a frame of {len(data)} bytes exceeds the {FRAME_BYTES} byte cap")
    return data

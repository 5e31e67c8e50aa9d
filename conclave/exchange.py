"""Which frame answers which request, on a connection whose frames carry no ids.

A v1 server answers requests one by one and in order, so the oldest open request and the next reply belong together, as
long as nothing was lost. That is checked: each request allows one kind of reply, for the channel it asked about. Any
other reply means that the two sides are out of step, and the only honest thing left is to give up the connection.

Pure: frames in, outcomes out. `Ticket` is whatever the caller wants back with the answer.
"""

from collections import deque
from typing import Generic, TypeVar

import msgspec

from conclave.closing import KILLS
from conclave.errors import LinkError, Refusal
from conclave.v1.admin import APPENDED, AclList, Audit, BanList, InviteCreate, InviteListOp, ServerInviteCreate
from conclave.v1.errors import display, refusal
from conclave.v1.frames import (
    Ack,
    Admin,
    AuditList,
    ChannelList,
    ChannelMsg,
    Error,
    Frame,
    History,
    InviteList,
    InviteToken,
    Join,
    Joined,
    Leave,
    ListChannels,
    ListMachines,
    ListUsers,
    MachineList,
    Ping,
    Pong,
    Presence,
    ReadSince,
    ServerInfo,
    Unauthorized,
    UserList,
    Whisper,
    Who,
    kind,
)

Ticket = TypeVar("Ticket")

Event = ChannelMsg | Whisper | ServerInfo
"""What a server sends by itself."""

_REPLY: dict[type, type] = {
    Join: Joined,
    Leave: Ack,
    Who: Presence,
    ListChannels: ChannelList,
    ListMachines: MachineList,
    ListUsers: UserList,
    ChannelMsg: Ack,
    Whisper: Ack,
    ReadSince: History,
    Ping: Pong,
    InviteCreate: InviteToken,
    InviteListOp: InviteList,
    AclList: UserList,
    BanList: UserList,
    ServerInviteCreate: InviteToken,
    Audit: AuditList,
}


CLOSED = "connection closed before a response arrived"
UNKNOWN_OPERATION = "the server does not know this operation (it needs conclave 0.4 or later)"


class Answer(msgspec.Struct, Generic[Ticket], frozen=True):
    """The reply to a request, or the refusal of it."""

    ticket: Ticket
    reply: Frame | Refusal


class Heard(msgspec.Struct, frozen=True):
    """Something that nobody asked for."""

    event: Event


class Ending(msgspec.Struct, frozen=True):
    """The server is about to close. `reason` is its sentence, `shown` the same as users see it."""

    reason: str
    shown: str


class OutOfStep(LinkError):
    """A reply that does not answer the oldest open request."""


class Exchange(Generic[Ticket]):
    """The requests that are open on one connection, oldest first."""

    def __init__(self) -> None:
        self._open: deque[tuple[Frame, Ticket]] = deque()

    def ask(self, request: Frame, ticket: Ticket) -> None:
        """Note that `request` is being sent now."""
        self._open.append((request, ticket))

    def open_tickets(self) -> list[Ticket]:
        return [ticket for _, ticket in self._open]

    def receive(self, frame: Frame) -> Answer[Ticket] | Heard | Ending | None:
        """Tell what a frame from the server means; None for one that means nothing.

        Raises:
            OutOfStep: if it answers a question that was not asked; no later answer can be trusted then.
        """
        if isinstance(frame, ChannelMsg | Whisper | ServerInfo):
            return Heard(frame)
        if isinstance(frame, Error):
            return self._error(frame)
        if self._open and _answers(frame, self._open[0][0]):
            return Answer(self._open.popleft()[1], frame)
        if isinstance(frame, Pong):
            return None
        asked = f"the answer to {kind(self._open[0][0])}" if self._open else "nothing"
        raise OutOfStep(f"unexpected response: expected {asked}, got {kind(frame)}")

    def closed(self, *, orderly: bool) -> str:
        """Say what it means that the server closed the connection without a word, in good order or not."""
        appended = any(isinstance(request, Admin) and isinstance(request.op, APPENDED) for request, _ in self._open)
        return UNKNOWN_OPERATION if orderly and appended else CLOSED

    def _error(self, frame: Error) -> Answer[Ticket] | Ending:
        """Tell a refusal from the announcement of a close: by its text, and because a ping is never refused."""
        killed = isinstance(frame.error, Unauthorized) and frame.error.message in KILLS
        if killed or not self._open or isinstance(self._open[0][0], Ping):
            return Ending(refusal(frame.error).message, display(frame.error))
        return Answer(self._open.popleft()[1], refusal(frame.error))


def _answers(frame: Frame, request: Frame) -> bool:
    question = request.op if isinstance(request, Admin) else request
    if type(frame) is not _REPLY.get(type(question), Ack):
        return False
    if isinstance(frame, Joined | History | Presence) and isinstance(question, Join | ReadSince | Who):
        return frame.channel == question.channel
    return True

"""The matching of replies and requests on a v1 connection, whose frames carry no ids.

A v1 server answers requests one by one and in order, so the next reply belongs to the oldest open request, as long as
nothing was lost. That is checked: each request allows one kind of reply, for the channel that it names. Any other reply
means that the two sides are out of step, and the connection has to be closed.
"""

import logging
from collections import deque
from typing import Any, Generic

from conclave.client.exchange import CLOSED, Answer, Ending, FollowUp, Outcome, Received, Ticket, check_size
from conclave.client.v1.history import HistoryRead, Numbering
from conclave.client.v1.pending import PendingMessage, PendingRequest, SingleRequest
from conclave.errors import FrameError, OutOfStep, Refusal, in_words
from conclave.model import SessionPath
from conclave.protocol import requests
from conclave.protocol.close_texts import KILLS
from conclave.protocol.events import Event, Message, Role, Whispered
from conclave.protocol.requests import Request
from conclave.protocol.v1 import frames
from conclave.protocol.v1.admin import APPENDED
from conclave.protocol.v1.bodies import body_of
from conclave.protocol.v1.codec import decode, encode
from conclave.protocol.v1.errors import refusal

UNKNOWN_OPERATION = "the server does not know this operation (it needs conclave 0.4 or later)"

_log = logging.getLogger(__name__)


class V1Exchange(Generic[Ticket]):
    """The requests that are open on one connection, oldest first."""

    def __init__(self, me: SessionPath) -> None:
        self._me = me
        self._open: deque[tuple[frames.Frame, PendingRequest, Ticket]] = deque()
        self._numbering = Numbering()
        self._last_error: Refusal | None = None

    def ask(self, request: Request[Any], ticket: Ticket) -> bytes:
        """See Exchange."""
        match request:
            case requests.History():
                return self._ask(HistoryRead(request, self._numbering), ticket)
            case requests.Send() | requests.Whisper():
                return self._ask(PendingMessage(request, self._me), ticket)
            case _:
                return self._ask(SingleRequest(request), ticket)

    def open_tickets(self) -> list[Ticket]:
        """See Exchange."""
        return [ticket for _, _, ticket in self._open]

    def receive(self, data: bytes) -> Outcome[Ticket] | None:
        """See Exchange."""
        try:
            frame = decode(data)
        except FrameError as error:
            if self._open:
                raise OutOfStep(f"undecodable response: {error}") from None
            # It cannot be a reply, so a frame of a newer server can be skipped.
            _log.debug("skipped an undecodable frame: %s", error)
            return None
        self._last_error = None
        event = _event(frame)
        if event is not None:
            return Received(event)
        if isinstance(frame, frames.Error):
            return self._error(frame)
        return self._reply(frame)

    def closed(self, close: tuple[int, str] | None) -> Ending:
        """See Exchange."""
        if self._last_error is not None:
            return Ending(self._last_error.message, in_words(self._last_error))
        appended = any(isinstance(sent, frames.Admin) and isinstance(sent.op, APPENDED) for sent, _, _ in self._open)
        return Ending(None, UNKNOWN_OPERATION if close is not None and appended else CLOSED)

    def _ask(self, request: PendingRequest, ticket: Ticket) -> bytes:
        frame = request.frame()
        data = check_size(encode(frame))
        self._open.append((frame, request, ticket))
        return data

    def _reply(self, frame: frames.Frame) -> Answer[Ticket] | FollowUp | None:
        if self._open and _answers(frame, *self._open[0][:2]):
            _, request, ticket = self._open.popleft()
            result = request.receive(frame)
            return FollowUp(self._ask(request, ticket)) if result is None else Answer(ticket, result)
        if isinstance(frame, frames.Pong):
            return None
        asked = f"the answer to {frames.kind(self._open[0][0])}" if self._open else "nothing"
        raise OutOfStep(f"unexpected response: expected {asked}, got {frames.kind(frame)}")

    def _error(self, frame: frames.Error) -> Answer[Ticket] | None:
        """Tell a refusal from the reason of a close: by its text, and because a ping is never refused.

        A refusal may announce a close, too: a server may end a session with a text that is not known here.
        """
        self._last_error = refusal(frame.error)
        killed = isinstance(frame.error, frames.Unauthorized) and frame.error.message in KILLS
        if killed or not self._open or isinstance(self._open[0][0], frames.Ping):
            return None
        return Answer(self._open.popleft()[2], self._last_error)


def _event(frame: frames.Frame) -> Event | None:
    match frame:
        case frames.ChannelMsg():
            return Message(channel=frame.channel, from_=str(frame.from_), body=body_of(frame.payload))
        case frames.Whisper():
            return Whispered(from_=str(frame.from_), body=body_of(frame.payload))
        case frames.ServerInfo():
            return Role(frame.admin)
        case _:
            return None


def _answers(frame: frames.Frame, sent: frames.Frame, request: PendingRequest) -> bool:
    if type(frame) is not request.reply:
        return False
    if isinstance(frame, frames.Joined | frames.History | frames.Presence) and isinstance(
        sent, frames.Join | frames.ReadSince | frames.Who
    ):
        return frame.channel == sent.channel
    return True

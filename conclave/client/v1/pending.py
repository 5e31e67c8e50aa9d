"""A request under way on a connection of v1: the frames to send for it, and the result of the replies.

Most requests are one frame and one reply, by the table in `conclave.protocol.v1.operations`. Messages are here, because
a client writes their bodies; History takes several frames (`conclave.client.v1.history`).
"""

from typing import Any, Protocol

from conclave.errors import Code, Refusal
from conclave.model import SessionPath
from conclave.protocol.body import payload_of
from conclave.protocol.requests import Request, Send, Sent, Whisper
from conclave.protocol.v1 import frames, operations


class PendingRequest(Protocol):
    """A request that has no result yet."""

    @property
    def reply(self) -> type[Any]:
        """The type of every reply."""
        ...

    def frame(self) -> frames.Frame:
        """Return the next frame to send. Raises: Refusal, for what v1 cannot express."""
        ...

    def receive(self, reply: Any) -> Any:
        """Take the reply to that frame. Returns the result, or None if `frame` has another one to send first."""
        ...


class SingleRequest:
    """A request of the table: one frame, one reply."""

    def __init__(self, request: Request[Any]) -> None:
        """Raises: Refusal, for a request that v1 does not have."""
        if type(request) not in operations.BY_REQUEST:
            tag = type(request).__struct_config__.tag
            raise Refusal(Code.MALFORMED, f"this server does not know `{tag}`: it speaks protocol v1 only")
        self._request = request
        self._operation = operations.BY_REQUEST[type(request)]
        self.reply = self._operation.reply

    def frame(self) -> frames.Frame:
        return operations.frame_of(self._request)

    def receive(self, reply: Any) -> Any:
        return self._operation.from_reply(self._request, reply)


class PendingMessage:
    """A post or a whisper. v1 has no `key`: a message that is sent again is posted again."""

    reply = frames.Ack

    def __init__(self, request: Send | Whisper, me: SessionPath) -> None:
        """`me` is the path of the session that sends."""
        self._request = request
        self._me = me

    def frame(self) -> frames.ChannelMsg | frames.Whisper:
        request = self._request
        if isinstance(request, Send):
            return frames.ChannelMsg(request.channel, self._me, payload_of(request.body))
        return frames.Whisper(self._me, _path(request.to), payload_of(request.body))

    def receive(self, _: frames.Ack) -> Sent:
        return Sent()


def _path(text: str) -> SessionPath:
    parts = text.split("/")
    if len(parts) != 3:  # noqa: PLR2004 - the three parts of a path
        raise Refusal(Code.MALFORMED, f"invalid session path: `{text}` (expected `user/machine/session`)")
    return SessionPath(*parts)

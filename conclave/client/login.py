"""The login, independent of the protocol's version: messages are exchanged until the session has its path."""

import asyncio
from typing import Any, Protocol, TypeVar

import msgspec

from conclave.client.exchange import CLOSED, Exchange
from conclave.client.websocket import BROKEN, WebSocket
from conclave.errors import ClosedLogin, Code, FrameError, LinkError, LoginRefused, Refusal, in_words
from conclave.protocol.events import Event


class LoggedIn(msgspec.Struct, frozen=True):
    """The session's path, the events that came during the login, and the exchange for the rest of the connection.

    `cluster` is the id that the login was signed for, None in v1. `heartbeat` is the interval in seconds after which a
    session that sends nothing else should send a ping, None if the server told none.
    """

    version: int
    path: str
    events: tuple[Event, ...]
    exchange: Exchange[Any]
    cluster: str | None = None
    heartbeat: float | None = None


End_co = TypeVar("End_co", covariant=True)
End = TypeVar("End")


class Login(Protocol[End_co]):
    """The client's side of one version's handshake, without I/O. It ends with a LoggedIn, or with an earlier result."""

    def opening(self) -> bytes:
        """Return the client's first message."""
        ...

    def receive(self, data: bytes) -> tuple[bytes, ...] | End_co:
        """Take a message from the server; return the messages that answer it, or the result of the login.

        Raises:
            Refusal: if the server refused the login.
            NotTrusted: if it is another server than the expected one.
            LinkError: if the message does not belong to a login.
            FrameError: if the message cannot be decoded.
        """
        ...


async def log_in(wire: WebSocket, login: Login[End], verb: str, deadline: float) -> End:
    """Conduct a login; each message from the server has `deadline` seconds. `verb` is for the text of a refusal.

    Raises:
        LoginRefused: if the server refuses.
        NotTrusted: if it is another server than the expected one; nothing was signed for it.
        LinkError: if it closes the connection, is not a relay or does not answer in time.
    """
    try:
        return await _converse(wire, login, deadline)
    except Refusal as error:
        prefix = "" if error.code is Code.VERSION else f"{verb} rejected: "
        code = error.close_code if isinstance(error, ClosedLogin) else None
        raise LoginRefused(prefix + in_words(error), error, code=code) from error
    except TimeoutError:
        raise LinkError(f"timed out after {deadline:g}s waiting for a server response") from None
    except FrameError as error:
        raise LinkError(f"undecodable response: {error}") from error
    except BROKEN as error:
        raise LinkError(f"websocket error: {error}") from error


async def _converse(wire: WebSocket, login: Login[End], deadline: float) -> End:
    answers: tuple[bytes, ...] = (login.opening(),)
    while True:
        for answer in answers:
            await wire.send(answer)
        async with asyncio.timeout(deadline):
            data = await wire.receive()
        if data is None:
            raise LinkError(CLOSED)
        step = login.receive(data)
        if not isinstance(step, tuple):
            return step
        answers = step

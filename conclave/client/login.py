"""Logging in, whatever the version of the protocol: bytes go back and forth until the session has its path."""

import asyncio
from typing import Any, Protocol, TypeVar

import msgspec

from conclave.client.exchange import CLOSED, Exchange
from conclave.client.websocket import BROKEN, WebSocket
from conclave.errors import ClosedLogin, Code, FrameError, LinkError, LoginRefused, Refusal, in_words
from conclave.protocol.events import Event


class LoggedIn(msgspec.Struct, frozen=True):
    """Who the session is, what it heard before the login was over, and the exchange that goes on from there.

    `cluster` is the id that the login was signed for, None where the version signs none. `heartbeat` is after how many
    seconds of its own silence the session should send a ping, None where the server does not tell.
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
    """The client's side of one version's handshake, pure as an exchange is. It ends with a LoggedIn, or earlier."""

    def opening(self) -> bytes:
        """Return what the client sends first."""
        ...

    def receive(self, data: bytes) -> tuple[bytes, ...] | End_co:
        """Take a message from the server; return what to send in answer to it, or the end of the login.

        Raises:
            Refusal: what the server refused.
            NotTrusted: if it is another server than the expected one.
            LinkError: if the server sent what has no place in a login.
            FrameError: if it sent what cannot be read.
        """
        ...


async def log_in(wire: WebSocket, login: Login[End], verb: str, deadline: float) -> End:
    """Conduct a login; each message from the server has `deadline` seconds. The `verb` is for the text of a refusal.

    Raises:
        LoginRefused: if the server refuses.
        NotTrusted: if it is another server than the expected one; nothing was signed for it.
        LinkError: if it goes away, is no relay or does not answer in time.
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

"""Logging in, whatever the version of the protocol: bytes go back and forth until the session has its path."""

import asyncio
from typing import Any, Protocol

import msgspec

from conclave.closing import LoginRefused, in_words
from conclave.errors import Code, FrameError, LinkError, Refusal
from conclave.events import Event
from conclave.exchange import CLOSED, Exchange
from conclave.wire import BROKEN, Wire


class LoggedIn(msgspec.Struct, frozen=True):
    """Who the session is, what it heard before the login was over, and the exchange that goes on from there."""

    version: int
    path: str
    events: tuple[Event, ...]
    exchange: Exchange[Any]


class Login(Protocol):
    """The client's side of one version's handshake, pure as an exchange is."""

    def opening(self) -> bytes:
        """Return what the client sends first."""
        ...

    def receive(self, data: bytes) -> tuple[bytes, ...] | LoggedIn:
        """Take a message from the server; return what to send in answer to it, or the end of the login.

        Raises:
            Refusal: what the server refused.
            LinkError: if the server sent what has no place in a login.
            FrameError: if it sent what cannot be read.
        """
        ...


async def log_in(wire: Wire, login: Login, verb: str, deadline: float) -> LoggedIn:
    """Conduct a login; each message from the server has `deadline` seconds. The `verb` is for the text of a refusal.

    Raises:
        LoginRefused: if the server refuses.
        LinkError: if it goes away, is no relay or does not answer in time.
    """
    try:
        return await _converse(wire, login, deadline)
    except Refusal as error:
        prefix = "" if error.code is Code.VERSION else f"{verb} rejected: "
        raise LoginRefused(prefix + in_words(error), error) from error
    except TimeoutError:
        raise LinkError(f"timed out after {deadline:g}s waiting for a server response") from None
    except FrameError as error:
        raise LinkError(f"undecodable response: {error}") from error
    except BROKEN as error:
        raise LinkError(f"websocket error: {error}") from error


async def _converse(wire: Wire, login: Login, deadline: float) -> LoggedIn:
    answers: tuple[bytes, ...] = (login.opening(),)
    while True:
        for answer in answers:
            await wire.send(answer)
        async with asyncio.timeout(deadline):
            data = await wire.receive()
        if data is None:
            raise LinkError(CLOSED)
        step = login.receive(data)
        if isinstance(step, LoggedIn):
            return step
        answers = step

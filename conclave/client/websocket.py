"""The client's WebSocket: messages of one kind, and the facts about the server from the upgrade's response."""

import asyncio
import logging
import os
import re
import ssl
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from conclave.errors import LinkError, UpgradeRefused
from conclave.protocol.limits import FRAME_BYTES

SERVER_ID_HEADER = "x-conclave-server-id"

BROKEN = (OSError, WebSocketException)
"""The exceptions of `WebSocket.send` on a broken connection."""

SECOND_ADDRESS_SECONDS = 0.25
"""The delay after which a host's next address is tried in parallel (RFC 8305, section 5)."""

_log = logging.getLogger(__name__)
_log.setLevel(logging.INFO)  # below that level the library logs the messages

_ERRNO = re.compile(r"\[Errno (\d+)\]")


class WebSocket:
    """One connection. `receive` has no deadline of its own; the caller sets it."""

    def __init__(self, socket: ClientConnection) -> None:
        """Take a connection that is up.

        Raises:
            LinkError: if the server gives several ids.
        """
        self._socket = socket
        self.subprotocol: str | None = socket.subprotocol
        """The subprotocol that the server selected; with one, messages are texts."""
        assert socket.response is not None  # noqa: S101 - it is connected
        headers = socket.response.headers
        ids = set(headers.get_all(SERVER_ID_HEADER))
        if len(ids) > 1:
            raise LinkError("the server tells several ids of itself")
        self.server_id = next(iter(ids), None)
        self._told_at = time.monotonic()
        self._told_ms = _date_ms(next(iter(headers.get_all("Date")), None))

    @classmethod
    async def dial(cls, url: str, deadline: float, close_deadline: float, subprotocols: tuple[str, ...] = ()) -> Self:
        """Connect, upgrade included, within `deadline` seconds; a close takes at most `close_deadline`.

        A server may select none of the `subprotocols`. The certificate and the name of a `wss://` server are checked
        against the system's certificates. Redirects are refused: only the dialled server may answer.

        Raises:
            UpgradeRefused: if the server answers, but not as a relay.
            LinkError: with the reason.
        """
        try:
            async with asyncio.timeout(deadline):
                socket = await _Dialled(
                    url,
                    subprotocols=[Subprotocol(each) for each in subprotocols] or None,
                    compression=None,  # bodies are short, and a compressor takes 300 KiB on either side
                    proxy=None,
                    open_timeout=None,
                    ping_interval=None,  # the protocol has a ping of its own, which the relay's idle clock hears
                    close_timeout=close_deadline,
                    max_size=FRAME_BYTES,
                    logger=_log,
                    happy_eyeballs_delay=SECOND_ADDRESS_SECONDS,
                )
        except TimeoutError:
            raise LinkError(f"timed out after {deadline:g}s connecting to `{url}`") from None
        except InvalidStatus as error:
            status = error.response.status_code
            raise UpgradeRefused(f"failed to connect to `{url}`: {_refused(status)}", status) from error
        except (OSError, WebSocketException, ValueError) as error:
            raise LinkError(f"failed to connect to `{url}`: {_cause(error)}") from error
        try:
            return cls(socket)
        except LinkError as error:
            await socket.close()
            raise LinkError(f"failed to connect to `{url}`: {error}") from None

    @property
    def closed(self) -> tuple[int, str] | None:
        """The code and the reason of the peer's close frame; None if there was none."""
        frame = self._socket.protocol.close_rcvd
        return None if frame is None else (int(frame.code), frame.reason)

    def server_ms(self) -> int:
        """Return Unix milliseconds by the server's clock: late by at most a second and the latency, never early."""
        if self._told_ms is None:
            return time.time_ns() // 1_000_000
        return self._told_ms + int((time.monotonic() - self._told_at) * 1000)

    async def send(self, data: bytes) -> None:
        await self._socket.send(data, text=self.subprotocol is not None)

    async def receive(self) -> bytes | None:
        """Return the next message; None when the connection has ended. In v1, text messages are skipped."""
        decode = None if self.subprotocol is None else False  # v2: the JSON decoder takes bytes
        try:
            while not isinstance(message := await self._socket.recv(decode=decode), bytes):
                pass
        except ConnectionClosed:
            return None
        return message

    async def close(self) -> None:
        """Close the connection; one that has ended already is no error."""
        await self._socket.close()


class _Dialled(connect):
    """A connection that follows no redirects."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def _date_ms(header: str | None) -> int | None:
    try:
        return None if header is None else int(parsedate_to_datetime(header).timestamp() * 1000)
    except ValueError:
        return None


def _cause(error: BaseException) -> str:
    if isinstance(error, OSError):
        return _system_reason(error)
    return str(error) or type(error).__name__


def _refused(status: int) -> str:
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return "the relay cannot serve sessions right now; try again in a few seconds"
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return "it redirects elsewhere; give the server's own URL"
    return f"the server answered with status {status}, not as a relay"


def _system_reason(error: OSError) -> str:
    """Return the system's error text: asyncio replaces it by its own, with one part for each address of the host."""
    if isinstance(error, ssl.SSLError):
        return str(error)
    if error.errno:
        return os.strerror(error.errno) if error.errno > 0 else error.strerror or str(error)
    numbers = set(_ERRNO.findall(str(error)))
    return os.strerror(int(numbers.pop())) if len(numbers) == 1 else str(error)

"""A client of protocol v1 as the original's are, for tests: raw frames over a real WebSocket, nothing of our client."""

import asyncio
import socket
from collections import deque
from typing import Self, TypeVar

import aiohttp
from nacl.signing import SigningKey

from conclave.model import Payload, Plain, SessionPath, Visibility
from conclave.protocol import v1
from conclave.protocol.v1 import admin, frames
from conclave.protocol.v1.errors import display

T = TypeVar("T", bound=frames.Frame)

PUSHED = (frames.ChannelMsg, frames.Whisper, frames.ServerInfo)


class Refused(Exception):
    """The server answered with an Error frame; the text is what the original's command line shows."""


class Peer:
    """One connection. Pushed frames are collected; every other frame answers the oldest open request."""

    def __init__(self, http: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse, server_id: str) -> None:
        self.ws = ws
        self.server_id = server_id
        self.path = SessionPath("", "", "")
        self.admin = False
        self.messages: list[frames.ChannelMsg] = []
        self.whispers: list[frames.Whisper] = []
        self.close_text: str | None = None
        """The text of an Error that answers no request: the reason of the close."""
        self._http = http
        self._waiting: deque[asyncio.Future[frames.Frame]] = deque()
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def dial(cls, url: str) -> Self:
        """Connect, without a login."""
        http = aiohttp.ClientSession()
        http._retry_connection = False  # aiohttp would silently try once more
        try:
            ws = await http.ws_connect(url, max_msg_size=0, compress=0, autoping=True)
            server_id = ws._response.headers["x-conclave-server-id"]
        except BaseException:
            await http.close()
            raise
        return cls(http, ws, server_id)

    @classmethod
    async def login(
        cls, url: str, key: SigningKey, session: str = "main", *, register: tuple[str, str] | None = None
    ) -> Self:
        """Connect and log in, or register. Raises: Refused."""
        peer = await cls.dial(url)
        try:
            await peer._shake_hands(key, session, register)
        except BaseException:
            await peer.close()
            raise
        peer._reading = asyncio.create_task(peer._read())
        return peer

    @classmethod
    async def register(cls, url: str, user: str, session: str = "main", machine: str = "laptop") -> Self:
        """Connect as a new user with a new key."""
        return await cls.login(url, SigningKey.generate(), session, register=(user, machine))

    async def _shake_hands(self, key: SigningKey, session: str, register: tuple[str, str] | None) -> None:
        await self.send(frames.Hello(1, session))
        challenge = await self.read(frames.Challenge)
        pubkey = bytes(key.verify_key)
        if register is not None:
            await self.send(frames.Register(*register, pubkey))
        await self.send(frames.Auth(pubkey, key.sign(challenge.nonce).signature))
        self.path = (await self.read(frames.Established)).path
        self.admin = (await self.read(frames.ServerInfo)).admin

    async def send(self, frame: frames.Frame) -> None:
        await self.ws.send_bytes(v1.encode(frame))

    async def read(self, expected: type[T]) -> T:
        """Return the next frame, for use before the login is complete. Raises: Refused."""
        message = await self.ws.receive(timeout=20)
        assert message.type is aiohttp.WSMsgType.BINARY, f"expected {expected.__name__}, got {message!r}"
        frame = v1.decode(message.data)
        if isinstance(frame, frames.Error):
            raise Refused(display(frame.error))
        assert isinstance(frame, expected), frame
        return frame

    async def _read(self) -> None:
        async for message in self.ws:
            if message.type is not aiohttp.WSMsgType.BINARY:
                break
            frame = v1.decode(message.data)
            if isinstance(frame, frames.ChannelMsg):
                self.messages.append(frame)
            elif isinstance(frame, frames.Whisper):
                self.whispers.append(frame)
            elif self._waiting:
                self._waiting.popleft().set_result(frame)
            elif isinstance(frame, frames.Error):
                self.close_text = display(frame.error)
        for waiting in self._waiting:
            waiting.set_exception(ConnectionResetError("closed before the reply"))
        self._waiting.clear()

    async def ask(self, request: frames.Frame, expected: type[T]) -> T:
        """Send a request and return its reply. Raises: Refused, ConnectionError."""
        reply: asyncio.Future[frames.Frame] = asyncio.get_running_loop().create_future()
        self._waiting.append(reply)
        await self.send(request)
        async with asyncio.timeout(20):
            frame = await reply
        if isinstance(frame, frames.Error):
            raise Refused(display(frame.error))
        assert isinstance(frame, expected), frame
        return frame

    async def refusal(self, request: frames.Frame) -> str:
        """Send a request that must be refused and return the text."""
        try:
            reply = await self.ask(request, frames.Ack)
        except Refused as refused:
            return str(refused)
        raise AssertionError(f"not refused: {reply}")

    # --- The requests that tests make over and over ---

    async def create(self, channel: str, visibility: Visibility = Visibility.PUBLIC) -> None:
        await self.ask(frames.Admin(admin.CreateChannel(channel, visibility)), frames.Ack)

    async def join(self, channel: str, token: str | None = None) -> None:
        await self.ask(frames.Join(channel, token), frames.Joined)

    async def post(self, channel: str, body: str | Payload) -> None:
        payload = Plain(body) if isinstance(body, str) else body
        await self.ask(frames.ChannelMsg(channel, SessionPath("x", "y", "z"), payload), frames.Ack)

    async def whisper(self, target: SessionPath, body: str) -> None:
        await self.ask(frames.Whisper(SessionPath("x", "y", "z"), target, Plain(body)), frames.Ack)

    async def who(self, channel: str | None = None) -> list[str]:
        return [str(path) for path in (await self.ask(frames.Who(channel), frames.Presence)).sessions]

    async def invite(self, channel: str, uses: int | None = None, seconds: int | None = None) -> str:
        token = await self.ask(frames.Admin(admin.InviteCreate(channel, uses, seconds)), frames.InviteToken)
        return token.token

    async def page(self, channel: str, since_ms: int = 0) -> tuple[frames.HistoryMessage, ...]:
        return (await self.ask(frames.ReadSince(channel, since_ms), frames.History)).messages

    async def history(self, channel: str) -> list[str]:
        """Page through everything by the original's rule, and return the bodies."""
        bodies: list[str] = []
        since = 0
        while page := await self.page(channel, since):
            bodies += [text(message.payload) for message in page]
            since = page[-1].ts_ms
        return bodies

    @property
    def bodies(self) -> list[str]:
        """Return the bodies of the messages received since the connection."""
        return [text(message.payload) for message in self.messages]

    async def wait_closed(self) -> str | None:
        """Wait until the server has closed, and return the reason."""
        assert self._reading is not None
        async with asyncio.timeout(20):
            await asyncio.shield(self._reading)
        return self.close_text

    @property
    def is_closed(self) -> bool:
        """Tell if either side has ended the connection."""
        return self._reading is None or self._reading.done()

    def stop_reading(self) -> None:
        """Stop reading, like a client that hangs, with a small buffer in the kernel."""
        assert self._reading is not None
        self._reading.cancel()
        connection = self.ws._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        assert isinstance(connection.transport, asyncio.Transport)
        connection.transport.pause_reading()

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        await self.ws.close()
        await self._http.close()

    def cut(self) -> None:
        """Drop the connection without a close."""
        transport = self.ws._response.connection.transport if self.ws._response.connection else None
        if transport is not None:
            transport.abort()


class RawSession:
    """A session whose replies are raw bytes, to be compared byte by byte."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    @classmethod
    async def register(cls, peers: "Peers", url: str, user: str) -> Self:
        peer = peers.keep(await Peer.dial(url))
        await peer._shake_hands(SigningKey.generate(), "main", (user, "laptop"))
        return cls(peer)

    async def ask(self, request: frames.Frame) -> bytes:
        await self._peer.send(request)
        data: bytes = await self._peer.ws.receive_bytes(timeout=10)
        return data


async def are_served(*peers: Peer) -> bool:
    """Tell if the node of each session answers requests."""
    try:
        for peer in peers:
            await peer.who()
    except Refused:
        return False
    return True


class Peers:
    """Logs peers in; `async with` closes them all at its end."""

    def __init__(self) -> None:
        self._peers: list[Peer] = []

    async def login(self, url: str, key: SigningKey, session: str = "main") -> Peer:
        return self.keep(await Peer.login(url, key, session))

    async def register(self, url: str, user: str, session: str = "main", machine: str = "laptop") -> Peer:
        return self.keep(await Peer.register(url, user, session, machine))

    async def register_creator(self, url: str, user: str, *channels: str) -> Peer:
        """Register a user that creates these channels and joins them."""
        peer = await self.register(url, user)
        for channel in channels:
            await peer.create(channel)
            await peer.join(channel)
        return peer

    def keep(self, peer: Peer) -> Peer:
        self._peers.append(peer)
        return peer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await asyncio.gather(*(peer.close() for peer in self._peers))


def text(payload: "Payload | frames.RawPayload") -> str:
    assert isinstance(payload, Plain), payload
    return payload.text

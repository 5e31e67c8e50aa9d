"""A client of protocol v2, for tests: JSON over a real WebSocket, written from the protocol's page, nothing of ours."""

import asyncio
import base64
import itertools
import json
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
from nacl.signing import SigningKey

Json = dict[str, Any]

LAST_TYPES = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.ERROR)


class V2Refused(Exception):
    """The server answered with an error."""

    def __init__(self, error: Json) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: str = error["code"]
        self.message: str = error["message"]
        self.retry_after: float | None = error.get("retry_after")


class V2Closed(Exception):
    """The server closed during the login."""

    def __init__(self, code: int | None, reason: str | None, event: Json | None) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.event = event or {}


class V2Peer:
    """One connection. Events are collected in the order in which they came; replies go by their number."""

    def __init__(self, http: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.path = ""
        self.ready: Json = {}
        self.events: list[Json] = []
        self.log: list[Json] = []
        """Replies and events, in the order in which they came."""
        self._http = http
        self._ids = itertools.count(1)
        self._waiting: dict[int | None, asyncio.Future[Json]] = {}
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def dial(cls, url: str) -> Self:
        """Connect, without a login."""
        http = aiohttp.ClientSession()
        http._retry_connection = False  # aiohttp would try once more without a word
        try:
            ws = await http.ws_connect(url, max_msg_size=0, compress=0, protocols=("conclave.v2",))
        except BaseException:
            await http.close()
            raise
        assert ws.protocol == "conclave.v2"
        return cls(http, ws)

    @classmethod
    async def login(
        cls,
        url: str,
        key: SigningKey,
        session: str = "main",
        *,
        register: tuple[str, str] | None = None,
        invite: str | None = None,
        origin: str | None = None,
    ) -> Self:
        """Connect and log in, or register. Raises: V2Closed."""
        peer = await cls.dial(url)
        try:
            await peer.hello(session, origin or origin_of(url))
            await peer.prove(key, origin or origin_of(url), register=register, invite=invite)
        except BaseException:
            await peer.close()
            raise
        peer._reading = asyncio.create_task(peer._read())
        return peer

    @classmethod
    async def register(cls, url: str, user: str, session: str = "main", machine: str = "laptop") -> Self:
        """Connect as a new user with a new key."""
        return await cls.login(url, SigningKey.generate(), session, register=(user, machine))

    async def hello(self, session: str, origin: str, **more: Any) -> Json:
        """Open a login and return the challenge."""
        await self.send({"op": "hello", "protocol": 2, "session": session, "origin": origin, "client": "test", **more})
        self.challenge = await self.read()
        return self.challenge

    async def prove(
        self,
        key: SigningKey,
        origin: str,
        *,
        register: tuple[str, str] | None = None,
        invite: str | None = None,
    ) -> None:
        """Answer the challenge. Raises: V2Closed."""
        purpose = "auth" if register is None else "register"
        proof: Json = {"op": purpose, **proof_of(key, purpose, origin, self.challenge)}
        if register is not None:
            proof |= {"user": register[0], "machine": register[1]}
        if invite is not None:
            proof["invite"] = invite
        await self.send(proof)
        self.ready = await self.read()
        assert self.ready["ev"] == "ready", self.ready
        self.path = self.ready["path"]

    async def send(self, message: Json) -> None:
        await self.ws.send_str(json.dumps(message, ensure_ascii=False))

    async def read(self) -> Json:
        """Return the next message, for use before the login is complete. Raises: V2Closed."""
        event: Json | None = None
        while True:
            message = await self.ws.receive(timeout=20)
            if message.type in LAST_TYPES:
                raise V2Closed(self.ws.close_code, message.extra, event)
            assert message.type is aiohttp.WSMsgType.TEXT, message
            event = json.loads(message.data)
            assert isinstance(event, dict)
            if event.get("ev") != "closing":
                return event

    async def _read(self) -> None:
        async for message in self.ws:
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            frame: Json = json.loads(message.data)
            self.log.append(frame)
            if "ev" in frame:
                self.events.append(frame)
                continue
            waiting = self._waiting.pop(frame["re"], None)
            if waiting is not None and not waiting.done():
                waiting.set_result(frame)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("closed before the reply"))
        self._waiting.clear()

    async def raw(self, text: str, number: int | None) -> Json:
        """Send a text and return the reply with this number, errors included."""
        reply: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        try:
            await self.ws.send_str(text)
            async with asyncio.timeout(20):
                return await reply
        finally:
            if self._waiting.get(number) is reply:
                del self._waiting[number]

    async def ask(self, op: str, **fields: Any) -> Json:
        """Send a request and return its result. Raises: V2Refused, ConnectionError."""
        if self.is_closed:
            raise ConnectionResetError("closed")
        number = next(self._ids)
        reply = await self.raw(json.dumps({"id": number, "op": op, **fields}, ensure_ascii=False), number)
        if "error" in reply:
            raise V2Refused(reply["error"])
        del reply["re"]
        return reply

    async def refusal(self, op: str, **fields: Any) -> str:
        """Send a request that must be refused; returns its code and text."""
        try:
            reply = await self.ask(op, **fields)
        except V2Refused as refused:
            return str(refused)
        raise AssertionError(f"not refused: {reply}")

    # --- The requests that tests make over and over ---

    async def create(self, channel: str, visibility: str = "public") -> None:
        await self.ask("channel.create", channel=channel, visibility=visibility)

    async def join(self, channel: str, **more: Any) -> Json:
        return await self.ask("join", channel=channel, **more)

    async def post(self, channel: str, text: str, **more: Any) -> str:
        """Post a text and return its id."""
        sent = await self.ask("send", channel=channel, body={"text": text}, **more)
        return str(sent["id"])

    async def history(self, channel: str) -> list[Json]:
        """Page through everything, forwards."""
        rows: list[Json] = []
        after = "0-0"
        while True:
            page = await self.ask("history", channel=channel, after=after, limit=500)
            rows += page["messages"]
            if not page["more"]:
                return rows
            after = rows[-1]["id"]

    def messages_in(self, channel: str) -> list[Json]:
        """Return the message events of a channel, in the order in which they came."""
        return [event for event in self.events if event["ev"] == "message" and event["channel"] == channel]

    def ids(self, channel: str) -> list[str]:
        return [event["id"] for event in self.messages_in(channel)]

    def texts(self, channel: str) -> list[str]:
        return [event["body"]["text"] for event in self.messages_in(channel)]

    def of(self, kind: str) -> list[Json]:
        return [event for event in self.events if event["ev"] == kind]

    async def wait_closed(self) -> tuple[int | None, Json]:
        """Wait until the server has closed; returns the code and the last event."""
        assert self._reading is not None
        async with asyncio.timeout(30):
            await asyncio.shield(self._reading)
        return self.ws.close_code, self.events[-1] if self.events else {}

    @property
    def is_closed(self) -> bool:
        return self._reading is None or self._reading.done()

    def pause(self) -> None:
        """Stop reading; arriving data stays in the kernel."""
        self._transport().pause_reading()

    def resume(self) -> None:
        self._transport().resume_reading()

    def _transport(self) -> asyncio.Transport:
        connection = self.ws._response.connection
        assert connection is not None
        assert isinstance(connection.transport, asyncio.Transport)
        return connection.transport

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        await self.ws.close()
        await self._http.close()

    async def cut(self) -> None:
        """Drop the connection without a close."""
        if self._reading is not None:
            self._reading.cancel()
        connection = self.ws._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self.ws._response.close()
        await self._http.close()


class V2Peers:
    """Logs peers in; `async with` closes them all at its end."""

    def __init__(self) -> None:
        self._peers: list[V2Peer] = []

    async def register(self, url: str, user: str, session: str = "main") -> V2Peer:
        return self.keep(await V2Peer.register(url, user, session))

    async def login(self, url: str, key: SigningKey, session: str = "main", **more: Any) -> V2Peer:
        return self.keep(await V2Peer.login(url, key, session, **more))

    def keep(self, peer: V2Peer) -> V2Peer:
        self._peers.append(peer)
        return peer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await asyncio.gather(*(peer.close() for peer in self._peers))


def proof_of(key: SigningKey, purpose: str, origin: str, challenge: Json) -> Json:
    """Return the key and the signature that answer a challenge."""
    signed = f"conclave.v2\n{purpose}\n{challenge['cluster']}\n{origin}\n".encode() + unb64(challenge["nonce"])
    return {"pubkey": b64(bytes(key.verify_key)), "signature": b64(key.sign(signed).signature)}


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

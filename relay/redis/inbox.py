"""What nodes tell each other: one stream per node, read from the last entry on, so that a signal survives an outage."""

import asyncio
from collections.abc import Callable

import msgspec
import structlog
from redis.asyncio.connection import AbstractConnection

from relay.model.errors import StoreUnavailable
from relay.redis.client import BROKEN, RedisClient
from relay.redis.keys import Keys

log = structlog.get_logger()

_RETRY_SECONDS = 0.1
_BLOCK_MS = 5_000
_ENTRIES = 128
_TTL_SECONDS = 3600


class Supersede(msgspec.Struct, frozen=True, tag="supersede"):
    """A later connection took this connection's path."""

    connection: str


class Revoke(msgspec.Struct, frozen=True, tag="revoke"):
    """A key was revoked, by itself or with its user: its sessions end. `reason` is `revoked` or `user_removed`."""

    pubkey: str
    reason: str


class Whisper(msgspec.Struct, frozen=True, tag="whisper"):
    """A message for one connection. `ts` is by Redis' clock (ms); 0 stands for when it came into the inbox.

    `repeatable` tells that it may come twice: its sender could not learn whether it was sent.
    """

    connection: str
    sender: str
    target: str
    payload: bytes
    id: str = ""
    ts: int = 0
    repeatable: bool = False


Signal = Supersede | Revoke | Whisper

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Signal).decode


class Inbox:
    """Sending to any node's inbox and reading one's own."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._node = ""
        self._position = "0-0"
        self._connection: AbstractConnection | None = None

    async def switch_to(self, node: str) -> None:
        """Read this node's inbox, from its first entry on, instead of the one before."""
        self._node = node
        self._position = "0-0"
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    async def send(self, node: str, signal: Signal) -> int:
        """Put a signal into a node's inbox; returns when, in milliseconds of Redis' clock. Raises: StoreUnavailable."""
        inbox = self._keys.inbox(node)
        entry, _ = await asyncio.gather(
            self._client.call("XADD", inbox, "*", "s", _encode(signal)),
            self._client.call("EXPIRE", inbox, _TTL_SECONDS),  # a dead node's inbox has nobody who removes it
        )
        return _ms(bytes(entry).decode())

    async def broadcast(self, nodes: set[str], signal: Signal) -> None:
        """Put a signal into the inboxes of all these nodes. Raises: StoreUnavailable."""
        await asyncio.gather(*(self.send(node, signal) for node in nodes))

    async def trim(self) -> None:
        """Let go of what has been handled. Raises: StoreUnavailable."""
        await self._client.call("XTRIM", self._keys.inbox(self._node), "MINID", self._position)

    async def serve(self, handle: Callable[[Signal], None]) -> None:
        """Hand every signal for this node to `handle`, each once and in order, until cancelled."""
        lost = False
        while True:
            try:
                self._connection = await self._client.connection()
                if lost:
                    lost = False
                    self._client.count_reconnect()
                try:
                    await self._read(self._connection, handle)
                except (*BROKEN, StoreUnavailable):
                    lost = True
                    self._client.count_error()
                    raise
                finally:
                    connection, self._connection = self._connection, None
                    await connection.disconnect(nowait=True)
            except (*BROKEN, StoreUnavailable) as error:
                log.debug("inbox.lost", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _read(self, connection: AbstractConnection, handle: Callable[[Signal], None]) -> None:
        while True:
            node = self._node
            command = ("XREAD", "BLOCK", _BLOCK_MS, "COUNT", _ENTRIES, "STREAMS", self._keys.inbox(node))
            await connection.send_command(*command, self._position)
            async with asyncio.timeout(_BLOCK_MS / 1000 * 2):  # a server that answers neither way is gone
                reply = await connection.read_response()
            if node != self._node:
                continue
            for _, entries in reply or ():
                for entry_id, fields in entries:
                    self._position = bytes(entry_id).decode()
                    handle(_dated(_decode(fields[1]), _ms(self._position)))


def _dated(signal: Signal, ms: int) -> Signal:
    return msgspec.structs.replace(signal, ts=ms) if isinstance(signal, Whisper) and not signal.ts else signal


def _ms(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])

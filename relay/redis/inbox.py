"""Signals between nodes: each node reads a stream of its own from the last entry on, so a signal survives an outage."""

import asyncio
from collections.abc import Callable

import msgspec
import structlog
from redis.asyncio.connection import AbstractConnection

from relay.model.errors import StoreUnavailable
from relay.redis.client import RedisClient
from relay.redis.failures import CONNECTION_ERRORS, RECONNECT_SECONDS
from relay.redis.keys import Keys

log = structlog.get_logger()

_BLOCK_MS = 5_000
_ENTRIES = 128
_TTL_SECONDS = 3600


class Supersede(msgspec.Struct, frozen=True, tag="supersede"):
    """A later connection took the path of this connection."""

    connection: str


class Revoke(msgspec.Struct, frozen=True, tag="revoke"):
    """A key was revoked, alone or with its user: its sessions end. `reason` is `revoked` or `user_removed`."""

    pubkey: str
    reason: str


class Whisper(msgspec.Struct, frozen=True, tag="whisper"):
    """A message for one connection. `ts` is in milliseconds of Redis' clock; 0 stands for the time of the inbox entry.

    A `repeatable` whisper may arrive twice: its sender may not have learned that the first attempt succeeded.
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
    """Sends to the inbox of any node, and reads that of this node."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._node = ""
        self._position = "0-0"
        self._connection: AbstractConnection | None = None

    async def switch_to(self, node: str) -> None:
        """Read the inbox of this name of the node from now on, from its first entry."""
        self._node = node
        self._position = "0-0"
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    async def send(self, node: str, signal: Signal) -> int:
        """Put a signal into a node's inbox. Returns the time (ms of Redis' clock). Raises: StoreUnavailable."""
        inbox = self._keys.inbox(node)
        entry, _ = await asyncio.gather(
            self._client.call("XADD", inbox, "*", "s", _encode(signal)),
            self._client.call("EXPIRE", inbox, _TTL_SECONDS),  # nothing else removes the inbox of a dead node
        )
        return _ms(bytes(entry).decode())

    async def broadcast(self, nodes: set[str], signal: Signal) -> None:
        """Put a signal into the inboxes of all these nodes. Raises: StoreUnavailable."""
        await asyncio.gather(*(self.send(node, signal) for node in nodes))

    async def trim(self) -> None:
        """Remove the signals that were handled from this node's inbox. Raises: StoreUnavailable."""
        await self._client.call("XTRIM", self._keys.inbox(self._node), "MINID", self._position)

    async def serve(self, handle: Callable[[Signal], None]) -> None:
        """Pass every signal for this node to `handle`, each once and in order, until cancelled."""
        lost = False
        while True:
            try:
                self._connection = await self._client.connection()
                if lost:
                    lost = False
                    self._client.count_reconnect()
                try:
                    await self._read(self._connection, handle)
                except (*CONNECTION_ERRORS, StoreUnavailable):
                    lost = True
                    self._client.count_error()
                    raise
                finally:
                    connection, self._connection = self._connection, None
                    await connection.disconnect(nowait=True)
            except (*CONNECTION_ERRORS, StoreUnavailable) as error:
                log.debug("inbox.lost", error=str(error))
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _read(self, connection: AbstractConnection, handle: Callable[[Signal], None]) -> None:
        while True:
            node = self._node
            command = ("XREAD", "BLOCK", _BLOCK_MS, "COUNT", _ENTRIES, "STREAMS", self._keys.inbox(node))
            await connection.send_command(*command, self._position)
            async with asyncio.timeout(_BLOCK_MS / 1000 * 2):  # a server that does not even answer with nothing is gone
                reply = await connection.read_response()
            if node != self._node:
                continue
            for _, entries in reply or ():
                for entry_id, fields in entries:
                    self._position = bytes(entry_id).decode()
                    handle(_with_time(_decode(fields[1]), _ms(self._position)))


def _with_time(signal: Signal, ms: int) -> Signal:
    return msgspec.structs.replace(signal, ts=ms) if isinstance(signal, Whisper) and not signal.ts else signal


def _ms(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])

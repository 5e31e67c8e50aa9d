"""The inboxes of nodes: each node reads a stream of its own, so a signal survives an outage.

A node opens its inbox when it joins the cluster, and keeps it open. It remembers no position across connections: the
ids of another server may be earlier ones, so a new connection reads the inbox from its beginning, and skips what was
handled. Handled signals are removed over the connection that has read them (docs/decisions/0015).
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec
import structlog
from redis.asyncio.connection import AbstractConnection

from relay.model.errors import StoreUnavailable
from relay.redis import scripts
from relay.redis.connection import Reply
from relay.redis.failures import CONNECTION_ERRORS, RECONNECT_SECONDS, failed_connection
from relay.redis.keys import Keys
from relay.redis.node_names import signals_version
from relay.redis.receipts import Answers, PendingReceipts
from relay.redis.signals import FIELD, HandledSignals, Receipts, Signal, Whisper, decoded, encoded
from relay.redis.store import Store

log = structlog.get_logger()

_BLOCK_MS = 200
_PROMPT_SECONDS = 0.5
"""A read that took longer was held up: the next one does not wait for signals."""
_CURRENT_SECONDS = 1.0
"""What was put into the inbox longer ago than that is known to be handled, unless the node was held up."""
_REPLY_SECONDS = 10.0
_KEEP_SECONDS = 2.0
_CATCH_UP_SECONDS = 3.0
_RECEIPT_SECONDS = 3.0
_ENTRIES = 128
_TTL_SECONDS = 3600
_BEGINNING = "0-0"
_UNREAD = "the inbox of this node cannot be read"
_ANSWERING_VERSION = 2

Handler = Callable[[Signal], bool]
"""Acts on a signal. Returns whether there was a session that it concerns."""

Outcome = Literal["taken", "gone", "closed", "unknown"]
"""What became of a whisper: it is in the session's outbox; the session has ended; the node has no open inbox; the node
has not answered, so it is not known."""


class Delivery(msgspec.Struct, frozen=True):
    """The outcome of a whisper, and the time at which it was put into the inbox (ms of Redis' clock)."""

    outcome: Outcome
    ms: int = 0


class Inbox:
    """Sends to the inbox of any node, and reads that of this node."""

    def __init__(self, client: Store, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._node = ""
        self._handle: Handler = _nobody
        self._on_lost: Callable[[], None] = _nothing
        self._handled = HandledSignals()
        self._pending = PendingReceipts()
        self._answers = Answers()
        self.current_until = 0.0
        """The `time.monotonic` until which `is_current`."""
        self._catching_up: list[asyncio.Future[None]] = []
        self._gave_up = False
        """True if a wait for the inbox was in vain, and it was not read since."""

    async def switch_to(self, node: str) -> None:
        """Open the inbox of this name of the node, and read it from now on. Raises: StoreUnavailable."""
        await self._client.run(scripts.INBOX_KEEP, [self._keys.inbox(node)], _BEGINNING, _TTL_SECONDS)
        self._node = node

    async def close(self, node: str) -> None:
        """Handle what is left in an inbox of this node, and close it. Raises: StoreUnavailable."""
        position = _BEGINNING
        while entries := await self._client.run(scripts.INBOX_CLOSE, [self._keys.inbox(node)], position, _ENTRIES):
            position = self._take_all(entries)

    # --- Sending ---

    async def send(self, node: str, signal: Signal) -> int | None:
        """Put a signal into a node's inbox. Returns the time (ms of Redis' clock); None if the node has no open inbox.

        Raises: StoreUnavailable.
        """
        inbox, data = self._keys.inbox(node), encoded(signal)
        if signals_version(node) >= _ANSWERING_VERSION:
            entry = await self._client.run(scripts.INBOX_SEND, [inbox], data, int(not isinstance(signal, Whisper)))
            return None if entry is None else _ms(entry)
        entry, _ = await asyncio.gather(
            self._client.call("XADD", inbox, "*", FIELD, data),
            self._client.call("EXPIRE", inbox, _TTL_SECONDS),  # nothing else removes the inbox of a dead node
        )
        return _ms(entry)

    async def broadcast(self, nodes: set[str], signal: Signal) -> None:
        """Put a signal into the inboxes of all these nodes. Raises: StoreUnavailable."""
        await asyncio.gather(*(self.send(node, signal) for node in nodes))

    async def whisper(self, node: str, whisper: Whisper) -> Delivery:
        """Put a whisper into a node's inbox, and wait until the node says what became of it, for three seconds.

        A node of version 1 says nothing: what is in its inbox counts as taken. Raises: StoreUnavailable.
        """
        if signals_version(node) < _ANSWERING_VERSION:
            return Delivery("taken", await self.send(node, whisper) or 0)
        with self._pending.expect() as (receipt, answer):
            ms = await self.send(node, msgspec.structs.replace(whisper, receipt=receipt, reply_to=self._node))
            if ms is None:
                return Delivery("closed")
            try:
                async with asyncio.timeout(_RECEIPT_SECONDS):
                    return Delivery("taken" if await answer else "gone", ms)
            except TimeoutError:
                return Delivery("unknown", ms)

    # --- Reading ---

    @property
    def is_current(self) -> bool:
        """Whether all signals are handled that came more than a second ago.

        They are not if the process was stopped, or starved, or does not reach its inbox.
        """
        return time.monotonic() <= self.current_until

    async def catch_up(self) -> None:
        """Wait until `is_current`, for three seconds. Raises StoreUnavailable if the inbox cannot be read.

        Those that come after a wait in vain do not wait, and nobody waits while Redis is away.
        """
        if self.is_current:
            return
        if self._gave_up or not self._client.is_up:
            raise StoreUnavailable(_UNREAD)
        current: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._catching_up.append(current)
        try:
            async with asyncio.timeout(_CATCH_UP_SECONDS):
                await current
        except TimeoutError:
            self._gave_up = True
            raise StoreUnavailable(_UNREAD) from None
        finally:
            self._catching_up.remove(current)

    async def serve(self, handle: Handler, on_lost: Callable[[], None]) -> None:
        """Pass every signal for this node to `handle`, each once and in order, until cancelled.

        `on_lost` is called when Redis has lost the inbox, and it is open again: nobody could send a signal meanwhile.
        """
        self._handle, self._on_lost = handle, on_lost
        lost = False
        while True:
            try:
                connection = await self._client.connection(self._keys.inbox(self._node))
                if lost:
                    lost = False
                    self._client.count_reconnect()
                try:
                    await self._read(connection)
                except (*CONNECTION_ERRORS, StoreUnavailable):
                    lost = True
                    self._client.count_error()
                    raise
                finally:
                    await connection.disconnect(nowait=True)
            except (*CONNECTION_ERRORS, StoreUnavailable) as error:
                log.debug("inbox.lost", error=failed_connection(error).why)
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _read(self, connection: AbstractConnection) -> None:
        """Read over a connection, from the beginning of the inbox on, until the connection is lost."""
        node, position, keep_at, prompt = "", _BEGINNING, 0.0, False
        while True:
            asked = time.monotonic()
            if node != self._node or asked >= keep_at:
                position = _BEGINNING if node != self._node else position
                node, keep_at = self._node, asked + _KEEP_SECONDS
                if not await self._keep(connection, node, position):
                    position = _BEGINNING
            block = ("BLOCK", _BLOCK_MS) if prompt else ()
            await connection.send_command(
                "XREAD", *block, "COUNT", _ENTRIES, "STREAMS", self._keys.inbox(node), position
            )
            reply = await _response(connection)
            entries = reply[0][1] if reply else ()
            if entries:
                position = self._take_all(entries)
            prompt = time.monotonic() - asked <= _PROMPT_SECONDS
            if len(entries) < _ENTRIES and node == self._node:
                self._set_current(asked)

    async def _keep(self, connection: AbstractConnection, node: str, position: str) -> bool:
        """Keep the inbox open, and remove what was handled. Returns False if it was lost, and is open again."""
        await connection.send_command(
            *("EVAL", scripts.INBOX_KEEP.text, 1, self._keys.inbox(node), _following(position), _TTL_SECONDS)
        )
        found = bool(await _response(connection))
        if position != _BEGINNING:
            self._handled.end_round()
        if not found:
            log.warning("inbox.reopened", node=node)
            self._on_lost()
        return found

    def _set_current(self, asked: float) -> None:
        """Take note that everything was handled that was in the inbox at this time."""
        self.current_until = asked + _CURRENT_SECONDS
        if self.is_current:
            self._gave_up = False
            for waiting in self._catching_up:
                if not waiting.done():
                    waiting.set_result(None)

    # --- Handling ---

    def _take_all(self, entries: Iterable[tuple[bytes, list[bytes]]]) -> str:
        """Handle entries, and answer the whispers among them. Returns the id of the last one."""
        position = _BEGINNING
        for entry_id, fields in entries:
            position = bytes(entry_id).decode()
            if self._handled.is_new(entry_id, fields):
                self._take(decoded(fields, _ms(entry_id)))
        for node, receipts in self._answers.take():
            self._answer(node, receipts)
        return position

    def _take(self, signal: Signal | None) -> None:
        if signal is None:
            self._client.unreadable.count("inbox")
        elif isinstance(signal, Receipts):
            self._settle(signal)
        else:
            try:
                taken = self._handle(signal)
            except Exception:
                log.exception("signal.failed")
                return
            if isinstance(signal, Whisper):
                self._answers.add(signal, taken=taken)

    def _settle(self, receipts: Receipts) -> Receipts:
        """End the waits for receipts. Returns those that nobody here waits for."""
        taken = self._pending.settle(receipts.taken, taken=True)
        return Receipts(taken, self._pending.settle(receipts.gone, taken=False))

    def _answer(self, node: str, receipts: Receipts) -> None:
        """Tell a node what became of its whispers; nothing is sent about those that came from this node."""
        others = self._settle(receipts)
        if others.taken or others.gone:
            sending = self._client.run(scripts.INBOX_SEND, [self._keys.inbox(node)], encoded(others), 1)
            sending.add_done_callback(_note_failure)


async def _response(connection: AbstractConnection) -> Reply:
    """Read a reply. Raises TimeoutError if there is none: a server that does not even answer with nothing is gone."""
    async with asyncio.timeout(_REPLY_SECONDS):
        return await connection.read_response()


def _note_failure(sending: "asyncio.Future[Reply]") -> None:
    """Log a receipt that was not sent; the sender's node does not wait for it for long."""
    if not sending.cancelled() and (error := sending.exception()) is not None:
        log.debug("receipt.lost", error=str(error))


def _nobody(_: Signal) -> bool:
    """Handle a signal of an inbox that is not served yet."""
    return False


def _nothing() -> None:
    """Do nothing about an inbox that is not served yet."""


def _ms(entry_id: bytes) -> int:
    return int(bytes(entry_id).partition(b"-")[0])


def _following(entry_id: str) -> str:
    """Return the id after this one."""
    ms, _, count = entry_id.partition("-")
    return f"{ms}-{int(count) + 1}"

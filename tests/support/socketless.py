"""Sessions without sockets: a node does for them what it does for others, and thousands of them cost a test seconds."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import TypeVar

from redis import Redis

from conclave.model import SessionPath, Visibility
from relay.app.node import Node
from relay.protocol.v2 import V2Codec
from relay.redis.keys import Keys
from relay.sessions.outbox import Outbox
from relay.sessions.session import Session

KEYS = Keys("conclave")
_AT_ONCE = 64
T = TypeVar("T")
U = TypeVar("U")


class _Nowhere:
    """A transport whose client reads everything."""

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


async def _never_behind() -> None:
    """Take the place of a wait for a client that reads."""


class Socketless:
    """The sessions of one node, and their channels. They end when they are closed."""

    def __init__(self, node: Node, redis_url: str) -> None:
        self._node = node
        self._redis_url = redis_url
        self.services = node.parts.connections._services
        self._codec = V2Codec(origins=frozenset(), idle_seconds=60, message_bytes=1 << 20)
        self._ending: set[asyncio.Task[None]] = set()
        self._count = 0

    async def open(self, users: Iterable[str], machine: str = "laptop") -> list[Session]:
        """Enrol a machine for each user, and log it in."""
        names = list(users)
        with Redis.from_url(self._redis_url) as store, store.pipeline(transaction=False) as pipe:
            for user in names:
                pipe.hset(f"{KEYS.directory}:users", user, 0)
                pipe.hset(KEYS.machine_keys, f"key-of-{user}/{machine}", f"{user}/{machine}")
                pipe.hset(KEYS.machines(user), machine, f"key-of-{user}/{machine} 0")
            await asyncio.to_thread(pipe.execute)
        return await at_once(names, lambda user: self._open(SessionPath(user, machine, "main")))

    async def _open(self, path: SessionPath) -> Session:
        self._count += 1
        outbox = Outbox(_Nowhere(), self._node.parts.flusher, limit=1 << 30, on_overflow=lambda: None)
        outbox.open()
        session = Session(
            path=path,
            pubkey=f"key-of-{path.user}/{path.machine}",
            admin=False,
            connection=f"{self._node.name}.{self._count}",
            encoder=self._codec,
            outbox=outbox,
            interrupt=lambda: self._end(session),
            drained=_never_behind,
        )
        await self.services.presence.open(session)
        return session

    def _end(self, session: Session) -> None:
        task = asyncio.create_task(self.services.presence.close(session))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def create(self, session: Session, names: Iterable[str]) -> None:
        """Create public channels."""
        await at_once(names, lambda name: self.services.channels.create(session, name, Visibility.PUBLIC))

    async def join(self, session: Session, names: Iterable[str]) -> None:
        for name in names:
            await self.services.channels.join(session, name, None)

    async def fill(self, sessions: int, *, each: int, channels: int) -> list[Session]:
        """Open sessions `u0`, `u1`, ... that have each joined some of the channels `c0`, `c1`, ..., in turn."""
        opened = await self.open(f"u{number}" for number in range(sessions))
        await self.create(opened[0], (f"c{number}" for number in range(channels)))
        await at_once(
            enumerate(opened),
            lambda row: self.join(row[1], (f"c{(row[0] * each + i) % channels}" for i in range(each))),
        )
        return opened


async def at_once(items: Iterable[T], call: Callable[[T], Awaitable[U]]) -> list[U]:
    """Call for every item, a few at the same time, and return the results in order."""
    results: list[U] = []
    iterator = iter(items)
    while piece := list(islice(iterator, _AT_ONCE)):
        results += await asyncio.gather(*(call(item) for item in piece))
    return results

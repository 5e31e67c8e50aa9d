"""People who talk without end, and what must be true of everybody who listened."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.support.peer import Peer, Refused
from tests.support.waiting import pause, wait_until

REST_SECONDS = 0.01
"""How long a talker rests after an answer: what is tested is an outage, not the messages or refusals per second."""


class Talker:
    """Posts `name 0`, `name 1`, ... one after the other, and keeps what became of each."""

    def __init__(self, peer: Peer, channel: str, name: str) -> None:
        self.peer = peer
        self.acknowledged: list[str] = []
        self.refusals: list[str] = []
        """The texts of the refusals."""
        self.doubtful: list[str] = []
        """What was sent and not acknowledged: it may have been kept, or not."""
        self.slowest = 0.0
        """The longest that the talker waited for an answer of either kind, in seconds."""
        self._channel = channel
        self._name = name
        self._count = 0

    async def say(self) -> bool:
        """Post the next message; False if it was refused. Raises: ConnectionError."""
        loop = asyncio.get_running_loop()
        body = f"{self._name} {self._count}"
        self._count += 1
        asked = loop.time()
        try:
            await self.peer.post(self._channel, body)
        except Refused as refused:
            self.refusals.append(str(refused))
            self.doubtful.append(body)
        except BaseException:
            self.doubtful.append(body)
            raise
        else:
            self.acknowledged.append(body)
            return True
        finally:
            self.slowest = max(self.slowest, loop.time() - asked)
        return False


@asynccontextmanager
async def talking(talkers: Sequence[Talker]) -> AsyncIterator[None]:
    """Have them all talk, each after the answer to its last message, inside the `async with`, and wait until all stop.

    A talker whose connection ends falls silent.
    """
    stop = asyncio.Event()

    async def talk(talker: Talker) -> None:
        while not stop.is_set():
            try:
                await talker.say()
                await pause(REST_SECONDS)
            except ConnectionError:
                return

    async with asyncio.TaskGroup() as tasks:
        for talker in talkers:
            tasks.create_task(talk(talker))
        try:
            yield
        finally:
            stop.set()


def said(talkers: Sequence[Talker]) -> int:
    """Return the number of acknowledged messages."""
    return sum(len(talker.acknowledged) for talker in talkers)


async def more_is_said(talkers: Sequence[Talker], count: int = 20) -> None:
    """Wait until each talker got `count` further acknowledgements."""
    before = [len(talker.acknowledged) for talker in talkers]
    await wait_until(
        lambda: all(len(talker.acknowledged) >= b + count for talker, b in zip(talkers, before, strict=True)),
        timeout=20,
        what=f"each talker gets {count} more acknowledgements",
    )


async def everybody_heard(talkers: Sequence[Talker], listeners: Sequence[Peer], history: Peer, channel: str) -> None:
    """Assert that listeners who were there all the time heard every acknowledged message once, in history's order.

    What was not acknowledged may have been kept or not, but appears once at most, and everywhere or nowhere.
    """
    order = await history.history(channel)
    kept = set(order)
    assert len(order) == len(kept), "history has a message twice"
    acknowledged = {body for talker in talkers for body in talker.acknowledged}
    doubtful = {body for talker in talkers for body in talker.doubtful}
    assert acknowledged <= kept, f"acknowledged and not kept: {sorted(acknowledged - kept)[:10]}"
    assert kept <= acknowledged | doubtful, f"kept and never said: {sorted(kept - acknowledged - doubtful)[:10]}"
    for talker in talkers:
        own = set(talker.acknowledged)
        assert [body for body in order if body in own] == talker.acknowledged, "a talker's own order was changed"
    for listener in listeners:
        await wait_until(
            lambda listener=listener: len(listener.messages) >= len(order),  # type: ignore[misc]
            what=f"{listener.path} has heard all {len(order)} messages",
        )
        assert listener.bodies == order, f"{listener.path} heard something else than history says"

"""An acknowledged decision of an admin holds on every node, whatever signals are late."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

import aiohttp
import pytest
from nacl.signing import SigningKey
from redis.asyncio import Redis

from conclave.model import Visibility
from conclave.protocol.v1 import admin, frames
from tests.support.nodes import NodeProcess, cluster
from tests.support.peer import Peer, Peers, Refused
from tests.support.redis_server import RedisProcess
from tests.support.trials import by_form
from tests.support.waiting import pause, wait_until

On = Callable[[str, str], admin.AdminOp]
"""An operation on a channel and a user."""

REVOKED = "unauthorized: machine key revoked"
REMOVED = "unauthorized: user removed from this server"

ROUNDS = by_form(10, 500, 10_000)
"""How many removals a test has, over all lanes."""
CUT_ROUNDS = by_form(10, 100, 1_000)
"""The same while connections are cut."""
LANES = 5
"""How many channels go through their rounds at the same time: on different nodes, so that everything overlaps."""


@pytest.fixture
async def nodes(redis_process: RedisProcess) -> AsyncIterator[list[NodeProcess]]:
    """Three nodes, and an admin of the server."""
    async with cluster(redis_process.url, 3, "--admin", "root") as running:
        yield running


async def rule(peer: Peer, operation: admin.AdminOp) -> None:
    await peer.ask(frames.Admin(operation), frames.Ack)


async def admitted(attempt: Callable[[], Awaitable[Peer]]) -> Peer:
    """Log in at a node that refuses connections for the moments in which it hears nothing."""
    while True:
        try:
            return await attempt()
        except aiohttp.WSServerHandshakeError as refused:
            if refused.status != 503:
                raise
            await pause(0.01)


class Lane:
    """A channel on three nodes: who rules it on the first, its victims on the second, a witness on the third."""

    def __init__(self, nodes: list[NodeProcess], peers: Peers, number: int) -> None:
        self.name = f"plaza{number}"
        self.number = number
        self.peers = peers
        self.first, self.second, self.third = (nodes[(number + i) % 3].url for i in range(3))
        self.said: list[str] = []
        """What was acknowledged, in order."""
        self.forbidden: set[str] = set()
        """What was posted after a victim's removal was acknowledged."""

    async def register(self, url: str, user: str) -> Peer:
        return await admitted(lambda: self.peers.register(url, user))

    async def open(self, visibility: Visibility) -> None:
        self.ruler = await self.register(self.first, f"ruler{self.number}")
        self.witness = await self.register(self.third, f"witness{self.number}")
        await self.ruler.create(self.name, visibility)
        await rule(self.ruler, admin.AclAdd(self.name, self.witness.path.user))
        await self.ruler.join(self.name)
        await self.witness.join(self.name)

    async def round(self, number: int, remove: Callable[[], Awaitable[None]]) -> None:
        """{post, remove, post, post}: the last two on two nodes."""
        await self._say(self.ruler, f"{number} before")
        await remove()
        for peer, which in ((self.ruler, "ruler"), (self.witness, "witness")):
            body = f"{number} after, {which}"
            self.forbidden.add(body)
            await self._say(peer, body)

    async def _say(self, peer: Peer, body: str) -> None:
        await peer.post(self.name, body)
        self.said.append(body)

    async def all_well(self, victims: list[Peer]) -> None:
        """Assert what victims have not heard, once all that was said must have gone by.

        Some must have heard what came before, or there was nothing to take from them. Who stayed has missed nothing.
        """
        late = await self.register(self.second, f"late{self.number}")
        await rule(self.ruler, admin.AclAdd(self.name, late.path.user))
        await late.join(self.name)
        await self._say(self.ruler, "end")
        await wait_until(lambda: late.bodies == ["end"], what="the victims' node has delivered the last message")
        own = [body for body in self.said if body.endswith("witness")]
        await wait_until(
            lambda: len(self.witness.bodies) >= len(self.said) - len(own), what="the witness has heard everything"
        )
        assert self.witness.bodies == [body for body in self.said if body not in own]
        bodies = [body for victim in victims for body in victim.bodies]
        assert [body for body in bodies if body in self.forbidden] == [], f"{self.name}: heard after the removal"
        assert any(body.endswith(("before", "hello")) for body in bodies), "the victims never heard anything"


@asynccontextmanager
async def subscribers_cut(server: RedisProcess, *, every: float) -> AsyncIterator[list[int]]:
    """Cut the nodes' subscriber connections again and again; yields how many there were each time."""
    cut: list[int] = []

    async def keep_cutting() -> None:
        async with Redis.from_url(server.url) as store:
            while True:
                await pause(every)
                cut.append(int(await store.client_kill_filter(_type="pubsub")))

    cutting = asyncio.create_task(keep_cutting())
    try:
        yield cut
    finally:
        cutting.cancel()


async def in_lanes(
    nodes: list[NodeProcess], peers: Peers, run: Callable[[Lane], Coroutine[None, None, None]], visibility: Visibility
) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(LANES):
            lane = Lane(nodes, peers, number)
            await lane.open(visibility)
            tasks.create_task(run(lane))


def same_victim(rounds: int, remove: On, restore: On | None) -> Callable[[Lane], Coroutine[None, None, None]]:
    """One victim per lane, who is removed and let in again."""

    async def run(lane: Lane) -> None:
        victim = await lane.register(lane.second, f"victim{lane.number}")
        user = victim.path.user
        for number in range(rounds // LANES):
            if restore is not None:
                await rule(lane.ruler, restore(lane.name, user))
            await victim.join(lane.name)
            if number % 2:  # else the removal meets a session that has only just come in
                await wait_for_live(lane, victim, number)
            await lane.round(number, lambda: rule(lane.ruler, remove(lane.name, user)))
            say = frames.ChannelMsg(lane.name, victim.path, frames.RawPayload(b"\0\2hi"))
            assert await victim.refusal(say) == f"unauthorized: not a member of channel `{lane.name}`"
        await lane.all_well([victim])

    return run


async def wait_for_live(lane: Lane, victim: Peer, number: int) -> None:
    body = f"{number} hello"
    await lane._say(lane.ruler, body)
    await wait_until(lambda: victim.bodies[-1:] == [body], what="the victim listens")


REMOVALS: dict[str, tuple[On, On | None, Visibility]] = {
    "ban": (admin.Ban, admin.Unban, Visibility.PUBLIC),
    "kick": (admin.Kick, None, Visibility.UNLISTED),
    "acl": (admin.AclRemove, admin.AclAdd, Visibility.PRIVATE),
}


@pytest.mark.parametrize("what", REMOVALS)
async def test_nothing_posted_after_a_removal_reaches_the_removed(
    nodes: list[NodeProcess], peers: Peers, what: str
) -> None:
    """The promise itself: an admin who has read `done` can speak freely."""
    remove, restore, visibility = REMOVALS[what]
    await in_lanes(nodes, peers, same_victim(ROUNDS, remove, restore), visibility)


@pytest.mark.parametrize("what", REMOVALS)
async def test_nor_while_the_nodes_keep_losing_what_is_published(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess, what: str
) -> None:
    """The announcement may be lost; the next message must not be delivered without what it said."""
    remove, restore, visibility = REMOVALS[what]
    async with subscribers_cut(redis_process, every=0.15) as cut:
        await in_lanes(nodes, peers, same_victim(CUT_ROUNDS, remove, restore), visibility)
    assert sum(cut) >= by_form(1, 10, 10)


async def _insist(victim: Peer, channel: str) -> str | None:
    """Come in again and again, as a client does that believes it was an accident; returns what it is told."""
    try:
        while True:
            await victim.join(channel)
    except Refused as refused:
        return str(refused)
    except ConnectionError:
        return None


async def why_closed(victim: Peer, insisting: asyncio.Task[str | None]) -> set[str | None]:
    """Return what a victim was told: in v1 its last words may look like the answer to its last request."""
    return {await victim.wait_closed(), await insisting} - {None}


@pytest.mark.parametrize(("rounds", "cutting"), [(ROUNDS, False), (CUT_ROUNDS, True)], ids=["calm", "cut"])
async def test_a_revoked_machine_hears_nothing_more(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess, rounds: int, *, cutting: bool
) -> None:
    """A stolen laptop, which tries to come in again while its key is being revoked; its owner's others stay."""

    async def run(lane: Lane) -> None:
        victims: list[Peer] = []
        owner = await lane.register(lane.third, f"owner{lane.number}")
        for number in range(rounds // LANES):
            key = SigningKey.generate()
            await rule(owner, admin.MachineAdd("stolen", bytes(key.verify_key)))
            victims.append(await admitted(lambda key=key: lane.peers.login(lane.second, key)))  # type: ignore[misc]
            await victims[-1].join(lane.name)
            if number % 2:
                await wait_for_live(lane, victims[-1], number)
            insisting = asyncio.create_task(_insist(victims[-1], lane.name))
            await lane.round(number, lambda: rule(owner, admin.MachineRemove("stolen")))
            assert await why_closed(victims[-1], insisting) == {REVOKED}
        await lane.all_well(victims)
        await owner.ask(frames.Ping(), frames.Pong)

    async with subscribers_cut(redis_process, every=0.2 if cutting else 60):
        await in_lanes(nodes, peers, run, Visibility.PUBLIC)


@pytest.mark.parametrize(("rounds", "cutting"), [(ROUNDS, False), (CUT_ROUNDS, True)], ids=["calm", "cut"])
async def test_a_removed_user_hears_nothing_more(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess, rounds: int, *, cutting: bool
) -> None:
    """On all their machines, by whichever right they were in; the name is free for somebody else at once."""
    root = await peers.register(nodes[0].url, "root")

    async def run(lane: Lane) -> None:
        victims: list[Peer] = []
        for number in range(rounds // LANES):
            user = f"victim{lane.number}"
            victim = await lane.register(lane.second, user)
            victims.append(victim)
            if number % 2:
                await rule(lane.ruler, admin.AclPromote(lane.name, user))
            await victim.join(lane.name)
            if number % 2:
                await wait_for_live(lane, victim, number)
            insisting = asyncio.create_task(_insist(victim, lane.name))
            await lane.round(number, lambda user=user: rule(root, admin.UserRemove(user)))  # type: ignore[misc]
            told = await why_closed(victim, insisting)
            assert told
            assert told <= {REMOVED, REVOKED}
        await lane.all_well(victims)

    async with subscribers_cut(redis_process, every=0.2 if cutting else 60):
        await in_lanes(nodes, peers, run, Visibility.UNLISTED)


async def _talk(peer: Peer, channel: str, said: list[str], stop: asyncio.Event) -> None:
    """Come in and speak until told to stop, whatever the channel's fate."""
    while not stop.is_set():
        body = f"{peer.path.user} {len(said)}"
        said.append(body)
        try:
            await peer.join(channel)
            await peer.post(channel, body)
        except Refused:
            await pause(0.001)


async def test_a_deleted_channel_leaves_nothing_to_one_that_is_called_the_same(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess
) -> None:
    """No row, no subscriber, no key; while people on all nodes come in and speak as fast as they can."""
    founder = await peers.register(nodes[0].url, "founder")
    talkers = [await peers.register(nodes[i % 3].url, f"talker{i}") for i in range(6)]
    said: list[str] = []
    for turn in range(by_form(3, 30, 1_000)):
        await founder.create("plaza")
        await founder.join("plaza")
        stop = asyncio.Event()
        talking = [asyncio.create_task(_talk(talker, "plaza", said, stop)) for talker in talkers]
        heard = len(founder.messages)
        await wait_until(lambda heard=heard: len(founder.messages) > heard + 10, what="there is talk")  # type: ignore[misc]
        await rule(founder, admin.DeleteChannel("plaza"))
        await founder.create("plaza", Visibility.PRIVATE)
        await founder.join("plaza")
        assert await founder.history("plaza") == []
        assert await founder.who("plaza") == [str(founder.path)]
        await founder.post("plaza", f"secret {turn}")
        stop.set()
        await asyncio.gather(*talking)
        assert await founder.history("plaza") == [f"secret {turn}"]
        assert await founder.who("plaza") == [str(founder.path)]
        await rule(founder, admin.DeleteChannel("plaza"))
    for talker in talkers:
        assert [body for body in talker.bodies if body.startswith("secret")] == []
    async with Redis.from_url(redis_process.url) as store:
        left = [key async for key in store.scan_iter("*{c:*")]
        assert [key for key in left if not key.endswith(b":head")] == []
        assert [key for key in left if not await store.hexists(key, "gone")] == []

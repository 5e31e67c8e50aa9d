"""An acknowledged removal is in effect on every node, however late the signals are."""

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
"""The removals of a test, in all channels."""
CUT_ROUNDS = by_form(10, 100, 1_000)
"""The same while connections are cut."""
CHANNELS = 5
"""The channels that go through their rounds at the same time, on different nodes, so that everything overlaps."""


@pytest.fixture
async def nodes(redis_process: RedisProcess) -> AsyncIterator[list[NodeProcess]]:
    """Three nodes, and an admin of the server."""
    async with cluster(redis_process.url, 3, "--admin", "root") as running:
        yield running


async def administer(peer: Peer, operation: admin.AdminOp) -> None:
    await peer.ask(frames.Admin(operation), frames.Ack)


async def admitted(attempt: Callable[[], Awaitable[Peer]]) -> Peer:
    """Log in at a node that refuses connections while it is not subscribed."""
    while True:
        try:
            return await attempt()
        except aiohttp.WSServerHandshakeError as refused:
            if refused.status != 503:
                raise
            await pause(0.01)


class Trial:
    """A channel on three nodes: its creator on the first, the removed users on the second, a witness on the third."""

    def __init__(self, nodes: list[NodeProcess], peers: Peers, number: int) -> None:
        self.name = f"ops{number}"
        self.number = number
        self.peers = peers
        self.first, self.second, self.third = (nodes[(number + i) % 3].url for i in range(3))
        self.posted: list[str] = []
        """The acknowledged messages, in order."""
        self.forbidden: set[str] = set()
        """The messages that were posted after a removal was acknowledged."""

    async def register(self, url: str, user: str) -> Peer:
        return await admitted(lambda: self.peers.register(url, user))

    async def open(self, visibility: Visibility) -> None:
        self.creator = await self.register(self.first, f"creator{self.number}")
        self.witness = await self.register(self.third, f"witness{self.number}")
        await self.creator.create(self.name, visibility)
        await administer(self.creator, admin.AclAdd(self.name, self.witness.path.user))
        await self.creator.join(self.name)
        await self.witness.join(self.name)

    async def round(self, number: int, remove: Callable[[], Awaitable[None]]) -> None:
        """{post, remove, post, post}: the last two on two nodes."""
        await self._post(self.creator, f"{number} before")
        await remove()
        for peer, which in ((self.creator, "creator"), (self.witness, "witness")):
            body = f"{number} after, {which}"
            self.forbidden.add(body)
            await self._post(peer, body)

    async def _post(self, peer: Peer, body: str) -> None:
        await peer.post(self.name, body)
        self.posted.append(body)

    async def check(self, victims: list[Peer]) -> None:
        """Assert what the victims have not received, once all messages have been delivered.

        Some must have received earlier messages, or the test shows nothing. The witness has missed nothing.
        """
        late = await self.register(self.second, f"late{self.number}")
        await administer(self.creator, admin.AclAdd(self.name, late.path.user))
        await late.join(self.name)
        await self._post(self.creator, "end")
        await wait_until(lambda: late.bodies == ["end"], what="the victims' node has delivered the last message")
        own = [body for body in self.posted if body.endswith("witness")]
        await wait_until(
            lambda: len(self.witness.bodies) >= len(self.posted) - len(own), what="the witness has got everything"
        )
        assert self.witness.bodies == [body for body in self.posted if body not in own]
        bodies = [body for victim in victims for body in victim.bodies]
        assert [body for body in bodies if body in self.forbidden] == [], f"{self.name}: received after the removal"
        assert any(body.endswith(("before", "hello")) for body in bodies), "no victim received anything"


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


async def run_trials(
    nodes: list[NodeProcess], peers: Peers, run: Callable[[Trial], Coroutine[None, None, None]], visibility: Visibility
) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(CHANNELS):
            trial = Trial(nodes, peers, number)
            await trial.open(visibility)
            tasks.create_task(run(trial))


def same_victim(rounds: int, remove: On, restore: On | None) -> Callable[[Trial], Coroutine[None, None, None]]:
    """One victim per channel, which is removed and joins again."""

    async def run(trial: Trial) -> None:
        victim = await trial.register(trial.second, f"victim{trial.number}")
        user = victim.path.user
        for number in range(rounds // CHANNELS):
            if restore is not None:
                await administer(trial.creator, restore(trial.name, user))
            await victim.join(trial.name)
            if number % 2:  # else the removal meets a session that has only just joined
                await wait_for_live(trial, victim, number)
            await trial.round(number, lambda: administer(trial.creator, remove(trial.name, user)))
            a_post = frames.ChannelMsg(trial.name, victim.path, frames.RawPayload(b"\0\2hi"))
            assert await victim.refusal(a_post) == f"unauthorized: not a member of channel `{trial.name}`"
        await trial.check([victim])

    return run


async def wait_for_live(trial: Trial, victim: Peer, number: int) -> None:
    body = f"{number} hello"
    await trial._post(trial.creator, body)
    await wait_until(lambda: victim.bodies[-1:] == [body], what="the victim receives live messages")


REMOVALS: dict[str, tuple[On, On | None, Visibility]] = {
    "ban": (admin.Ban, admin.Unban, Visibility.PUBLIC),
    "kick": (admin.Kick, None, Visibility.UNLISTED),
    "acl": (admin.AclRemove, admin.AclAdd, Visibility.PRIVATE),
}


@pytest.mark.parametrize("what", REMOVALS)
async def test_nothing_posted_after_a_removal_reaches_the_removed(
    nodes: list[NodeProcess], peers: Peers, what: str
) -> None:
    """The promise itself: later messages of the admin do not reach the removed user."""
    remove, restore, visibility = REMOVALS[what]
    await run_trials(nodes, peers, same_victim(ROUNDS, remove, restore), visibility)


@pytest.mark.parametrize("what", REMOVALS)
async def test_the_same_while_subscriber_connections_are_cut(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess, what: str
) -> None:
    """The announcement may be lost; the next message must not be delivered without its effect."""
    remove, restore, visibility = REMOVALS[what]
    async with subscribers_cut(redis_process, every=0.15) as cut:
        await run_trials(nodes, peers, same_victim(CUT_ROUNDS, remove, restore), visibility)
    assert sum(cut) >= by_form(1, 10, 10)


async def _rejoin(victim: Peer, channel: str) -> str | None:
    """Join again and again, as a client that takes the removal for an accident; returns the refusals."""
    try:
        while True:
            await victim.join(channel)
    except Refused as refused:
        return str(refused)
    except ConnectionError:
        return None


async def why_closed(victim: Peer, rejoining: asyncio.Task[str | None]) -> set[str | None]:
    """Return the reason that a victim got: in v1 the last frame may look like the reply to its last request."""
    return {await victim.wait_closed(), await rejoining} - {None}


@pytest.mark.parametrize(("rounds", "cutting"), [(ROUNDS, False), (CUT_ROUNDS, True)], ids=["calm", "cut"])
async def test_a_revoked_machine_receives_nothing_more(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess, rounds: int, *, cutting: bool
) -> None:
    """A stolen laptop, which tries to join again while its key is being revoked; the owner's other machines stay."""

    async def run(trial: Trial) -> None:
        victims: list[Peer] = []
        owner = await trial.register(trial.third, f"owner{trial.number}")
        for number in range(rounds // CHANNELS):
            key = SigningKey.generate()
            await administer(owner, admin.MachineAdd("stolen", bytes(key.verify_key)))
            victims.append(await admitted(lambda key=key: trial.peers.login(trial.second, key)))  # type: ignore[misc]
            await victims[-1].join(trial.name)
            if number % 2:
                await wait_for_live(trial, victims[-1], number)
            rejoining = asyncio.create_task(_rejoin(victims[-1], trial.name))
            await trial.round(number, lambda: administer(owner, admin.MachineRemove("stolen")))
            assert await why_closed(victims[-1], rejoining) == {REVOKED}
        await trial.check(victims)
        await owner.ask(frames.Ping(), frames.Pong)

    async with subscribers_cut(redis_process, every=0.2 if cutting else 60):
        await run_trials(nodes, peers, run, Visibility.PUBLIC)


@pytest.mark.parametrize(("rounds", "cutting"), [(ROUNDS, False), (CUT_ROUNDS, True)], ids=["calm", "cut"])
async def test_a_removed_user_receives_nothing_more(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess, rounds: int, *, cutting: bool
) -> None:
    """On all their machines, with any right to the channel; the name is free for another user at once."""
    root = await peers.register(nodes[0].url, "root")

    async def run(trial: Trial) -> None:
        victims: list[Peer] = []
        for number in range(rounds // CHANNELS):
            user = f"victim{trial.number}"
            victim = await trial.register(trial.second, user)
            victims.append(victim)
            if number % 2:
                await administer(trial.creator, admin.AclPromote(trial.name, user))
            await victim.join(trial.name)
            if number % 2:
                await wait_for_live(trial, victim, number)
            rejoining = asyncio.create_task(_rejoin(victim, trial.name))
            await trial.round(number, lambda user=user: administer(root, admin.UserRemove(user)))  # type: ignore[misc]
            told = await why_closed(victim, rejoining)
            assert told
            assert told <= {REMOVED, REVOKED}
        await trial.check(victims)

    async with subscribers_cut(redis_process, every=0.2 if cutting else 60):
        await run_trials(nodes, peers, run, Visibility.UNLISTED)


async def _join_and_post(peer: Peer, channel: str, posted: list[str], stop: asyncio.Event) -> None:
    """Join and post until `stop`, whether the channel exists or not."""
    while not stop.is_set():
        body = f"{peer.path.user} {len(posted)}"
        posted.append(body)
        try:
            await peer.join(channel)
            await peer.post(channel, body)
        except Refused:
            await pause(0.001)


async def test_a_deleted_channel_leaves_nothing_to_one_that_is_called_the_same(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess
) -> None:
    """No row, no subscriber, no key; while sessions on all nodes join and post as fast as they can."""
    founder = await peers.register(nodes[0].url, "founder")
    posters = [await peers.register(nodes[i % 3].url, f"talker{i}") for i in range(6)]
    posted: list[str] = []
    for turn in range(by_form(3, 30, 1_000)):
        await founder.create("ops")
        await founder.join("ops")
        stop = asyncio.Event()
        posting = [asyncio.create_task(_join_and_post(poster, "ops", posted, stop)) for poster in posters]
        received = len(founder.messages)
        await wait_until(lambda received=received: len(founder.messages) > received + 10, what="posting goes on")  # type: ignore[misc]
        await administer(founder, admin.DeleteChannel("ops"))
        await founder.create("ops", Visibility.PRIVATE)
        await founder.join("ops")
        assert await founder.history("ops") == []
        assert await founder.who("ops") == [str(founder.path)]
        await founder.post("ops", f"secret {turn}")
        stop.set()
        await asyncio.gather(*posting)
        assert await founder.history("ops") == [f"secret {turn}"]
        assert await founder.who("ops") == [str(founder.path)]
        await administer(founder, admin.DeleteChannel("ops"))
    for poster in posters:
        assert [body for body in poster.bodies if body.startswith("secret")] == []
    async with Redis.from_url(redis_process.url) as store:
        left = [key async for key in store.scan_iter("*{c:*")]
        assert [key for key in left if not key.endswith(b":head")] == []
        assert [key for key in left if not await store.hexists(key, "gone")] == []

"""Redis fails between any two steps of an operation: it has happened, all of it, or it has not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from nacl.signing import SigningKey

from conclave.model import Plain, SessionPath, Visibility
from conclave.protocol.v1 import admin, frames
from relay.app.node import Node
from relay.model.errors import StoreUnavailable
from relay.services.server_admins import ServerAdmins
from tests.support.directory import Snapshot, Store
from tests.support.nodes import node_object, running_node
from tests.support.peer import Peer, Peers, Refused
from tests.support.redis_server import RedisProcess
from tests.support.trials import by_form
from tests.support.waiting import pause, wait_until

AWAY = "internal error: the relay cannot reach its store; try again in a few seconds"
MOST_STEPS = 40
ROOT = ServerAdmins({"root": None})
NOWHERE = SessionPath("x", "y", "z")


class Fault:
    """Stands between a node and its client of Redis.

    Once armed it lets so many commands through; the next one fails, executed or not, and all that follow it fail too,
    until it is mended.
    """

    def __init__(self, node: Node) -> None:
        self._submit = node.parts.client._submit
        self._left: int | None = None
        self._late = False
        self.struck = False
        node.parts.client._submit = self._pass  # type: ignore[method-assign, assignment]

    def arm(self, passes: int, *, late: bool) -> None:
        """With `late` the failing command is carried out and only its reply is lost."""
        self._left, self._late, self.struck = passes, late, False

    def mend(self) -> None:
        self._left = None

    def _pass(self, *command: Any) -> "asyncio.Future[Any]":
        if self._left is None:
            return self._submit(*command)
        if self._left > 0:
            self._left -= 1
            return self._submit(*command)
        first, self.struck = not self.struck, True
        lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if first and self._late:
            self._submit(*command).add_done_callback(lambda _: _fail(lost))
        else:
            _fail(lost)
        return lost


def _fail(reply: "asyncio.Future[Any]") -> None:
    if not reply.done():
        reply.set_exception(StoreUnavailable("cut"))


class Scene:
    """The caller is on a node that loses Redis; the removed party is on one that does not."""

    def __init__(self, node: Node, other: Node, peers: Peers, store: Store) -> None:
        self.fault = Fault(node)
        self.url, self.other_url = f"ws://{node.address}/", f"ws://{other.address}/"
        self.other = other
        self.peers = peers
        self.store = store
        self._count = 0

    async def open(self) -> None:
        self.root = await self.peers.register(self.url, "root")
        self.ann = await self.peers.register(self.url, "ann")

    async def set_up(self) -> "Act":
        """Make a channel with a new victim in it, who is a member, an admin, and has a channel too."""
        self._count += 1
        name, user = f"ops{self._count}", f"bob{self._count}"
        bob = await self.peers.register(self.other_url, user)
        await bob.create(f"of {user}")
        await self.ann.create(name)
        token = await self.ann.invite(name, uses=3)
        for operation in (admin.AclPromote(name, user), admin.Ban(name, "eve")):
            await self.ann.ask(frames.Admin(operation), frames.Ack)
        await self.ann.join(name)
        await bob.join(name)
        return Act(name, user, token, bob, self.ann, self.root)


class Act(msgspec.Struct, frozen=True):
    """One channel, its victim, and who acts on it."""

    name: str
    user: str
    token: str
    bob: Peer
    ann: Peer
    root: Peer


def by_ann(operation: Callable[[Act], admin.AdminOp]) -> Callable[[Act], tuple[Peer, frames.Frame]]:
    return lambda act: (act.ann, frames.Admin(operation(act)))


def by_root(operation: Callable[[Act], admin.AdminOp]) -> Callable[[Act], tuple[Peer, frames.Frame]]:
    return lambda act: (act.root, frames.Admin(operation(act)))


OPERATIONS: dict[str, Callable[[Act], tuple[Peer, frames.Frame]]] = {
    "create": by_ann(lambda act: admin.CreateChannel(f"new {act.name}", Visibility.PRIVATE)),
    "delete": by_ann(lambda act: admin.DeleteChannel(act.name)),
    "rename": by_ann(lambda act: admin.RenameChannel(act.name, f"new {act.name}")),
    "private": by_ann(lambda act: admin.SetVisibility(act.name, Visibility.PRIVATE)),
    "acl add": by_ann(lambda act: admin.AclAdd(act.name, "eve")),
    "acl remove": by_ann(lambda act: admin.AclRemove(act.name, act.user)),
    "acl promote": by_ann(lambda act: admin.AclPromote(act.name, "eve")),
    "acl demote": by_ann(lambda act: admin.AclDemote(act.name, act.user)),
    "kick": by_ann(lambda act: admin.Kick(act.name, act.user)),
    "ban": by_ann(lambda act: admin.Ban(act.name, act.user)),
    "unban": by_ann(lambda act: admin.Unban(act.name, "eve")),
    "invite create": by_ann(lambda act: admin.InviteCreate(act.name, 5)),
    "invite revoke": by_ann(lambda act: admin.InviteRevoke(act.token)),
    "machine add": by_ann(lambda act: admin.MachineAdd(act.name, bytes(SigningKey.generate().verify_key))),
    "user remove": by_root(lambda act: admin.UserRemove(act.user)),
    "server-invite create": by_root(lambda _: admin.ServerInviteCreate(5)),
}
TAKES_THE_CHANNEL = {"delete", "acl remove", "kick", "ban", "user remove"}


@asynccontextmanager
async def a_scene(redis_url: str) -> AsyncIterator[Scene]:
    peers, store = Peers(), Store(redis_url)
    async with node_object(redis_url, admins=ROOT) as node, node_object(redis_url, admins=ROOT) as other:
        scene = Scene(node, other, peers, store)
        await scene.open()
        try:
            yield scene
        finally:
            scene.fault.mend()
            await peers.close()
            store.close()


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("what", by_form(("rename", "user remove"), tuple(OPERATIONS), tuple(OPERATIONS)))
async def test_an_operation_happens_or_does_not(redis_url: str, what: str, *, late: bool) -> None:
    """At every step, before it and after it. Another node's heartbeat makes up for what was not announced."""
    async with a_scene(redis_url) as scene:
        for passes in range(MOST_STEPS):
            act = await scene.set_up()
            before, channel_id = scene.store.snapshot(), scene.store.id_of(act.name)
            version = scene.store.version(channel_id)
            peer, request = OPERATIONS[what](act)
            scene.fault.arm(passes, late=late)
            answer = await _ask(peer, request)
            scene.fault.mend()
            happened = (scene.store.snapshot(), scene.store.version(channel_id)) != (before, version)
            assert answer in ("done", AWAY)
            assert happened or answer == AWAY, "acknowledged, and not done"
            if answer == AWAY:
                await scene.other.parts.membership._beat()
            assert scene.store.due() == {}
            assert scene.store.announced(channel_id)
            await _check_victim(scene, act, lost=happened and what in TAKES_THE_CHANNEL)
            if happened and answer == AWAY:
                await _check_repeat(scene, act, what)
            if not scene.fault.struck:
                assert passes >= 1
                return
    raise AssertionError(f"still not done after {MOST_STEPS} commands")


async def _ask(peer: Peer, request: frames.Frame) -> str:
    try:
        await peer.ask(request, _answer_to(request))
    except Refused as refused:
        return str(refused)
    return "done"


def _answer_to(request: frames.Frame) -> type[frames.Frame]:
    match request:
        case frames.Join():
            return frames.Joined
        case frames.Admin(admin.InviteCreate() | admin.ServerInviteCreate()):
            return frames.InviteToken
        case _:
            return frames.Ack


async def _check_victim(scene: Scene, act: Act, *, lost: bool) -> None:
    """Assert that the victim hears what is said now exactly if nothing was taken from it."""
    names = [name for name in scene.store.snapshot().rooms if name.endswith(act.name)]
    name = "new " + act.name if "new " + act.name in names and act.name not in names else act.name
    if name in names:
        await act.ann.post(name, "now")
        if not lost:
            await wait_until(lambda: act.bob.bodies[-1:] == ["now"], what="who stays hears")
    if lost:
        request = frames.ChannelMsg(name, NOWHERE, Plain("hi"))
        try:
            told = await act.bob.refusal(request)
        except ConnectionError:
            told = None
        assert told is None or told.startswith("unauthorized: "), told
        assert "now" not in act.bob.bodies


async def _check_repeat(scene: Scene, act: Act, what: str) -> None:
    """Assert that a client that repeats what was answered with `away` is answered, and changes nothing but invites."""
    if what.endswith("create") or what in {"machine add", "rename", "delete"}:
        return  # each makes another one, or finds none
    before: Snapshot = scene.store.snapshot()
    peer, request = OPERATIONS[what](act)
    assert await _ask(peer, request) == "done"
    assert scene.store.snapshot() == before


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_a_machine_is_revoked_or_is_not(redis_url: str, *, late: bool) -> None:
    """With its sessions: they end although the node that took the request could not tell anybody."""
    async with a_scene(redis_url) as scene:
        for passes in range(MOST_STEPS):
            key = SigningKey.generate()
            await scene.ann.ask(frames.Admin(admin.MachineAdd("stolen", bytes(key.verify_key))), frames.Ack)
            thief = await scene.peers.login(scene.other_url, key)
            scene.fault.arm(passes, late=late)
            answer = await _ask(scene.ann, frames.Admin(admin.MachineRemove("stolen")))
            scene.fault.mend()
            if answer == AWAY:
                await scene.other.parts.membership._beat()
            gone = "stolen" not in scene.store.snapshot().machines["ann"]
            assert gone or answer == AWAY
            assert scene.store.due() == {}
            if gone:
                assert await thief.wait_closed() == "unauthorized: machine key revoked"
            else:
                await thief.ask(frames.Ping(), frames.Pong)
                await scene.ann.ask(frames.Admin(admin.MachineRemove("stolen")), frames.Ack)
            if not scene.fault.struck:
                return
    raise AssertionError(f"still not done after {MOST_STEPS} commands")


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_an_invite_is_redeemed_or_is_not(redis_url: str, *, late: bool) -> None:
    """A use that is gone has made a member; then the next attempt needs no token."""
    async with a_scene(redis_url) as scene:
        for passes in range(MOST_STEPS):
            act = await scene.set_up()
            await scene.ann.ask(frames.Admin(admin.SetVisibility(act.name, Visibility.PRIVATE)), frames.Ack)
            cid = await scene.peers.register(scene.url, f"cid{passes}")
            scene.fault.arm(passes, late=late)
            answer = await _ask(cid, frames.Join(act.name, act.token))
            scene.fault.mend()
            room = scene.store.snapshot().rooms[act.name]
            member = cid.path.user in room.members
            assert room.invites == (("2 -",) if member else ("3 -",))
            assert member or answer == AWAY
            await cid.join(act.name, None if member else act.token)
            if not scene.fault.struck:
                return
    raise AssertionError(f"still not done after {MOST_STEPS} commands")


async def test_the_next_heartbeat_makes_up_for_it_by_itself(redis_url: str) -> None:
    """Nobody has to act: the next heartbeat of any node finds the pending announcement."""
    async with a_scene(redis_url) as scene:
        act = await scene.set_up()
        scene.fault.arm(2, late=False)  # the version and who is inside were read, and the ban is in the directory
        assert await _ask(act.ann, frames.Admin(admin.Ban(act.name, act.user))) == AWAY
        assert scene.store.due() != {}
        assert act.user in scene.store.snapshot().rooms[act.name].bans
        scene.fault.mend()
        await wait_until(lambda: not scene.store.due(), what="a heartbeat has settled it")
        assert scene.store.announced(scene.store.id_of(act.name))
        await _check_victim(scene, act, lost=True)


async def test_a_killed_redis_has_the_operation_or_has_not(redis_process: RedisProcess) -> None:
    """The process itself dies at some moment of a ban; what it has on its disk is consistent, and becomes true."""
    url = redis_process.url
    peers, store = Peers(), Store(url)
    happened: list[bool] = []
    async with running_node(url) as one, running_node(url) as other:
        ann = await peers.register(one, "ann")
        for turn in range(by_form(2, 6, 60)):
            name, bob = f"ops{turn}", await peers.register(other, f"bob{turn}")
            await ann.create(name)
            await ann.join(name)
            await bob.join(name)
            asking = asyncio.create_task(_ask(ann, frames.Admin(admin.Ban(name, bob.path.user))))
            for _ in range(turn * 3):
                await pause(0)
            redis_process.kill()
            answer = await asking
            await redis_process.restart()
            await wait_until(lambda name=name: _can_post(ann, name), what="the node is back")  # type: ignore[misc]
            banned = bob.path.user in store.snapshot().rooms[name].bans
            happened.append(banned)
            assert banned or answer == AWAY
            await wait_until(lambda: not store.due(), what="a heartbeat has settled it")
            assert store.announced(store.id_of(name))
            await wait_until(lambda bob=bob: _is_served(bob), what="the other node is back")  # type: ignore[misc]
            await ann.post(name, "now")
            if banned:
                assert (await bob.refusal(frames.ReadSince(name, 0))).startswith("unauthorized: not a member")
                assert "now" not in bob.bodies
            else:
                await wait_until(lambda bob=bob: "now" in bob.bodies, what="who stays hears")  # type: ignore[misc]
        await peers.close()
    store.close()


async def _can_post(peer: Peer, name: str) -> bool:
    try:
        await peer.post(name, "back?")
    except Refused:
        return False
    return True


async def _is_served(peer: Peer) -> bool:
    try:
        await peer.who()
    except Refused:
        return False
    return True

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
from tests.support.nodes import client_of, node_object, running_node
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
        client = client_of(node)
        self._submit = client._submit
        self._left: int | None = None
        self._late = False
        self.struck = False
        client._submit = self._pass  # type: ignore[method-assign, assignment]

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


class Setup:
    """The caller is on a node that loses Redis; the removed user is on one that does not."""

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

    async def announce_pending(self) -> None:
        """Have the other node announce what the node that lost Redis has left, if anything."""

        async def all_announced() -> bool:
            await self.other.parts.janitor.announce()
            return self.store.pending() == {}

        await wait_until(all_announced, what="nothing is pending")

    async def new_case(self) -> "Case":
        """Create a channel with a new victim in it: a member, an admin, and the creator of another channel."""
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
        return Case(name, user, token, bob, self.ann, self.root)


class Case(msgspec.Struct, frozen=True):
    """One channel, its victim, and the callers."""

    name: str
    user: str
    token: str
    bob: Peer
    ann: Peer
    root: Peer


def by_ann(operation: Callable[[Case], admin.AdminOp]) -> Callable[[Case], tuple[Peer, frames.Frame]]:
    return lambda case: (case.ann, frames.Admin(operation(case)))


def by_root(operation: Callable[[Case], admin.AdminOp]) -> Callable[[Case], tuple[Peer, frames.Frame]]:
    return lambda case: (case.root, frames.Admin(operation(case)))


OPERATIONS: dict[str, Callable[[Case], tuple[Peer, frames.Frame]]] = {
    "create": by_ann(lambda case: admin.CreateChannel(f"new {case.name}", Visibility.PRIVATE)),
    "delete": by_ann(lambda case: admin.DeleteChannel(case.name)),
    "rename": by_ann(lambda case: admin.RenameChannel(case.name, f"new {case.name}")),
    "private": by_ann(lambda case: admin.SetVisibility(case.name, Visibility.PRIVATE)),
    "acl add": by_ann(lambda case: admin.AclAdd(case.name, "eve")),
    "acl remove": by_ann(lambda case: admin.AclRemove(case.name, case.user)),
    "acl promote": by_ann(lambda case: admin.AclPromote(case.name, "eve")),
    "acl demote": by_ann(lambda case: admin.AclDemote(case.name, case.user)),
    "kick": by_ann(lambda case: admin.Kick(case.name, case.user)),
    "ban": by_ann(lambda case: admin.Ban(case.name, case.user)),
    "unban": by_ann(lambda case: admin.Unban(case.name, "eve")),
    "invite create": by_ann(lambda case: admin.InviteCreate(case.name, 5)),
    "invite revoke": by_ann(lambda case: admin.InviteRevoke(case.token)),
    "machine add": by_ann(lambda case: admin.MachineAdd(case.name, bytes(SigningKey.generate().verify_key))),
    "user remove": by_root(lambda case: admin.UserRemove(case.user)),
    "server-invite create": by_root(lambda _: admin.ServerInviteCreate(5)),
}
TAKES_THE_CHANNEL = {"delete", "acl remove", "kick", "ban", "user remove"}


@asynccontextmanager
async def running_setup(redis_url: str) -> AsyncIterator[Setup]:
    peers, store = Peers(), Store(redis_url)
    async with node_object(redis_url, admins=ROOT) as node, node_object(redis_url, admins=ROOT) as other:
        setup = Setup(node, other, peers, store)
        await setup.open()
        try:
            yield setup
        finally:
            setup.fault.mend()
            await peers.close()
            store.close()


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("what", by_form(("ban", "rename", "user remove"), tuple(OPERATIONS), tuple(OPERATIONS)))
async def test_an_operation_happens_or_does_not(redis_url: str, what: str, *, late: bool) -> None:
    """At every step, before it and after it. Another node's heartbeat makes up for a missing announcement."""
    async with running_setup(redis_url) as setup:
        for passes in range(MOST_STEPS):
            case = await setup.new_case()
            before, channel_id = setup.store.snapshot(), setup.store.id_of(case.name)
            version = setup.store.version(channel_id)
            peer, request = OPERATIONS[what](case)
            setup.fault.arm(passes, late=late)
            answer = await _ask(peer, request)
            setup.fault.mend()
            happened = (setup.store.snapshot(), setup.store.version(channel_id)) != (before, version)
            assert answer in ("done", AWAY)
            assert happened or answer == AWAY, "acknowledged, and not done"
            await setup.announce_pending()
            assert setup.store.announced(channel_id)
            await _check_victim(setup, case, lost=happened and what in TAKES_THE_CHANNEL)
            if happened and answer == AWAY:
                await _check_repeat(setup, case, what)
            if not setup.fault.struck:
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


async def _check_victim(setup: Setup, case: Case, *, lost: bool) -> None:
    """Assert that the victim receives a new message exactly if the channel was not taken from it."""
    names = [name for name in setup.store.snapshot().channels if name.endswith(case.name)]
    name = "new " + case.name if "new " + case.name in names and case.name not in names else case.name
    if name in names:
        await case.ann.post(name, "now")
        if not lost:
            await wait_until(lambda: case.bob.bodies[-1:] == ["now"], what="a session that stays receives it")
    if lost:
        request = frames.ChannelMsg(name, NOWHERE, Plain("hi"))
        try:
            told = await case.bob.refusal(request)
        except ConnectionError:
            told = None
        assert told is None or told.startswith("unauthorized: "), told
        assert "now" not in case.bob.bodies


async def _check_repeat(setup: Setup, case: Case, what: str) -> None:
    """Assert that a client that repeats what was answered with `away` is answered, and changes nothing but invites."""
    if what.endswith("create") or what in {"machine add", "rename", "delete"}:
        return  # each makes another one, or finds none
    before: Snapshot = setup.store.snapshot()
    peer, request = OPERATIONS[what](case)
    assert await _ask(peer, request) == "done"
    assert setup.store.snapshot() == before


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_a_machine_is_revoked_or_is_not(redis_url: str, *, late: bool) -> None:
    """With its sessions: they end although the node with the request could not send a signal."""
    async with running_setup(redis_url) as setup:
        for passes in range(MOST_STEPS):
            key = SigningKey.generate()
            await setup.ann.ask(frames.Admin(admin.MachineAdd("stolen", bytes(key.verify_key))), frames.Ack)
            thief = await setup.peers.login(setup.other_url, key)
            setup.fault.arm(passes, late=late)
            answer = await _ask(setup.ann, frames.Admin(admin.MachineRemove("stolen")))
            setup.fault.mend()
            await setup.announce_pending()
            gone = "stolen" not in setup.store.snapshot().machines["ann"]
            assert gone or answer == AWAY
            if gone:
                assert await thief.wait_closed() == "unauthorized: machine key revoked"
            else:
                await thief.ask(frames.Ping(), frames.Pong)
                await setup.ann.ask(frames.Admin(admin.MachineRemove("stolen")), frames.Ack)
            if not setup.fault.struck:
                return
    raise AssertionError(f"still not done after {MOST_STEPS} commands")


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_an_invite_is_redeemed_or_is_not(redis_url: str, *, late: bool) -> None:
    """A use that is gone has made a member; then the next attempt needs no token."""
    async with running_setup(redis_url) as setup:
        for passes in range(MOST_STEPS):
            case = await setup.new_case()
            await setup.ann.ask(frames.Admin(admin.SetVisibility(case.name, Visibility.PRIVATE)), frames.Ack)
            cid = await setup.peers.register(setup.url, f"cid{passes}")
            setup.fault.arm(passes, late=late)
            answer = await _ask(cid, frames.Join(case.name, case.token))
            setup.fault.mend()
            channel = setup.store.snapshot().channels[case.name]
            member = cid.path.user in channel.members
            assert channel.invites == (("2 -",) if member else ("3 -",))
            assert member or answer == AWAY
            await cid.join(case.name, None if member else case.token)
            if not setup.fault.struck:
                return
    raise AssertionError(f"still not done after {MOST_STEPS} commands")


async def test_the_next_heartbeat_makes_the_missing_announcement(redis_url: str) -> None:
    """The next heartbeat of any node finds the pending announcement."""
    async with running_setup(redis_url) as setup:
        case = await setup.new_case()
        setup.fault.arm(2, late=False)  # the version and who is inside were read, and the ban is in the directory
        assert await _ask(case.ann, frames.Admin(admin.Ban(case.name, case.user))) == AWAY
        assert setup.store.pending() != {}
        assert case.user in setup.store.snapshot().channels[case.name].bans
        setup.fault.mend()
        await wait_until(lambda: not setup.store.pending(), what="a heartbeat has announced it")
        assert setup.store.announced(setup.store.id_of(case.name))
        await _check_victim(setup, case, lost=True)


async def test_a_killed_redis_has_the_operation_or_has_not(redis_process: RedisProcess) -> None:
    """The process dies at some moment of a ban; its files are consistent, and the ban takes effect."""
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
            banned = bob.path.user in store.snapshot().channels[name].bans
            happened.append(banned)
            assert banned or answer == AWAY
            await wait_until(lambda: not store.pending(), what="a heartbeat has announced it")
            assert store.announced(store.id_of(name))
            await wait_until(lambda bob=bob: _is_served(bob), what="the other node is back")  # type: ignore[misc]
            await ann.post(name, "now")
            if banned:
                assert (await bob.refusal(frames.ReadSince(name, 0))).startswith("unauthorized: not a member")
                assert "now" not in bob.bodies
            else:
                await wait_until(lambda bob=bob: "now" in bob.bodies, what="a session that stays receives it")  # type: ignore[misc]
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

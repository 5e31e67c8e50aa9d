"""Orders of events that a race has once in a thousand times, each one forced, on two nodes."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from nacl.signing import SigningKey
from redis import Redis

from conclave.model import Visibility
from conclave.protocol.v1 import admin, frames
from relay.app.node import Node
from relay.redis import scripts
from tests.support.blocking import BlockedCommand, signals_held, subscriptions_blocked
from tests.support.directory import Store
from tests.support.moderation import REVOKED, ROOT, a_post, administer
from tests.support.nodes import node_object
from tests.support.peer import Peer, Peers, Refused
from tests.support.waiting import wait_until


class TwoNodes:
    """Ann, the creator of `ops`, and root on one node; bob and cid on the other. Ann and cid have joined it."""

    def __init__(self, one: Node, other: Node, peers: Peers, redis_url: str) -> None:
        self.other = other
        self.urls = f"ws://{one.address}/", f"ws://{other.address}/"
        self.redis_url = redis_url
        self.store = Store(redis_url)
        self.peers = peers

    async def open(self) -> None:
        self.ann, self.root = [await self.peers.register(self.urls[0], user) for user in ("ann", "root")]
        self.key = SigningKey.generate()
        self.bob = self.peers.keep(await Peer.login(self.urls[1], self.key, register=("bob", "laptop")))
        self.cid = await self.peers.register(self.urls[1], "cid")
        await self.ann.create("ops")
        await self.ann.join("ops")
        await self.cid.join("ops")
        await self.post_to_cid("ops", "hello")

    async def post_to_cid(self, channel: str, body: str) -> None:
        """Let ann post, and wait until the other node has delivered the message to cid."""
        await self.ann.post(channel, body)
        await wait_until(lambda: self.cid.bodies[-1:] == [body], what=f"cid gets `{body}`")

    async def bob_is_out(self, channel: str) -> None:
        """Assert that bob can neither receive, post, nor read history."""
        await self.post_to_cid(channel, "without bob")
        assert "without bob" not in self.bob.bodies
        for request in (a_post(channel), frames.ReadSince(channel, 0)):
            assert await self.bob.refusal(request) == f"unauthorized: not a member of channel `{channel}`"


@pytest.fixture
async def two(redis_url: str) -> AsyncIterator[TwoNodes]:
    peers = Peers()
    async with node_object(redis_url, admins=ROOT) as one, node_object(redis_url, admins=ROOT) as other:
        two = TwoNodes(one, other, peers, redis_url)
        try:
            await two.open()
            yield two
        finally:
            await peers.close()
            two.store.close()


async def test_a_ban_overtakes_a_join_that_was_permitted_before(two: TwoNodes) -> None:
    """The join is answered, but later messages do not reach the banned user."""
    blocked = BlockedCommand(two.other, scripts.ENTER)
    joining = asyncio.create_task(two.bob.join("ops"))
    await blocked.reached.wait()
    await administer(two.ann, admin.Ban("ops", "bob"))
    blocked.release()
    await joining
    await two.bob_is_out("ops")
    assert await two.bob.refusal(frames.Join("ops")) == "unauthorized: channel `ops` is private"


async def test_a_rename_overtakes_a_join(two: TwoNodes) -> None:
    """A session that joined by the old name is in the channel under the new one only, and a ban finds it."""
    blocked = BlockedCommand(two.other, scripts.ENTER)
    joining = asyncio.create_task(two.bob.join("ops"))
    await blocked.reached.wait()
    await administer(two.ann, admin.RenameChannel("ops", "dev"))
    await two.post_to_cid("dev", "renamed")
    blocked.release()
    await joining
    await two.post_to_cid("dev", "with bob")
    await wait_until(lambda: two.bob.messages, what="bob gets it")
    assert two.bob.messages[-1].channel == "dev"
    await two.bob.post("dev", "hi")
    assert await two.bob.refusal(a_post("ops")) == "unauthorized: not a member of channel `ops`"
    await administer(two.ann, admin.Ban("dev", "bob"))
    await two.bob_is_out("dev")
    assert await two.bob.refusal(a_post("ops")) == "unauthorized: not a member of channel `ops`"


async def test_a_deletion_overtakes_a_join(two: TwoNodes) -> None:
    """No subscriber is left in a channel that does not exist."""
    blocked = BlockedCommand(two.other, scripts.ENTER, answers=True)
    joining = asyncio.create_task(two.bob.join("ops"))
    await blocked.reached.wait()
    channel = two.other.parts.fanout._channels[two.store.id_of("ops")]
    await administer(two.ann, admin.DeleteChannel("ops"))
    await wait_until(lambda: not channel.subscribers, what="the other node has removed its subscribers")
    blocked.release()
    with pytest.raises(Refused, match="not found: channel `ops` not found"):
        await joining
    assert not channel.subscribers
    await two.ann.create("ops")
    assert await two.bob.who("ops") == []


async def test_a_join_overtakes_the_review_of_the_earlier_subscription(two: TwoNodes) -> None:
    """A kicked session that joins again stays: the pending dismissal no longer applies."""
    await two.bob.join("ops")
    blocked = BlockedCommand(two.other, scripts.REVIEW, answers=True)
    await administer(two.ann, admin.Kick("ops", "bob"))
    await blocked.reached.wait()
    await two.bob.join("ops")
    blocked.release()
    await two.post_to_cid("ops", "with bob")
    await wait_until(lambda: two.bob.bodies[-1:] == ["with bob"], what="bob gets it")
    await two.bob.post("ops", "hi")
    assert await two.cid.who("ops") == ["ann/laptop/main", "bob/laptop/main", "cid/laptop/main"]


async def test_a_message_carries_the_version_that_was_not_announced(two: TwoNodes) -> None:
    """A node that has not applied the version reviews its sessions before it delivers."""
    await two.bob.join("ops")
    await two.post_to_cid("ops", "with bob")
    _kick_unannounced(two, "bob")
    await two.bob_is_out("ops")


async def test_a_post_is_refused_after_a_kick_that_was_not_announced(two: TwoNodes) -> None:
    """The log refuses posts of a node that has not applied its version; other posters of that node are not affected."""
    await two.bob.join("ops")
    _kick_unannounced(two, "bob")
    assert await two.bob.refusal(a_post("ops")) == "unauthorized: not a member of channel `ops`"
    await two.cid.post("ops", "but cid may")
    assert await two.ann.history("ops") == ["hello", "but cid may"]


async def test_history_is_refused_after_a_kick_that_was_not_announced(two: TwoNodes) -> None:
    """Reading needs the same permission as receiving."""
    await two.bob.join("ops")
    _kick_unannounced(two, "bob")
    assert await two.bob.refusal(frames.ReadSince("ops", 0)) == "unauthorized: not a member of channel `ops`"
    assert await two.cid.history("ops") == ["hello"]


def _kick_unannounced(two: TwoNodes, user: str) -> None:
    """Do what a kick does, without its announcement."""
    with Redis.from_url(two.redis_url) as store:
        channel_id = two.store.id_of("ops")
        version = store.hincrby(f"conclave:{{dir}}:channel:{channel_id}", "version", 1)
        store.hset(f"conclave:{{dir}}:removed:{channel_id}", user, f"{version} kicked")
        store.hset(f"conclave:{{c:{channel_id}}}:head", "version", str(version))


async def test_a_new_name_is_valid_on_a_node_that_missed_the_rename(two: TwoNodes) -> None:
    """A client that reads `renamed` may use the new name in its next request, on any node."""
    await two.bob.join("ops")
    with subscriptions_blocked(two.redis_url):
        await administer(two.ann, admin.RenameChannel("ops", "dev"))
        await two.bob.post("dev", "at once")
        assert await two.cid.history("dev") == ["hello", "at once"]
        assert await two.bob.who("dev") == ["ann/laptop/main", "bob/laptop/main", "cid/laptop/main"]


async def test_a_name_that_moves_to_another_channel_costs_the_first_no_subscriber(two: TwoNodes) -> None:
    """A session that joins the new channel of that name stays in the earlier one, under its new name."""
    await two.bob.join("ops")
    with subscriptions_blocked(two.redis_url):
        await administer(two.ann, admin.RenameChannel("ops", "dev"))
        await two.ann.create("ops")
        joining = asyncio.create_task(two.bob.join("ops"))
        await wait_until(
            lambda: two.other.parts.fanout._channels[two.store.id_of("dev")].name == "dev", what="the rename is known"
        )
    await joining
    await two.bob.post("dev", "in both")
    await two.bob.post("ops", "in both")


async def test_a_channel_that_was_private_for_a_moment_has_lost_its_nonmembers(two: TwoNodes) -> None:
    """A node that gets both changes at once still removes the sessions of nonmembers."""
    await two.bob.join("ops")
    await administer(two.ann, admin.AclAdd("ops", "cid"))
    with subscriptions_blocked(two.redis_url):
        for tier in (Visibility.PRIVATE, Visibility.PUBLIC):
            await administer(two.ann, admin.SetVisibility("ops", tier))
    await two.bob_is_out("ops")


@pytest.mark.parametrize("what", ["create", "machine", "join"])
async def test_a_request_of_a_removed_user_is_not_done_for_the_next_of_that_name(two: TwoNodes, what: str) -> None:
    """The name has a new owner when the request arrives: the request is refused because of its key."""
    await administer(two.ann, admin.SetVisibility("ops", Visibility.PRIVATE))
    token = await two.ann.invite("ops")
    cases: dict[str, tuple[scripts.Script, frames.Frame]] = {
        "create": (scripts.CHANNEL_CREATE, frames.Admin(admin.CreateChannel("den", Visibility.PRIVATE))),
        "machine": (scripts.MACHINE_ADD, frames.Admin(admin.MachineAdd("mine", bytes(32)))),
        "join": (scripts.JOIN, frames.Join("ops", token)),
    }
    script, request = cases[what]
    blocked = BlockedCommand(two.other, script)
    asking = asyncio.create_task(two.bob.refusal(request))
    await blocked.reached.wait()
    await administer(two.root, admin.UserRemove("bob"))
    await two.peers.register(two.urls[0], "bob", machine="desk")
    before = two.store.snapshot()
    blocked.release()
    assert await asking == REVOKED
    assert two.store.snapshot() == before
    assert before.machines["bob"] == {"desk"}


async def test_a_login_that_is_under_way_does_not_outlive_its_user(two: TwoNodes) -> None:
    """Its key was valid when it was read; the login or its session ends with the user."""
    blocked = BlockedCommand(two.other, scripts.LEASE_TAKE)
    logging_in = asyncio.create_task(Peer.login(two.urls[1], two.key, "second"))
    await blocked.reached.wait()
    await administer(two.root, admin.UserRemove("bob"))
    assert await two.bob.wait_closed() == "unauthorized: user removed from this server"
    blocked.release()
    with pytest.raises(Refused, match=r"user removed from this server|unknown machine key"):
        await logging_in
    assert await two.ann.who() == ["ann/laptop/main", "cid/laptop/main", "root/laptop/main"]


async def test_a_login_whose_key_is_revoked_between_two_of_its_steps_is_refused(two: TwoNodes) -> None:
    """The signal came before there was a session to close; the second read of the key finds that it is gone."""
    blocked = BlockedCommand(two.other, "HGET", answers=True)
    logging_in = asyncio.create_task(Peer.login(two.urls[1], two.key, "second"))
    await blocked.reached.wait()
    await administer(two.root, admin.UserRemove("bob"))
    await two.bob.wait_closed()
    blocked.release()
    with pytest.raises(Refused, match=r"^unauthorized: unknown machine key$"):
        await logging_in
    assert await two.ann.who() == ["ann/laptop/main", "cid/laptop/main", "root/laptop/main"]


async def test_a_removed_user_gets_nothing_where_the_signal_has_not_arrived(two: TwoNodes) -> None:
    """The user's channels have a new version at once, before the signal reaches the node of the session."""
    await two.bob.join("ops")
    await two.post_to_cid("ops", "with bob")
    with signals_held(two.other):
        await administer(two.root, admin.UserRemove("bob"))
        await two.bob_is_out("ops")
        assert not two.bob.is_closed
    assert await two.bob.wait_closed() == "unauthorized: user removed from this server"

"""Orders of events that racing hits once in a thousand times, each brought about on purpose, on two nodes."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from nacl.signing import SigningKey
from redis import Redis

from conclave.model import Visibility
from conclave.protocol.v1 import admin, frames
from relay.app.node import Node
from relay.redis import scripts
from tests.support.blocking import Gate, nodes_that_hear_no_messages, nodes_that_hear_no_signals
from tests.support.directory import Store
from tests.support.moderation import REVOKED, ROOT, rule, say
from tests.support.nodes import node_object
from tests.support.peer import Peer, Peers, Refused
from tests.support.waiting import wait_until


class House:
    """Ann, who made the channel `ops`, and root on one node; bob and cid on the other, cid in the channel with ann."""

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
        await self.cid_hears("ops", "hello")

    async def cid_hears(self, channel: str, body: str) -> None:
        """Have ann say something, and wait until the other node has delivered it."""
        await self.ann.post(channel, body)
        await wait_until(lambda: self.cid.bodies[-1:] == [body], what=f"cid hears `{body}`")

    async def bob_is_out(self, channel: str) -> None:
        """Assert that bob neither hears nor says nor reads anything."""
        await self.cid_hears(channel, "without bob")
        assert "without bob" not in self.bob.bodies
        for request in (say(channel), frames.ReadSince(channel, 0)):
            assert await self.bob.refusal(request) == f"unauthorized: not a member of channel `{channel}`"


@pytest.fixture
async def house(redis_url: str) -> AsyncIterator[House]:
    peers = Peers()
    async with node_object(redis_url, admins=ROOT) as one, node_object(redis_url, admins=ROOT) as other:
        house = House(one, other, peers, redis_url)
        try:
            await house.open()
            yield house
        finally:
            await peers.close()
            house.store.close()


async def test_a_ban_overtakes_a_join_that_was_let_in_before(house: House) -> None:
    """The join is answered, and worth nothing: what is said from now on does not reach who was banned."""
    gate = Gate(house.other, scripts.ENTER)
    joining = asyncio.create_task(house.bob.join("ops"))
    await gate.reached.wait()
    await rule(house.ann, admin.Ban("ops", "bob"))
    gate.open()
    await joining
    await house.bob_is_out("ops")
    assert await house.bob.refusal(frames.Join("ops")) == "unauthorized: channel `ops` is private"


async def test_a_rename_overtakes_a_join(house: House) -> None:
    """A session that joined by the old name is in the channel under the new one only, and a ban finds it."""
    gate = Gate(house.other, scripts.ENTER)
    joining = asyncio.create_task(house.bob.join("ops"))
    await gate.reached.wait()
    await rule(house.ann, admin.RenameChannel("ops", "dev"))
    await house.cid_hears("dev", "renamed")
    gate.open()
    await joining
    await house.cid_hears("dev", "with bob")
    await wait_until(lambda: house.bob.messages, what="bob hears")
    assert house.bob.messages[-1].channel == "dev"
    await house.bob.post("dev", "hi")
    assert await house.bob.refusal(say("ops")) == "unauthorized: not a member of channel `ops`"
    await rule(house.ann, admin.Ban("dev", "bob"))
    await house.bob_is_out("dev")
    assert await house.bob.refusal(say("ops")) == "unauthorized: not a member of channel `ops`"


async def test_a_deletion_overtakes_a_join(house: House) -> None:
    """Nobody is left over in a room that is no channel's."""
    gate = Gate(house.other, scripts.ENTER, answers=True)
    joining = asyncio.create_task(house.bob.join("ops"))
    await gate.reached.wait()
    room = house.other.parts.fanout._channels[house.store.id_of("ops")]
    await rule(house.ann, admin.DeleteChannel("ops"))
    await wait_until(lambda: not room.subscribers, what="the other node has let go of the channel")
    gate.open()
    with pytest.raises(Refused, match="not found: channel `ops` not found"):
        await joining
    assert not room.subscribers
    await house.ann.create("ops")
    assert await house.bob.who("ops") == []


async def test_a_join_overtakes_the_verdict_on_the_session_before(house: House) -> None:
    """A kicked session that joins again stays: the pending dismissal no longer applies."""
    await house.bob.join("ops")
    gate = Gate(house.other, scripts.REVIEW, answers=True)
    await rule(house.ann, admin.Kick("ops", "bob"))
    await gate.reached.wait()
    await house.bob.join("ops")
    gate.open()
    await house.cid_hears("ops", "with bob")
    await wait_until(lambda: house.bob.bodies[-1:] == ["with bob"], what="bob hears")
    await house.bob.post("ops", "hi")
    assert await house.cid.who("ops") == ["ann/laptop/main", "bob/laptop/main", "cid/laptop/main"]


async def test_the_next_message_says_what_an_announcement_did_not(house: House) -> None:
    """It carries the version; a node that has not applied that version looks before it delivers."""
    await house.bob.join("ops")
    await house.cid_hears("ops", "with bob")
    _kick_without_a_word(house, "bob")
    await house.bob_is_out("ops")


async def test_a_post_is_not_taken_from_one_who_lost_the_channel_without_an_announcement(house: House) -> None:
    """The log refuses what a node says that has not applied its version; others who post there are not troubled."""
    await house.bob.join("ops")
    _kick_without_a_word(house, "bob")
    assert await house.bob.refusal(say("ops")) == "unauthorized: not a member of channel `ops`"
    await house.cid.post("ops", "but cid may")
    assert await house.ann.history("ops") == ["hello", "but cid may"]


async def test_nor_is_history_shown_to_them(house: House) -> None:
    """Reading is hearing."""
    await house.bob.join("ops")
    _kick_without_a_word(house, "bob")
    assert await house.bob.refusal(frames.ReadSince("ops", 0)) == "unauthorized: not a member of channel `ops`"
    assert await house.cid.history("ops") == ["hello"]


def _kick_without_a_word(house: House, user: str) -> None:
    """Do what a kick does, save publishing that it was done."""
    with Redis.from_url(house.redis_url) as store:
        channel_id = house.store.id_of("ops")
        version = store.hincrby(f"conclave:{{dir}}:channel:{channel_id}", "version", 1)
        store.hset(f"conclave:{{dir}}:removed:{channel_id}", user, f"{version} kicked")
        store.hset(f"conclave:{{c:{channel_id}}}:head", "version", str(version))


async def test_a_new_name_counts_where_it_has_not_been_heard_of(house: House) -> None:
    """A client that reads `renamed` may use the new name in its next request, on any node."""
    await house.bob.join("ops")
    with nodes_that_hear_no_messages(house.redis_url):
        await rule(house.ann, admin.RenameChannel("ops", "dev"))
        await house.bob.post("dev", "at once")
        assert await house.cid.history("dev") == ["hello", "at once"]
        assert await house.bob.who("dev") == ["ann/laptop/main", "bob/laptop/main", "cid/laptop/main"]


async def test_a_name_that_passes_on_does_not_cost_its_first_channel_a_subscriber(house: House) -> None:
    """Joining what is now called so leaves one in what was called so, under its new name."""
    await house.bob.join("ops")
    with nodes_that_hear_no_messages(house.redis_url):
        await rule(house.ann, admin.RenameChannel("ops", "dev"))
        await house.ann.create("ops")
        joining = asyncio.create_task(house.bob.join("ops"))
        await wait_until(
            lambda: house.other.parts.fanout._channels[house.store.id_of("dev")].name == "dev", what="it is known"
        )
    await joining
    await house.bob.post("dev", "in both")
    await house.bob.post("ops", "in both")


async def test_private_and_public_again_is_not_as_if_nothing_had_been(house: House) -> None:
    """A node that hears of both at once still puts those out who were not members."""
    await house.bob.join("ops")
    await rule(house.ann, admin.AclAdd("ops", "cid"))
    with nodes_that_hear_no_messages(house.redis_url):
        for tier in (Visibility.PRIVATE, Visibility.PUBLIC):
            await rule(house.ann, admin.SetVisibility("ops", tier))
    await house.bob_is_out("ops")


@pytest.mark.parametrize("what", ["create", "machine", "join"])
async def test_what_a_removed_user_was_about_to_do_is_not_done_in_the_name_of_the_next(house: House, what: str) -> None:
    """The name has a new owner when the request arrives: it is refused for the key that asks."""
    await rule(house.ann, admin.SetVisibility("ops", Visibility.PRIVATE))
    token = await house.ann.invite("ops")
    scenes: dict[str, tuple[scripts.Script, frames.Frame]] = {
        "create": (scripts.CHANNEL_CREATE, frames.Admin(admin.CreateChannel("den", Visibility.PRIVATE))),
        "machine": (scripts.MACHINE_ADD, frames.Admin(admin.MachineAdd("mine", bytes(32)))),
        "join": (scripts.JOIN, frames.Join("ops", token)),
    }
    script, request = scenes[what]
    gate = Gate(house.other, script)
    asking = asyncio.create_task(house.bob.refusal(request))
    await gate.reached.wait()
    await rule(house.root, admin.UserRemove("bob"))
    await house.peers.register(house.urls[0], "bob", machine="desk")
    before = house.store.snapshot()
    gate.open()
    assert await asking == REVOKED
    assert house.store.snapshot() == before
    assert before.machines["bob"] == {"desk"}


async def test_a_login_that_is_under_way_does_not_outlive_its_user(house: House) -> None:
    """Its key was good when it was looked up; whatever comes of that ends with the user."""
    gate = Gate(house.other, scripts.LEASE_TAKE)
    logging_in = asyncio.create_task(Peer.login(house.urls[1], house.key, "second"))
    await gate.reached.wait()
    await rule(house.root, admin.UserRemove("bob"))
    assert await house.bob.wait_closed() == "unauthorized: user removed from this server"
    gate.open()
    with pytest.raises(Refused, match=r"user removed from this server|unknown machine key"):
        await logging_in
    assert await house.ann.who() == ["ann/laptop/main", "cid/laptop/main", "root/laptop/main"]


async def test_a_login_whose_key_is_revoked_between_two_of_its_steps_is_refused(house: House) -> None:
    """The signal came before there was a session that could hear it; the second look finds that the key is gone."""
    gate = Gate(house.other, "HGET", answers=True)
    logging_in = asyncio.create_task(Peer.login(house.urls[1], house.key, "second"))
    await gate.reached.wait()
    await rule(house.root, admin.UserRemove("bob"))
    await house.bob.wait_closed()
    gate.open()
    with pytest.raises(Refused, match=r"^unauthorized: unknown machine key$"):
        await logging_in
    assert await house.ann.who() == ["ann/laptop/main", "cid/laptop/main", "root/laptop/main"]


async def test_a_removed_user_hears_nothing_where_the_signal_has_not_arrived(house: House) -> None:
    """Their channels know at once that somebody in them may be gone, whether or not their node is told who."""
    await house.bob.join("ops")
    await house.cid_hears("ops", "with bob")
    with nodes_that_hear_no_signals(house.redis_url):
        await wait_until(lambda: _are_served(house.root, house.bob), what="the nodes are back, deaf for signals")
        await rule(house.root, admin.UserRemove("bob"))
        await house.bob_is_out("ops")
        assert not house.bob.is_closed
    assert await house.bob.wait_closed() == "unauthorized: user removed from this server"


async def _are_served(*peers: Peer) -> bool:
    try:
        for peer in peers:
            await peer.who()
    except Refused:
        return False
    return True

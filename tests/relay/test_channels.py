"""Channels on two nodes: who may join, who may invite, who sees what."""

import asyncio

import pytest
from redis import Redis

from conclave.model import Plain, SessionPath, Visibility
from conclave.protocol.v1 import admin, frames
from relay.services.server_admins import ServerAdmins
from tests.support.nodes import running_node
from tests.support.peer import Peer, Peers, Refused
from tests.support.waiting import wait_until

PUBLIC, UNLISTED, PRIVATE = Visibility.PUBLIC, Visibility.UNLISTED, Visibility.PRIVATE
NOT_FOUND = "not found: channel `ops` not found"
BAD_NAMES = ["", "a/b", " a", "a ", "a\nb", "a\x1bb", "a\u200bb", "a\u202eb", "a\u00a0b", "e\u0301", "x" * 65]


async def listed(peer: Peer) -> list[tuple[str, bool]]:
    reply = await peer.ask(frames.ListChannels(), frames.ChannelList)
    return [(channel.name, channel.member) for channel in reply.channels]


@pytest.mark.parametrize("visibility", [PUBLIC, UNLISTED])
async def test_an_open_channel_is_joined_by_its_name(
    pair: tuple[str, str], peers: Peers, visibility: Visibility
) -> None:
    """A token is ignored there, joining again is fine, and joining makes nobody a member."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    await ann.create("ops", visibility)
    await bob.join("ops")
    await bob.join("ops", "no token at all")
    await ann.join("ops")
    assert await bob.who("ops") == ["ann/laptop/main", "bob/laptop/main"]
    assert ("ops", True) not in await listed(bob)


async def test_a_private_channel_is_joined_by_members_only(pair: tuple[str, str], peers: Peers) -> None:
    """The creator is a member from the start, and pre-authorised users are before they exist."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    await ann.create("ops", PRIVATE)
    await ann.join("ops")
    assert await bob.refusal(frames.Join("ops")) == NOT_FOUND
    for user in ("bob", "cid"):
        assert await ann.ask(frames.Admin(admin.AclAdd("ops", user)), frames.Ack) == frames.Ack(user)
    await bob.join("ops")
    cid = await peers.register(pair[1], "cid")
    assert await listed(cid) == [("ops", True)]
    await cid.join("ops")


async def test_a_valid_token_makes_a_member(pair: tuple[str, str], peers: Peers) -> None:
    """The next join needs no token."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    await ann.create("ops", PRIVATE)
    token = await ann.invite("ops", uses=1, seconds=60)
    assert len(token) == 32
    await bob.join("ops", token)
    assert await listed(bob) == [("ops", True)]
    again = await peers.register(pair[1], "cid")
    assert await again.refusal(frames.Join("ops", token)) == NOT_FOUND, "its one use is gone"
    await bob.ask(frames.Leave("ops"), frames.Ack)
    await bob.join("ops")


async def test_a_token_without_limits_serves_everybody(url: str, peers: Peers) -> None:
    """A team shares one link."""
    ann = await peers.register(url, "ann")
    await ann.create("ops", PRIVATE)
    token = await ann.invite("ops")
    for user in ("bob", "cid", "dan"):
        await (await peers.register(url, user)).join("ops", token)


async def test_a_members_join_does_not_use_up_the_token(url: str, peers: Peers) -> None:
    """Clients pass the token they have at every reconnect."""
    ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
    await ann.create("ops", PRIVATE)
    token = await ann.invite("ops", uses=1)
    await ann.join("ops", token)
    await bob.join("ops", token)


async def test_a_join_with_an_invalid_token_is_refused_like_an_absent_channel(
    url: str, peers: Peers, redis_url: str
) -> None:
    """Unknown, another channel's, used up, or expired: no refusal shows that the channel exists."""
    ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
    await ann.create("ops", PRIVATE)
    await ann.create("dev", PRIVATE)
    elsewhere = await ann.invite("dev")
    expired = await ann.invite("ops", seconds=60)
    with Redis.from_url(redis_url) as store:
        (invites,) = [key for key in store.keys("*:invites:*") if store.hexists(key, expired)]
        store.hset(invites, expired, "- 1000")  # unlimited, until a second after 1970
    for token in ("", "nonsense", elsewhere, expired):
        assert await bob.refusal(frames.Join("ops", token)) == NOT_FOUND
    assert await listed(bob) == []


async def test_of_racing_joins_with_a_single_use_invite_one_succeeds(pair: tuple[str, str], peers: Peers) -> None:
    """The check and the use are one step, on any nodes."""
    ann = await peers.register(pair[0], "ann")
    await ann.create("ops", PRIVATE)
    token = await ann.invite("ops", uses=1)
    rivals = await asyncio.gather(*(peers.register(pair[i % 2], f"user{i}") for i in range(10)))
    results = await asyncio.gather(*(rival.join("ops", token) for rival in rivals), return_exceptions=True)
    assert [str(result) for result in results if result is not None] == [NOT_FOUND] * 9


@pytest.mark.parametrize(
    ("uses", "seconds", "text"),
    [
        (0, None, "malformed frame: an invite needs at least 1 use"),
        (None, 0, "malformed frame: an invite needs a lifetime of at least 1 second"),
        (None, 2**64 - 1, "malformed frame: invite expiry is too far in the future"),
        (None, 2**63, "malformed frame: invite expiry is too far in the future"),
    ],
)
async def test_an_invite_without_a_use_or_a_lifetime_is_refused(
    url: str, peers: Peers, uses: int | None, seconds: int | None, text: str
) -> None:
    """The original creates such an invite, which nobody can use."""
    ann = await peers.register(url, "ann")
    await ann.create("ops", PRIVATE)
    assert await ann.refusal(frames.Admin(admin.InviteCreate("ops", uses, seconds))) == text


async def test_the_greatest_numbers_of_an_invite_are_kept_exactly(url: str, peers: Peers) -> None:
    """Both are written by Lua, whose numbers are floats."""
    ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
    await ann.create("ops", PRIVATE)
    await bob.join("ops", await ann.invite("ops", uses=2**32 - 1, seconds=3_000_000_000))


async def test_a_list_has_public_channels_and_ones_own(redis_url: str, peers: Peers) -> None:
    """A server's admin sees all, member or not."""
    async with running_node(redis_url, admins=ServerAdmins({"root": None})) as node:
        ann, bob, root = [await peers.register(node, user) for user in ("ann", "bob", "root")]
        for name, visibility in (("a-public", PUBLIC), ("b-unlisted", UNLISTED), ("c-private", PRIVATE)):
            await ann.create(name, visibility)
        await bob.join("b-unlisted")
        assert await listed(ann) == [("a-public", True), ("b-unlisted", True), ("c-private", True)]
        assert await listed(bob) == [("a-public", False)]
        assert await listed(root) == [("a-public", False), ("b-unlisted", False), ("c-private", False)]
        assert await root.refusal(frames.Join("c-private")) == "not found: channel `c-private` not found"
        await peers.close()


async def test_a_channel_name_is_unique(pair: tuple[str, str], peers: Peers) -> None:
    """A conflict is no internal error; of racing creators one has the channel."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    results = await asyncio.gather(ann.create("ops"), bob.create("ops", PRIVATE), return_exceptions=True)
    refused = [result for result in results if isinstance(result, Refused)]
    assert [str(each) for each in refused] == ["unauthorized: channel name `ops` is already taken"]
    assert results.count(None) == 1


async def test_a_bad_name_is_refused_before_anything_is_stored(url: str, peers: Peers, redis_url: str) -> None:
    """Every client would print it as it is."""
    ann = await peers.register(url, "ann")
    await ann.create("ops")
    with Redis.from_url(redis_url) as store:
        before = sorted(store.keys("*{dir}*"))
        for name in BAD_NAMES:
            text = await ann.refusal(frames.Admin(admin.CreateChannel(name, PUBLIC)))
            assert text.startswith("malformed frame: invalid channel name: `")
            text = await ann.refusal(frames.Admin(admin.AclAdd("ops", name)))
            assert text.startswith("malformed frame: invalid username: `")
            assert sorted(store.keys("*{dir}*")) == before
    assert await listed(ann) == [("ops", True)]


async def test_names_are_compared_exactly(url: str, peers: Peers) -> None:
    """Any printable text may be a name; nothing is folded or trimmed."""
    ann = await peers.register(url, "ann")
    names = ["x", "x" * 64, "日本語", "a b", "#ops", "ops", "OPS", "naïve", "🦊"]
    for name in names:
        await ann.create(name)
        await ann.join(name)
        await ann.post(name, "hi")
        assert await ann.history(name) == ["hi"]
    assert sorted(await listed(ann)) == sorted((name, True) for name in names)


async def test_a_session_that_has_left_neither_receives_nor_posts(pair: tuple[str, str], peers: Peers) -> None:
    """From the Ack on; to leave a channel that was never joined is acknowledged, too."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    await ann.create("ops")
    await ann.join("ops")
    await bob.join("ops")
    assert await bob.ask(frames.Leave("ops"), frames.Ack) == frames.Ack("ops")
    assert await bob.ask(frames.Leave("nothing"), frames.Ack) == frames.Ack("nothing")
    await ann.post("ops", "missed")
    a_post = frames.ChannelMsg("ops", SessionPath("x", "y", "z"), Plain("hi"))
    for request in (a_post, frames.ReadSince("ops", 0)):
        assert await bob.refusal(request) == "unauthorized: not a member of channel `ops`"
    assert await ann.who("ops") == ["ann/laptop/main"]
    await bob.join("ops")
    await ann.post("ops", "received")
    await wait_until(lambda: bob.bodies, what="bob receives again")
    assert bob.bodies == ["received"]

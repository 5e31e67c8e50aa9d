"""Effects of admin operations over two nodes: on members, sessions, history, invites and names."""

import asyncio
from datetime import datetime

from nacl.signing import SigningKey
from redis import Redis

from conclave.protocol.v1 import admin, frames
from tests.support.directory import Store
from tests.support.moderation import (
    BANNED,
    NOT_ADMIN,
    NOT_FOUND,
    NOT_MEMBER,
    PRIVATE,
    UNLISTED,
    a_post,
    administer,
    assert_delivered,
    assert_not_delivered,
    invites,
    listed,
    refused,
    users,
)
from tests.support.peer import Peer, Peers, Refused
from tests.support.trials import by_form
from tests.support.waiting import pause, wait_until

# --- Channels ---


async def test_a_deleted_channel_is_gone_for_all(ann: Peer, bob: Peer, store: Store) -> None:
    """With history, invites and bans; its sessions neither receive nor post, and the name is free."""
    await ann.create("ops")
    await ann.join("ops")
    await bob.join("ops")
    token = await ann.invite("ops")
    await administer(ann, admin.Ban("ops", "eve"))
    await assert_delivered(bob, ann, "ops", "old")
    await administer(ann, admin.DeleteChannel("ops"))
    for peer in (ann, bob):
        for request in (a_post("ops"), frames.ReadSince("ops", 0)):
            assert await peer.refusal(request) == NOT_MEMBER
        assert await peer.refusal(frames.Join("ops")) == NOT_FOUND
        assert await listed(peer) == []
    await bob.create("ops", PRIVATE)
    await bob.join("ops")
    assert await bob.history("ops") == []
    assert await users(bob, admin.BanList("ops")) == []
    assert await ann.refusal(frames.Join("ops", token)) == NOT_FOUND
    assert await bob.who("ops") == ["bob/laptop/main"]
    assert set(store.snapshot().channels) == {"ops"}


async def test_a_renamed_channel_is_the_same_channel(ann: Peer, bob: Peer, cid: Peer) -> None:
    """Members, invites, bans, history, and its sessions, which post and receive under the new name at once."""
    await ann.create("ops", PRIVATE)
    await administer(ann, admin.AclPromote("ops", "bob"))
    await administer(ann, admin.Ban("ops", "eve"))
    token = await ann.invite("ops", uses=2)
    await ann.join("ops")
    await bob.join("ops")
    await assert_delivered(bob, ann, "ops", "before")
    assert await ann.ask(frames.Admin(admin.RenameChannel("ops", "dev")), frames.Ack) == frames.Ack("dev")
    await bob.post("dev", "at once, on another node")
    await wait_until(lambda: ann.messages, what="ann gets it")
    assert ann.messages[-1].channel == "dev"
    await assert_delivered(bob, ann, "dev", "after")
    assert bob.messages[-1].channel == "dev"
    assert await bob.refusal(a_post("ops")) == NOT_MEMBER
    assert await bob.refusal(frames.Join("ops")) == NOT_FOUND
    assert await bob.history("dev") == ["before", "at once, on another node", "after"]
    assert await users(bob, admin.AclList("dev")) == ["ann", "bob"]
    assert await users(bob, admin.BanList("dev")) == ["eve"]
    assert await invites(bob, "dev") == {token: (2, None)}
    await cid.join("dev", token)
    await ann.create("ops")
    assert await bob.refusal(a_post("ops")) == NOT_MEMBER, "the old name is another channel's"
    assert await bob.who("dev") == ["ann/laptop/main", "bob/laptop/main", "cid/laptop/main"]


async def test_two_channels_swap_their_names(ann: Peer, bob: Peer) -> None:
    """Each channel keeps its sessions and its history under every name."""
    for name in ("ops", "dev"):
        await ann.create(name)
        await ann.join(name)
        await bob.join(name)
        await ann.post(name, f"of {name}")
    for old, new in (("ops", "x"), ("dev", "ops"), ("x", "dev")):
        await administer(ann, admin.RenameChannel(old, new))
    assert (await bob.history("dev"), await bob.history("ops")) == (["of ops"], ["of dev"])
    await assert_delivered(bob, ann, "ops", "end")
    assert bob.messages[-1].channel == "ops"


async def test_a_new_name_must_be_free_and_valid(ann: Peer, bob: Peer) -> None:
    """A conflict is no internal error; one's own name is free."""
    await ann.create("ops")
    await bob.create("dev", PRIVATE)
    assert await refused(ann, admin.RenameChannel("ops", "dev")) == "unauthorized: the new name is already taken"
    assert (await refused(ann, admin.RenameChannel("ops", "a/b"))).startswith("malformed frame: invalid channel name")
    assert await ann.ask(frames.Admin(admin.RenameChannel("ops", "ops")), frames.Ack) == frames.Ack("ops")
    assert await listed(ann) == ["ops"]


async def test_a_rename_reaches_a_node_without_sessions_in_the_channel(ann: Peer, bob: Peer) -> None:
    """A node keeps a channel for a while after its last session has left, but not under the earlier name."""
    await ann.create("ops")
    await ann.join("ops")
    await bob.join("ops")
    await bob.ask(frames.Leave("ops"), frames.Ack)
    await administer(ann, admin.RenameChannel("ops", "dev"))
    await bob.join("dev")
    await assert_delivered(bob, ann, "dev", "hi")
    assert [message.channel for message in bob.messages] == ["dev"]


async def test_a_join_during_a_rename_is_under_the_new_name_only(ann: Peer, bob: Peer, cid: Peer) -> None:
    """Else a later ban would not find the session, which would go on posting under the old name."""
    await ann.create("ops0")
    await ann.join("ops0")
    await cid.join("ops0")
    for turn in range(by_form(10, 40, 400)):
        old, new = f"ops{turn}", f"ops{turn + 1}"
        joining = asyncio.create_task(bob.join(old))
        for _ in range(turn % 5):
            await pause(0)
        await administer(ann, admin.RenameChannel(old, new))
        try:
            await joining
        except Refused as refusal:
            assert str(refusal) == f"not found: channel `{old}` not found"  # noqa: PT017 - it may be refused
            await bob.join(new)
        await assert_delivered(bob, ann, new, f"{turn}")
        assert bob.messages[-1].channel == new
        assert await bob.refusal(a_post(old)) == f"unauthorized: not a member of channel `{old}`"
        await bob.post(new, "hi")
        await administer(ann, admin.Ban(new, "bob"))
        for name in (old, new):
            assert await bob.refusal(a_post(name)) == f"unauthorized: not a member of channel `{name}`"
        await administer(ann, admin.Unban(new, "bob"))


async def test_going_private_removes_sessions_of_nonmembers(ann: Peer, bob: Peer, cid: Peer) -> None:
    """They would go on receiving; a later change to public does not bring them back."""
    await ann.create("ops")
    await administer(ann, admin.AclAdd("ops", "bob"))
    for peer in (ann, bob, cid):
        await peer.join("ops")
    await assert_delivered(cid, ann, "ops", "public")
    await administer(ann, admin.SetVisibility("ops", PRIVATE))
    await assert_delivered(bob, ann, "ops", "private")
    await assert_not_delivered(cid, ann, "ops", "private too")
    assert await cid.refusal(frames.Join("ops")) == NOT_FOUND
    assert await cid.refusal(frames.Who("ops")) == NOT_FOUND
    assert await listed(cid) == []
    await administer(ann, admin.SetVisibility("ops", UNLISTED))
    await assert_not_delivered(cid, ann, "ops", "unlisted")
    assert await listed(cid) == []
    await cid.join("ops")
    await assert_delivered(cid, ann, "ops", "back")
    assert cid.bodies == ["public", "back"]


# --- Members, admins, invites ---


async def test_a_member_who_is_removed_loses_a_private_channel_at_once(ann: Peer, bob: Peer, cid: Peer) -> None:
    """The others stay; the removal of a user who is no member is acknowledged."""
    await ann.create("ops", PRIVATE)
    for peer in (bob, cid):
        await administer(ann, admin.AclAdd("ops", peer.path.user))
        await peer.join("ops")
    await ann.join("ops")
    assert await users(ann, admin.AclList("ops")) == ["ann", "bob", "cid"]
    await administer(ann, admin.AclRemove("ops", "bob"))
    await assert_not_delivered(bob, ann, "ops", "secret")
    await assert_delivered(cid, ann, "ops", "among us")
    assert await bob.refusal(frames.Join("ops")) == NOT_FOUND
    assert await users(ann, admin.AclList("ops")) == ["ann", "cid"]
    await administer(ann, admin.AclRemove("ops", "nobody"))
    for user in ("/", "", "cid/laptop/main", "x" * 65):
        assert (await refused(ann, admin.AclRemove("ops", user))).startswith("malformed frame: invalid username")
    await cid.post("ops", "still here")


async def test_a_channel_admin_has_authority_until_the_role_is_taken(ann: Peer, bob: Peer, cid: Peer) -> None:
    """The same as the creator, who cannot be demoted; a promotion makes a member, a demotion leaves one."""
    await ann.create("ops", PRIVATE)
    await administer(ann, admin.AclPromote("ops", "bob"))
    await administer(bob, admin.AclAdd("ops", "cid"))
    assert await refused(cid, admin.AclPromote("ops", "cid")) == NOT_ADMIN
    await administer(bob, admin.AclDemote("ops", "ann"))
    await administer(ann, admin.AclDemote("ops", "bob"))
    assert await refused(bob, admin.AclList("ops")) == NOT_ADMIN
    assert await users(ann, admin.AclList("ops")) == ["ann", "bob", "cid"]
    await administer(ann, admin.AclPromote("ops", "bob"))
    await administer(ann, admin.Ban("ops", "bob"))
    assert await refused(bob, admin.AclList("ops")) == NOT_FOUND
    await administer(ann, admin.AclAdd("ops", "bob"))
    assert await refused(bob, admin.AclList("ops")) == NOT_ADMIN, "a ban takes the role for good"


async def test_a_revoked_invite_cannot_be_used(ann: Peer, bob: Peer, cid: Peer) -> None:
    """Only admins of its channel revoke it, and the reply does not show if it existed."""
    await ann.create("ops", PRIVATE)
    token, other = await ann.invite("ops"), await ann.invite("ops")
    for peer in (bob, ann):
        for each in (token, "no such token"):
            assert await peer.ask(frames.Admin(admin.InviteRevoke(each)), frames.Ack) == frames.Ack(each)
        if peer is bob:
            assert set(await invites(ann, "ops")) == {token, other}
    assert await cid.refusal(frames.Join("ops", token)) == NOT_FOUND
    await cid.join("ops", other)


async def test_the_list_of_invites_has_the_usable_ones(
    ann: Peer, bob: Peer, cid: Peer, redis_url: str, store: Store
) -> None:
    """With the rest of each; expired ones are gone, also from the store."""
    await ann.create("ops", PRIVATE)
    once, thrice, hour, expired = [
        await ann.invite("ops", uses=uses, seconds=seconds)
        for uses, seconds in ((1, None), (3, None), (None, 3600), (None, 60))
    ]
    assert set(await invites(ann, "ops")) == {once, thrice, hour, expired}
    await bob.join("ops", once)
    await cid.join("ops", thrice)
    with Redis.from_url(redis_url) as raw:
        raw.hset(f"conclave:{{dir}}:invites:{store.id_of('ops')}", expired, "- 1000")
    shown = await invites(ann, "ops")
    assert set(shown) == {thrice, hour}
    assert shown[thrice] == (2, None)
    uses, expires = shown[hour]
    assert uses is None
    assert expires is not None
    assert expires.endswith("+00:00")
    assert 3500 < datetime.fromisoformat(expires).timestamp() - datetime.now().astimezone().timestamp() <= 3600
    assert len(store.snapshot().channels["ops"].invites) == 2


# --- Kick and ban ---


async def test_a_kick_removes_one_session_or_all_of_a_user(ann: Peer, pair: tuple[str, str], peers: Peers) -> None:
    """From this channel only; they may join again."""
    key = SigningKey.generate()
    one = peers.keep(await Peer.login(pair[1], key, "one", register=("bob", "laptop")))
    two = await peers.login(pair[0], key, "two")
    for channel in ("ops", "dev"):
        await ann.create(channel)
        for peer in (ann, one, two):
            await peer.join(channel)
    path = "bob/laptop/one"
    assert await ann.ask(frames.Admin(admin.Kick("ops", path)), frames.Ack) == frames.Ack(path)
    await assert_not_delivered(one, ann, "ops", "for two only")
    await assert_delivered(two, ann, "ops", "for two")
    await assert_delivered(one, ann, "dev", "elsewhere")
    await one.join("ops")
    await assert_delivered(one, ann, "ops", "back")
    await administer(ann, admin.Kick("ops", "bob"))
    for peer in (one, two):
        await assert_not_delivered(peer, ann, "ops", "for nobody")
    await administer(ann, admin.Kick("ops", "nobody"))
    for target in ("", "a/b", "a/b/c/d", "//", "a//c", "a\nb"):
        assert (await refused(ann, admin.Kick("ops", target))).startswith("malformed frame: invalid ")


async def test_a_session_that_joins_after_a_kick_stays(ann: Peer, bob: Peer) -> None:
    """A node that still applies the kick must not remove a session that has joined since."""
    await ann.create("ops")
    await ann.join("ops")
    for turn in range(by_form(20, 100, 1_000)):
        await bob.join("ops")
        await administer(ann, admin.Kick("ops", "bob"))
        await bob.join("ops")
        await assert_delivered(bob, ann, "ops", f"{turn}")


async def test_a_banned_user_cannot_join_until_the_ban_is_lifted(
    ann: Peer, bob: Peer, cid: Peer, pair: tuple[str, str], peers: Peers
) -> None:
    """All sessions of the user, later ones too. Membership does not come back; a name without a user can be banned."""
    await ann.create("ops")
    await administer(ann, admin.AclAdd("ops", "bob"))
    for peer in (ann, bob, cid):
        await peer.join("ops")
    for user in ("bob", "dan"):
        assert await ann.ask(frames.Admin(admin.Ban("ops", user)), frames.Ack) == frames.Ack(user)
    await assert_not_delivered(bob, ann, "ops", "without bob")
    await assert_delivered(cid, ann, "ops", "with cid")
    dan = await peers.register(pair[0], "dan")
    token = await ann.invite("ops")
    for peer in (bob, dan):
        assert await peer.refusal(frames.Join("ops", token)) == BANNED
        assert await listed(peer) == ["ops"], "a public channel is no secret"
    assert await users(ann, admin.BanList("ops")) == ["bob", "dan"]
    for user in ("bob", "cid"):
        assert await ann.ask(frames.Admin(admin.Unban("ops", user)), frames.Ack) == frames.Ack(user)
    assert await users(ann, admin.BanList("ops")) == ["dan"]
    assert await users(ann, admin.AclList("ops")) == ["ann"]
    await bob.join("ops")
    await administer(ann, admin.AclAdd("ops", "dan"))
    await dan.join("ops")
    assert await users(ann, admin.BanList("ops")) == []


async def test_a_banned_creator_keeps_the_authority(ann: Peer, bob: Peer) -> None:
    """Otherwise two admins could lock each other out; a creator can lift the ban."""
    await ann.create("ops", PRIVATE)
    await administer(ann, admin.AclPromote("ops", "bob"))
    await administer(bob, admin.Ban("ops", "ann"))
    assert await ann.refusal(frames.Join("ops")) == NOT_FOUND
    await administer(ann, admin.AclAdd("ops", "ann"))
    await ann.join("ops")

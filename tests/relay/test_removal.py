"""Removal of users and machines: nothing of tnew_bobs stays, and tnew_bob requests under way have no effect."""

import asyncio

import pytest
from nacl.signing import SigningKey
from redis import Redis

from conclave.protocol.v1 import admin, frames
from relay.services.accounts import key_text
from tests.support.blocking import signals_held
from tests.support.directory import Store
from tests.support.moderation import (
    NOT_ADMIN,
    PRIVATE,
    PUBLIC,
    REMOVED,
    REVOKED,
    ROOT,
    a_post,
    administer,
    assert_not_delivered,
    listed,
    refused,
)
from tests.support.nodes import node_object
from tests.support.peer import Peer, Peers, Refused
from tests.support.waiting import wait_until


async def test_a_removed_user_leaves_nothing_to_the_next_of_that_name(
    pair: tuple[str, str], peers: Peers, ann: Peer, store: Store
) -> None:
    """Channels, memberships, roles, bans, machines, sessions go; messages in other channels stay."""
    root, bob = await peers.register(pair[0], "root"), await peers.register(pair[1], "bob")
    key = SigningKey.generate()
    await administer(bob, admin.MachineAdd("desktop", bytes(key.verify_key)))
    desktop = await peers.login(pair[0], key)
    await bob.create("bobs", PRIVATE)
    await administer(bob, admin.AclAdd("bobs", "ann"))
    await ann.join("bobs")
    for name in ("ops", "dev", "den"):
        await ann.create(name, PRIVATE)
    await administer(ann, admin.AclPromote("ops", "bob"))
    await administer(ann, admin.AclAdd("dev", "bob"))
    await administer(ann, admin.Ban("den", "bob"))
    await ann.join("ops")
    await bob.join("ops")
    await bob.post("ops", "I was here")
    kept = await bob.invite("ops")
    before = store.snapshot()
    assert await refused(ann, admin.UserRemove("bob")) == NOT_ADMIN
    assert store.snapshot() == before
    assert await root.ask(frames.Admin(admin.UserRemove("bob")), frames.Ack) == frames.Ack("bob")
    assert [await peer.wait_closed() for peer in (bob, desktop)] == [REMOVED, REMOVED]
    assert await ann.refusal(a_post("bobs")) == "unauthorized: not a member of channel `bobs`"
    assert await ann.history("ops") == ["I was here"]
    with pytest.raises(Refused, match="unknown machine key"):
        await peers.login(pair[1], key)
    new_bob = await peers.register(pair[1], "bob", machine="desktop")
    assert await listed(new_bob) == []
    for name in ("ops", "dev", "den", "bobs"):
        assert await new_bob.refusal(frames.Join(name)) == f"not found: channel `{name}` not found"
    assert [row.name for row in (await new_bob.ask(frames.ListMachines(), frames.MachineList)).machines] == ["desktop"]
    await new_bob.join("ops", kept)
    channels = store.snapshot().channels
    assert "bobs" not in channels
    assert (channels["ops"].admins, channels["den"].bans) == (frozenset(), frozenset())
    await administer(root, admin.UserRemove("nobody"))


async def test_a_channel_that_is_being_created_does_not_survive_its_creator(
    pair: tuple[str, str], peers: Peers, store: Store
) -> None:
    """Nor does any other effect of a session whose user is removed: the next user of that name would have it."""
    root, ann = await peers.register(pair[0], "root"), await peers.register(pair[0], "ann")
    await ann.create("den", PRIVATE)
    token = await ann.invite("den")
    for turn in range(20):
        bob = await peers.register(pair[1], "bob")
        doing = asyncio.create_task(_do_all(bob, token))
        if turn % 2:
            await wait_until(lambda: "bob" in store.snapshot().channels["den"].members, what="bob creates channels")
        await administer(root, admin.UserRemove("bob"))
        snapshot = store.snapshot()
        assert await bob.wait_closed() in (REMOVED, None)
        await doing
        assert store.snapshot() == snapshot
        assert set(snapshot.channels) == {"den"}
        assert snapshot.channels["den"].members == {"ann"}
        assert set(snapshot.machines) == {"ann", "root"}


async def _do_all(peer: Peer, token: str) -> None:
    count = 0
    while True:
        count += 1
        requests: list[tuple[frames.Frame, type[frames.Frame]]] = [
            (frames.Admin(admin.CreateChannel(f"new{count}", PUBLIC)), frames.Ack),
            (frames.Join("den", token), frames.Joined),
            (frames.Admin(admin.MachineAdd(f"m{count}", bytes(SigningKey.generate().verify_key))), frames.Ack),
        ]
        for request, answer in requests:
            try:
                await peer.ask(request, answer)
            except (Refused, ConnectionError):
                return


async def test_a_revoked_session_can_do_nothing_before_its_node_gets_the_signal(
    peers: Peers, redis_url: str, store: Store
) -> None:
    """A thief would add a key of tnew_bob own, or listen on; each step asks whether the key is still enrolled."""
    async with node_object(redis_url, admins=ROOT) as one, node_object(redis_url, admins=ROOT) as other:
        one_url, other_url = f"ws://{one.address}/", f"ws://{other.address}/"
        ann, cid = await peers.register(one_url, "ann"), await peers.register(one_url, "cid")
        key = SigningKey.generate()
        await administer(ann, admin.MachineAdd("stolen", bytes(key.verify_key)))
        thief = await peers.login(other_url, key)
        await ann.create("ops", PRIVATE)
        token = await ann.invite("ops")
        await ann.join("ops")
        await thief.join("ops")
        with signals_held(other):
            await administer(ann, admin.MachineRemove("stolen"))
            before = store.snapshot()
            await cid.whisper(thief.path, "psst")
            await assert_not_delivered(thief, ann, "ops", "secret")
            fresh = bytes(SigningKey.generate().verify_key)
            operations: list[admin.AdminOp] = [
                admin.MachineAdd("mine", fresh),
                admin.MachineRemove("laptop"),
                admin.CreateChannel("mine", PUBLIC),
                admin.AclAdd("ops", "eve"),
                admin.DeleteChannel("ops"),
                admin.InviteCreate("ops"),
                admin.AclList("ops"),
                admin.UserRemove("ann"),
                admin.ServerInviteCreate(1),
            ]
            for operation in operations:
                assert await refused(thief, operation) == REVOKED
            for request in (frames.Join("ops"), frames.Join("ops", token)):
                assert await thief.refusal(request) == REVOKED
            await administer(thief, admin.InviteRevoke(token))
            assert store.snapshot() == before
            assert not thief.is_closed
        assert await thief.wait_closed() == REVOKED
        assert thief.bodies == []
        assert thief.whispers == [], "a whisper after the revocation"
        await peers.close()


async def test_a_key_that_is_enrolled_anew_does_not_keep_its_old_session(
    redis_url: str, peers: Peers, store: Store
) -> None:
    """The key's owner of now is not the owner at the login."""
    async with node_object(redis_url, admins=ROOT) as node:
        key = SigningKey.generate()
        ann = peers.keep(await Peer.login(f"ws://{node.address}/", key, register=("ann", "laptop")))
        with Redis.from_url(redis_url) as raw:  # as if the removal had been signalled while the node was cut off
            raw.hset("conclave:{dir}:keys", key_text(bytes(key.verify_key)), "eve/laptop")
        node.parts.membership.interrupt()
        assert await ann.wait_closed() == REVOKED
        with Redis.from_url(redis_url) as raw:
            raw.hset("conclave:{dir}:keys", key_text(bytes(key.verify_key)), "ann/laptop")
        await peers.close()
    assert set(store.snapshot().machines) == {"ann"}


async def test_an_admin_of_the_server_revokes_any_machine(redis_url: str, peers: Peers, store: Store) -> None:
    """Protocol v1 cannot express it; the service can."""
    async with node_object(redis_url, admins=ROOT) as node:
        for user in ("root", "ann", "eve"):
            await peers.register(f"ws://{node.address}/", user)
        sessions = {session.path.user: session for session in node.parts.sessions}
        accounts = node.parts.connections._services.accounts
        with pytest.raises(Exception, match="admin role required"):
            await accounts.remove_machine(sessions["eve"], "laptop", "ann")
        await accounts.remove_machine(sessions["root"], "laptop", "ann")
        ann = next(peer for peer in peers._peers if peer.path.user == "ann")
        assert await ann.wait_closed() == REVOKED
        assert store.snapshot().machines["ann"] == frozenset()
        await peers.close()

"""Policies of registration, of pinned admins and of presence."""

import asyncio
from typing import Any

import pytest
from nacl.signing import SigningKey

from conclave.protocol.v1 import admin, frames
from relay.services.server_admins import ServerAdmins
from tests.support.moderation import (
    NOT_ADMIN,
    PRIVATE,
    ROOT,
    administer,
    refused,
)
from tests.support.nodes import running_node
from tests.support.peer import Peer, Peers, Refused
from tests.support.waiting import wait_until


async def register_with(url: str, user: str, invite: str | None = None, key: SigningKey | None = None) -> Peer:
    """Register with an invite to the server. Raises: Refused."""
    key = key or SigningKey.generate()
    peer = await Peer.dial(url)
    try:
        await peer.send(frames.Hello(1, "main"))
        nonce = (await peer.read(frames.Challenge)).nonce
        await peer.send(frames.Register(user, "laptop", bytes(key.verify_key), invite))
        await peer.send(frames.Auth(bytes(key.verify_key), key.sign(nonce).signature))
        await peer.read(frames.Established)
    except BaseException:
        await peer.close()
        raise
    return peer


async def registration_refusal(url: str, user: str, invite: str | None = None) -> str:
    with pytest.raises(Refused) as caught:
        await register_with(url, user, invite)
    return str(caught.value)


async def test_at_a_closed_server_only_its_admins_register(redis_url: str, peers: Peers) -> None:
    """A refusal does not show which names exist."""
    closed = "unauthorized: registration is closed on this server"
    async with running_node(redis_url, admins=ROOT, registration="closed") as node:
        root = await peers.register(node, "root")
        assert [await registration_refusal(node, user) for user in ("ann", "ann")] == [closed, closed]
        token = (await root.ask(frames.Admin(admin.ServerInviteCreate()), frames.InviteToken)).token
        assert await registration_refusal(node, "ann", token) == closed
        await peers.close()
    async with running_node(redis_url, admins=ROOT) as node:
        await (await peers.register(node, "ann")).close()
    async with running_node(redis_url, admins=ROOT, registration="closed") as node:
        assert await registration_refusal(node, "ann") == closed, "as for a name that is free"


async def test_of_racing_registrations_as_many_succeed_as_the_invite_has_uses(redis_url: str, peers: Peers) -> None:
    """On two nodes at once; a registration that fails for another reason does not use it up."""
    settings: dict[str, Any] = {"admins": ROOT, "registration": "invite"}
    async with running_node(redis_url, **settings) as one, running_node(redis_url, **settings) as other:
        root = await peers.register(one, "root")
        uninvited = "unauthorized: registration needs a valid invite to this server"
        assert await registration_refusal(one, "ann") == await registration_refusal(one, "ann", "nonsense") == uninvited
        invite = (await root.ask(frames.Admin(admin.ServerInviteCreate(3, 3600)), frames.InviteToken)).token
        assert await registration_refusal(one, "root", invite) == "unauthorized: username `root` is already taken"
        attempts = (register_with((one, other)[i % 2], f"user{i}", invite) for i in range(12))
        results = await asyncio.gather(*attempts, return_exceptions=True)
        let_in = [peers.keep(result) for result in results if isinstance(result, Peer)]
        assert len(let_in) == 3
        assert {str(result) for result in results if isinstance(result, Refused)} == {uninvited}
        for uses, seconds, text in ((0, None, "at least 1 use"), (None, 0, "at least 1 second")):
            assert text in await refused(root, admin.ServerInviteCreate(uses, seconds))
        forever = (await root.ask(frames.Admin(admin.ServerInviteCreate()), frames.InviteToken)).token
        for i in range(3):
            peers.keep(await register_with(other, f"guest{i}", forever))
        await peers.close()


async def test_a_pinned_key_is_checked_at_every_login(redis_url: str, peers: Peers) -> None:
    """Also for a name that was taken before the operator pinned it: the role goes with the key, on every machine."""
    own, other = SigningKey.generate(), SigningKey.generate()
    async with running_node(redis_url) as node:
        ann = peers.keep(await Peer.login(node, own, register=("ann", "laptop")))
        await administer(ann, admin.MachineAdd("desktop", bytes(other.verify_key)))
        assert not ann.admin
        await peers.close()
    async with running_node(redis_url, admins=ServerAdmins({"ann": bytes(own.verify_key), "bob": b"." * 32})) as node:
        with_pin, without = await peers.login(node, own), await peers.login(node, other)
        assert (with_pin.admin, without.admin) == (True, False)
        assert await refused(without, admin.UserRemove("ann")) == NOT_ADMIN
        await with_pin.ask(frames.ListUsers(), frames.UserList)
        assert await registration_refusal(node, "bob") == "unauthorized: username `bob` is reserved for a different key"
        await peers.close()


async def test_shared_presence_shows_users_with_a_common_channel(redis_url: str, peers: Peers) -> None:
    """As members, or because they have joined it; admins of the server see every user."""
    settings: dict[str, Any] = {"admins": ROOT, "presence": "shared"}
    async with running_node(redis_url, **settings) as one, running_node(redis_url, **settings) as other:
        ann, bob, cid, dan, root = [
            await peers.register((one, other)[i % 2], user)
            for i, user in enumerate(("ann", "bob", "cid", "dan", "root"))
        ]

        def paths(*names: str) -> list[str]:
            return [f"{name}/laptop/main" for name in names]

        assert await ann.who() == paths("ann")
        await ann.create("ops", PRIVATE)
        await administer(ann, admin.AclAdd("ops", "bob"))
        assert await ann.who() == await bob.who() == paths("ann", "bob")
        await ann.create("dev")
        await cid.join("dev")
        assert await ann.who() == paths("ann", "bob"), "ann is not in `dev`"
        await ann.join("dev")
        assert await ann.who() == paths("ann", "bob", "cid")
        assert await cid.who() == paths("ann", "cid")
        assert await dan.who() == paths("dan")
        assert await root.who() == paths("ann", "bob", "cid", "dan", "root")
        await administer(ann, admin.Ban("dev", "cid"))
        await wait_until(lambda: _sees(ann, paths("ann", "bob")), what="cid is out of `dev`")
        assert await cid.who() == paths("cid")
        await peers.close()


async def _sees(peer: Peer, expected: list[str]) -> bool:
    return await peer.who() == expected

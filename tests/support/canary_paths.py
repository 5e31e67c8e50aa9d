"""Every path of protocol v1 by which a secret comes into a node."""

import asyncio
import contextlib
import struct

import aiohttp
import pytest
from nacl.signing import SigningKey

from conclave.model import Plain, SessionPath
from conclave.protocol import v1
from conclave.protocol.v1 import admin, frames
from tests.support.canaries import Canaries
from tests.support.moderation import PRIVATE, administer
from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers, Refused
from tests.support.waiting import wait_until

HERE = SessionPath("x", "y", "z")


async def refused(asking: object) -> None:
    with contextlib.suppress(Refused, ConnectionError, aiohttp.ClientError):
        await asking  # type: ignore[misc]


async def registrations(node: NodeProcess, canaries: Canaries, peers: Peers, root: Peer) -> tuple[Peer, Peer]:
    """Register two users with a server invite each, and try others without a valid one."""
    people = []
    for name in ("ann", "bob"):
        token = canaries.token(await server_invite(root))
        key = canaries.key()
        peer = await Peer.dial(node.url)
        await _shake_hands(peer, key, name, token)
        await peer.close()
        people.append(peers.keep(await Peer.login(node.url, key)))
        for used in (token, canaries.text("server-token"), None):
            stranger = await Peer.dial(node.url)
            with pytest.raises(Refused, match="needs a valid invite"):
                await _shake_hands(stranger, canaries.key(), "stranger", used)
            await stranger.close()
    return people[0], people[1]


async def server_invite(root: Peer) -> str:
    """Let one more user register."""
    create = frames.Admin(admin.ServerInviteCreate(1, 3600))
    return (await root.ask(create, frames.InviteToken)).token


async def _shake_hands(peer: Peer, key: SigningKey, user: str, token: str | None) -> None:
    await peer.send(frames.Hello(1, "main"))
    challenge = await peer.read(frames.Challenge)
    pubkey = bytes(key.verify_key)
    await peer.send(frames.Register(user, "laptop", pubkey, token))
    await peer.send(frames.Auth(pubkey, key.sign(challenge.nonce).signature))
    await peer.read(frames.Established)


async def bad_logins(node: NodeProcess, canaries: Canaries, known: SigningKey) -> None:
    """Try an unknown key, a wrong signature, invalid names, and invalid frames."""
    stranger = canaries.key()
    await refused(Peer.login(node.url, stranger))
    await refused(Peer.login(node.url, stranger, register=("root", "laptop")))
    await refused(Peer.login(node.url, stranger, register=("a\nb", "laptop")))
    for last in (
        v1.encode(frames.Auth(bytes(known.verify_key), canaries.text("signature").encode().ljust(64)[:64])),
        v1.encode(frames.Auth(canaries.text("short-key").encode(), b"")),
        v1.encode(frames.ChannelMsg("ops", HERE, canaries.body())),
        b"\x02" + canaries.text("garbage").encode(),
        canaries.text("garbage").encode(),
        b"",
    ):
        peer = await Peer.dial(node.url)
        await peer.send(frames.Hello(1, "main"))
        await peer.read(frames.Challenge)
        await peer.ws.send_bytes(last)
        with pytest.raises(Refused):
            await peer.read(frames.Established)
        await peer.close()
    offered = (canaries.text("subprotocol"),)  # where browsers put what opens a door
    async with aiohttp.ClientSession() as client, client.ws_connect(node.url, protocols=offered) as socket:
        await socket.send_str(canaries.text("text"))
        await socket.receive(timeout=30)


async def every_request(canaries: Canaries, root: Peer, ann: Peer, bob: Peer) -> None:
    """All that a session can ask for, granted and refused."""
    await ann.create("ops", PRIVATE)
    await ann.join("ops")
    tokens = [canaries.token(await ann.invite("ops", uses, seconds)) for uses, seconds in ((1, None), (None, 3600))]
    await refused(bob.join("ops"))
    await refused(bob.join("ops", canaries.text("token")))
    await bob.join("ops", tokens[0])
    for payload in (canaries.body(), canaries.sealed()):
        await ann.post("ops", payload)
        await bob.post("ops", payload)
        await ann.whisper(bob.path, canaries.text("whisper"))
        for wrong in (
            frames.ChannelMsg("elsewhere", HERE, payload),
            frames.Whisper(HERE, SessionPath("nobody", "x", "y"), payload),
            frames.Whisper(HERE, ann.path, payload),
        ):
            assert await ann.refusal(wrong)
    assert await ann.refusal(frames.ChannelMsg("ops", HERE, Plain(canaries.text("long") + "x" * 1024 * 1024)))
    await wait_until(lambda: len(bob.messages) == 2, what="bob gets both messages")
    assert len(await bob.page("ops")) == 4
    added = bytes(canaries.key().verify_key)
    operations: list[admin.AdminOp] = [
        admin.CreateChannel("den", PRIVATE),
        admin.RenameChannel("den", "lair"),
        admin.SetVisibility("lair", PRIVATE),
        admin.AclAdd("ops", "root"),
        admin.AclPromote("ops", "bob"),
        admin.AclDemote("ops", "bob"),
        admin.AclList("ops"),
        admin.InviteListOp("ops"),
        admin.Audit(50),
        admin.MachineAdd("desktop", added),
        admin.MachineAdd("second", added),
        admin.MachineAdd("third", canaries.text("short-key").encode()),
        admin.ServerInviteCreate(1, 1),
        admin.InviteRevoke(tokens[1]),
        admin.InviteRevoke(canaries.text("token")),
        admin.Kick("ops", "bob"),
        admin.Ban("ops", "bob"),
        admin.BanList("ops"),
        admin.Unban("ops", "bob"),
        admin.AclRemove("ops", "bob"),
        admin.DeleteChannel("lair"),
        admin.MachineRemove("desktop"),
        admin.UserRemove("nobody"),
    ]
    for operation in operations:
        for peer in (bob, ann, root):
            answer = await _any_answer(peer, frames.Admin(operation))
            if isinstance(answer, frames.InviteToken):
                canaries.token(answer.token)
    for request in (
        frames.Ping(),
        frames.Who(None),
        frames.Who("ops"),
        frames.ListChannels(),
        frames.ListMachines(),
        frames.ListUsers(),
        frames.ReadSince("ops", 0),
        frames.Leave("ops"),
    ):
        for peer in (root, ann, bob):
            await _any_answer(peer, request)
    await ann.join("ops")
    await administer(ann, admin.AclAdd("ops", "bob"))
    await bob.join("ops")


async def _any_answer(peer: Peer, request: frames.Frame) -> frames.Frame | None:
    try:
        return await peer.ask(request, frames.Frame)  # type: ignore[arg-type]
    except Refused:
        return None


async def garbage(node: NodeProcess, canaries: Canaries, ann: Peer) -> None:
    """Send invalid frames and requests."""
    whole = v1.encode(frames.ChannelMsg("ops", HERE, canaries.body()))
    for data in (
        whole[:-3],
        whole[:1] + canaries.text("garbage").encode(),
        struct.pack("<Q", 2**63) + canaries.text("garbage").encode(),
        v1.encode(frames.Auth(bytes(canaries.key().verify_key), canaries.text("signature").encode())),
        v1.encode(frames.InviteToken(canaries.text("token"))),
        b"",
    ):
        reply: asyncio.Future[frames.Frame] = asyncio.get_running_loop().create_future()
        ann._waiting.append(reply)
        await ann.ws.send_bytes(data)
        assert isinstance(await asyncio.wait_for(reply, 10), frames.Error)
    host, port = node.address.split(":")
    for request in (
        f"GET /{canaries.text('url')} HTTP/1.1\r\nHost: x\r\nAuthorization: {canaries.text('header')}\r\n\r\n",
        f"{canaries.text('no-http')}\r\n\r\n",
        f"GET / HTTP/1.1\r\n{canaries.text('no-header')}\r\n\r\n",
        f"POST / HTTP/1.1\r\nContent-Length: {canaries.text('no-number')}\r\n\r\n{canaries.text('content')}",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request.encode())
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
    broken = await Peer.dial(node.url)
    assert broken.ws._response.connection is not None
    transport = broken.ws._response.connection.transport
    assert isinstance(transport, asyncio.WriteTransport)
    transport.write(b"\xff\xff" + canaries.text("no-frame").encode())
    await broken.close()

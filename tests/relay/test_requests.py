"""A session's requests over a real socket: one reply each, in order, for any input."""

import asyncio
import contextlib
from typing import get_args

import aiohttp
import pytest
from nacl.signing import SigningKey

from conclave.model import Payload, Plain, Sealed, SessionPath, Visibility
from conclave.protocol import v1
from conclave.protocol.limits import FRAME_BYTES
from conclave.protocol.v1 import admin, frames
from tests.support.nodes import running_node
from tests.support.peer import Peer, Peers
from tests.support.waiting import wait_until

NOWHERE = SessionPath("x", "y", "z")
KEY = SigningKey(b"k" * 32)
REQUESTS = {
    *(frames.Join, frames.Leave, frames.Who, frames.Admin, frames.ChannelMsg, frames.Whisper, frames.ListChannels),
    *(frames.Ping, frames.ListMachines, frames.ListUsers, frames.ReadSince),
}
NOT_REQUESTS = [number for number, type_ in enumerate(get_args(frames.Frame)) if type_ not in REQUESTS]


async def raw(peer: Peer, data: bytes) -> str:
    """Send bytes and return the text of the refusal that answers them."""
    reply: asyncio.Future[frames.Frame] = asyncio.get_running_loop().create_future()
    peer._waiting.append(reply)
    await peer.ws.send_bytes(data)
    async with asyncio.timeout(10):
        frame = await reply
    assert isinstance(frame, frames.Error), frame
    assert isinstance(frame.error, frames.MalformedFrame), frame
    return frame.error.message


async def is_alive(peer: Peer) -> bool:
    return await peer.ask(frames.Ping(), frames.Pong) == frames.Pong()


async def test_a_frame_that_no_client_sends_is_answered_and_the_session_stays(url: str, peers: Peers) -> None:
    """Each of them, by its number alone: the bytes after it are not read."""
    ann = await peers.register(url, "ann")
    assert len(NOT_REQUESTS) == 18
    for number in NOT_REQUESTS:
        assert await raw(ann, bytes([number])) == "unexpected frame from client"
    assert await is_alive(ann)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x1c",
        b"\xfb",
        b"\xff\xff",
        b"\x05\x03op",
        b"\x08\x11",
        b"\x07\x02",
        bytes.fromhex("05fd0000000000004000"),
    ],
)
async def test_bytes_that_are_no_frame_are_answered_and_the_session_stays(url: str, peers: Peers, data: bytes) -> None:
    """A newer client learns that this relay does not know its frame; the original just closes the connection."""
    ann = await peers.register(url, "ann")
    assert await raw(ann, data)
    assert await is_alive(ann)


async def test_fields_that_a_newer_client_appends_are_ignored(url: str, peers: Peers) -> None:
    """The protocol grows at the end of its frames."""
    ann = await peers.register(url, "ann")
    reply: asyncio.Future[frames.Frame] = asyncio.get_running_loop().create_future()
    ann._waiting.append(reply)
    await ann.ws.send_bytes(v1.encode(frames.Ping()) + b"new")
    async with asyncio.timeout(10):
        assert await reply == frames.Pong()


async def test_text_and_pings_of_the_websocket_are_no_frames(url: str, peers: Peers) -> None:
    """They are ignored, and answered by the WebSocket's own pong, without a frame that would shift the replies."""
    ann = await peers.register(url, "ann")
    await ann.ws.send_str("hello")
    await ann.ws.ping(b"x")
    await ann.ws.pong(b"y")
    assert await is_alive(ann)


async def test_requests_sent_right_after_the_login_are_answered_in_order(url: str, peers: Peers) -> None:
    """A client need not wait for Established."""
    peers.keep(await Peer.login(url, KEY, register=("ann", "laptop")))
    peer = peers.keep(await Peer.dial(url))
    await peer.send(frames.Hello(1, "second"))
    nonce = (await peer.read(frames.Challenge)).nonce
    requests: list[frames.Frame] = [
        frames.Auth(bytes(KEY.verify_key), KEY.sign(nonce).signature),
        frames.Admin(admin.CreateChannel("ops", Visibility.PUBLIC)),
        frames.Join("ops"),
        frames.ChannelMsg("ops", NOWHERE, Plain("hi")),
        frames.ReadSince("ops", 0),
        frames.Leave("ops"),
        frames.Ping(),
    ]
    for request in requests:
        await peer.send(request)
    assert str((await peer.read(frames.Established)).path) == "ann/laptop/second"
    assert await peer.read(frames.ServerInfo) == frames.ServerInfo(admin=False)
    assert await peer.read(frames.Ack) == frames.Ack("ops")
    assert await peer.read(frames.Joined) == frames.Joined("ops")
    assert await peer.read(frames.Ack) == frames.Ack(None)
    assert [row.payload for row in (await peer.read(frames.History)).messages] == [Plain("hi")]
    assert await peer.read(frames.Ack) == frames.Ack("ops")
    assert await peer.read(frames.Pong) == frames.Pong()


async def test_many_requests_at_once_get_one_reply_each_in_order(url: str, peers: Peers) -> None:
    """Clients tell replies apart by their order alone."""
    ann = await peers.register(url, "ann")
    replies = await asyncio.gather(*(ann.ask(frames.Leave(str(n)), frames.Ack) for n in range(500)))
    assert [reply.detail for reply in replies] == [str(n) for n in range(500)]


async def test_a_message_of_exactly_the_limit_is_taken(url: str, peers: Peers) -> None:
    """16 MiB, as the original allows."""
    ann = await peers.register(url, "ann")
    reply: asyncio.Future[frames.Frame] = asyncio.get_running_loop().create_future()
    ann._waiting.append(reply)
    await ann.ws.send_bytes(v1.encode(frames.Ping()).ljust(FRAME_BYTES, b"."))
    async with asyncio.timeout(20):
        assert await reply == frames.Pong()


async def test_a_message_above_the_limit_ends_its_session_and_no_other(url: str, peers: Peers) -> None:
    """The node does not buffer a frame that it will refuse."""
    ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
    with contextlib.suppress(ConnectionError):  # the node need not read to the end of it
        await ann.ws.send_bytes(v1.encode(frames.Ping()).ljust(FRAME_BYTES + 1, b"."))
    assert await ann.wait_closed() is None
    await wait_until(lambda: gone(bob, ann), what="ann's session is gone")
    assert await is_alive(bob)


async def gone(observer: Peer, other: Peer) -> bool:
    return str(other.path) not in await observer.who()


async def test_a_refused_name_of_any_length_is_answered_and_the_session_stays(url: str, peers: Peers) -> None:
    """The refusal repeats the name; that must not make the client a slow reader."""
    ann = await peers.register(url, "ann")
    name = "x" * (FRAME_BYTES - 1024)
    for request in (
        frames.Join(name),
        frames.Who(name),
        frames.ReadSince(name, 0),
        frames.ChannelMsg(name, NOWHERE, Plain("hi")),
        frames.Whisper(NOWHERE, SessionPath(name, "b", "c"), Plain("hi")),
        frames.Admin(admin.AclAdd(name, "bob")),
        frames.Admin(admin.InviteCreate(name)),
        frames.Admin(admin.CreateChannel(name, Visibility.PUBLIC)),
        frames.Admin(admin.MachineAdd(name, bytes(32))),
        frames.Admin(admin.MachineRemove(name)),
        frames.Leave(name),
    ):
        assert len(await ann.refusal(request)) < 1000
    assert await is_alive(ann)


async def test_a_message_above_the_limit_is_refused_and_the_session_stays(redis_url: str, peers: Peers) -> None:
    """Posts and whispers alike; the greatest one allowed arrives whole."""
    async with running_node(redis_url, max_message_bytes=1024) as node:
        ann, bob = await peers.register(node, "ann"), await peers.register(node, "bob")
        await ann.create("ops")
        await ann.join("ops")
        await bob.join("ops")
        for body in (Plain("." * 1025), Plain("é" * 513), Sealed(b"." * 1025), Sealed(b"", "." * 1025)):
            for request in (frames.ChannelMsg("ops", NOWHERE, body), frames.Whisper(NOWHERE, bob.path, body)):
                assert "exceeds the limit of 1024 bytes" in await ann.refusal(request)
        await ann.post("ops", "." * 1000)
        await wait_until(lambda: bob.bodies, what="the message arrived")
        assert bob.bodies == ["." * 1000]
        assert bob.whispers == []
        await peers.close()


@pytest.mark.parametrize(
    "payload",
    [
        Plain(""),
        Plain("line\n\ttab\x00\x1b[0m \U0001f600 e\u0301"),
        Plain("ö" * 20_000),
        Sealed(b""),
        Sealed(b"\x00\xff" * 1000, "key"),
        Sealed(bytes(range(256)), ""),
    ],
    ids=["empty", "controls", "long", "sealed-empty", "sealed", "sealed-key"],
)
async def test_a_body_is_delivered_and_kept_byte_for_byte(
    pair: tuple[str, str], peers: Peers, payload: Payload
) -> None:
    """Live, as a whisper and in history; the relay never reads it."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    await ann.create("ops")
    await ann.join("ops")
    await bob.join("ops")
    await ann.post("ops", payload)
    await ann.ask(frames.Whisper(NOWHERE, bob.path, payload), frames.Ack)
    await wait_until(lambda: bob.messages and bob.whispers, what="both arrived")
    assert bob.messages == [frames.ChannelMsg("ops", ann.path, payload)]
    assert bob.whispers == [frames.Whisper(ann.path, bob.path, payload)]
    assert [(row.from_, row.payload) for row in await bob.page("ops")] == [(ann.path, payload)]


async def test_the_close_of_a_client_is_answered(url: str, peers: Peers) -> None:
    """A clean close takes the session out of presence at once."""
    ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
    await ann.ws.close()
    assert ann.ws.close_code not in (None, aiohttp.WSCloseCode.ABNORMAL_CLOSURE)
    await wait_until(lambda: gone(bob, ann), what="ann has left")

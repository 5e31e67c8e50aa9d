"""The handshake over a real socket: every refusal on the wire, and nothing stored unless it succeeds."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import aiohttp
import pytest
from nacl.signing import SigningKey

from conclave.protocol.v1 import frames
from relay.redis.scripts import LEASE_TAKE
from relay.services.server_admins import ServerAdmins
from relay.transport.pre_login import ADMISSION_BYTES, ADMISSION_SECONDS
from tests.support.blocking import BlockedCommand
from tests.support.nodes import node_object, running_node
from tests.support.peer import Peer, Peers, Refused
from tests.support.waiting import wait_until

KEY, OTHER = SigningKey(b"k" * 32), SigningKey(b"o" * 32)
PUBLIC, OTHER_PUBLIC = bytes(KEY.verify_key), bytes(OTHER.verify_key)
ENDED = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)
HELLO = frames.Hello(1, "main")


async def dial(peers: Peers, url: str) -> Peer:
    return peers.keep(await Peer.dial(url))


async def refusal(peer: Peer) -> str:
    """Read the refusal and the close that must follow it."""
    with pytest.raises(Refused) as caught:
        await peer.read(frames.Established)
    assert (await peer.ws.receive(timeout=10)).type in ENDED
    return str(caught.value)


async def challenged(peers: Peers, url: str, session: str = "main") -> tuple[Peer, bytes]:
    peer = await dial(peers, url)
    await peer.send(frames.Hello(1, session))
    return peer, (await peer.read(frames.Challenge)).nonce


def signed(key: SigningKey, nonce: bytes) -> frames.Auth:
    return frames.Auth(bytes(key.verify_key), key.sign(nonce).signature)


async def test_a_registration_and_a_login(url: str, peers: Peers) -> None:
    """The path comes from the enrolled key and from Hello; the server's id is the same for every connection."""
    ann = await peers.register(url, "ann", "work", machine="laptop")
    again = await peers.register(url, "bob")
    assert str(ann.path) == "ann/laptop/work"
    assert not ann.admin
    assert len(ann.server_id) == 32
    assert again.server_id == ann.server_id


async def test_every_challenge_is_fresh(url: str, peers: Peers) -> None:
    """A nonce that comes twice could be answered from a recording."""
    nonces = {(await challenged(peers, url))[1] for _ in range(5)}
    assert len(nonces) == 5
    assert {len(nonce) for nonce in nonces} == {32}


@pytest.mark.parametrize(
    ("first", "text"),
    [
        (frames.Ping(), "malformed frame: expected Hello"),
        (frames.Auth(PUBLIC, b"." * 64), "malformed frame: expected Hello"),
        (frames.Hello(2, "main"), "incompatible protocol version: ours=1, theirs=2"),
        (frames.Hello(0, "main"), "incompatible protocol version: ours=1, theirs=0"),
    ],
)
async def test_the_first_frame_must_be_a_hello_of_this_version(
    url: str, peers: Peers, first: frames.Frame, text: str
) -> None:
    """A peer of another protocol learns at once what this is."""
    peer = await dial(peers, url)
    await peer.send(first)
    assert await refusal(peer) == text


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda _: [frames.Ping()], "malformed frame: expected Register or Auth"),
        (lambda _: [HELLO], "malformed frame: expected Register or Auth"),
        (
            lambda _: [frames.Register("ann", "laptop", PUBLIC), frames.Ping()],
            "malformed frame: expected Auth after Register",
        ),
        (
            lambda _: [frames.Auth(b"." * 31, b"." * 64)],
            "malformed frame: malformed key or signature: public key must be 32 bytes",
        ),
        (
            lambda _: [frames.Auth(PUBLIC, b"." * 63)],
            "malformed frame: malformed key or signature: signature must be 64 bytes",
        ),
        (
            lambda nonce: [frames.Auth(PUBLIC, OTHER.sign(nonce).signature)],
            "unauthorized: signature verification failed",
        ),
        (lambda nonce: [signed(KEY, nonce[::-1])], "unauthorized: signature verification failed"),
        (lambda nonce: [signed(KEY, nonce)], "unauthorized: unknown machine key"),
        (
            lambda nonce: [frames.Register("ann", "laptop", OTHER_PUBLIC), signed(KEY, nonce)],
            "unauthorized: auth key does not match the registered key",
        ),
    ],
)
async def test_each_refusal_of_the_handshake_has_its_text_and_stores_nothing(
    url: str, peers: Peers, answer: Callable[[bytes], list[frames.Frame]], text: str
) -> None:
    """Clients match on these texts. After any of them the name and the keys are as free as before."""
    peer, nonce = await challenged(peers, url)
    for frame in answer(nonce):
        await peer.send(frame)
    assert await refusal(peer) == text
    await peers.register(url, "ann")
    for key in (KEY, OTHER):
        with pytest.raises(Refused, match="unknown machine key"):
            await peers.login(url, key)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("", "laptop", "main"), "username"),
        (("a/b", "laptop", "main"), "username"),
        (("a\x1b[2J", "laptop", "main"), "username"),
        (("x" * 65, "laptop", "main"), "username"),
        (("ann", "", "main"), "machine name"),
        (("ann", " laptop", "main"), "machine name"),
        (("ann", "lap\ntop", "main"), "machine name"),
        (("ann", "laptop", ""), "session handle"),
        (("ann", "laptop", "a/b"), "session handle"),
        (("ann", "laptop", "a\u202eb"), "session handle"),
        (("ann", "laptop", "x" * 129), "session handle"),
    ],
)
async def test_a_registration_with_a_bad_name_leaves_the_good_ones_free(
    url: str, peers: Peers, names: tuple[str, str, str], kind: str
) -> None:
    """The original claims the username first and checks the handle afterwards: the retry then reads "taken"."""
    user, machine, session = names
    peer, nonce = await challenged(peers, url, session)
    await peer.send(frames.Register(user, machine, PUBLIC))
    await peer.send(signed(KEY, nonce))
    assert (await refusal(peer)).startswith(f"malformed frame: invalid {kind}: `")
    peers.keep(await Peer.login(url, KEY, register=("ann", "laptop")))


async def test_a_login_with_a_bad_handle_is_refused(url: str, peers: Peers) -> None:
    """The handle becomes a part of the path that other users type."""
    peers.keep(await Peer.login(url, KEY, register=("ann", "laptop")))
    with pytest.raises(Refused, match="invalid session handle: `a/b`"):
        await peers.login(url, KEY, "a/b")


async def test_a_name_and_a_key_are_claimed_once(url: str, peers: Peers) -> None:
    """The two conflicts have texts of their own, and the loser may try again with another name."""
    peers.keep(await Peer.login(url, KEY, register=("ann", "laptop")))
    with pytest.raises(Refused, match=r"^unauthorized: username `ann` is already taken$"):
        await Peer.login(url, OTHER, register=("ann", "desktop"))
    with pytest.raises(Refused, match=r"^malformed frame: malformed key or signature: public key is already enrolled$"):
        await Peer.login(url, KEY, register=("bob", "laptop"))
    peers.keep(await Peer.login(url, OTHER, register=("bob", "laptop")))


async def test_a_pinned_name_is_for_its_key_and_so_is_the_role(redis_url: str, peers: Peers) -> None:
    """A pin set after the registration takes the role from a user of that name with another key."""
    admins = ServerAdmins({"root": PUBLIC, "old": PUBLIC, "open": None})
    async with running_node(redis_url) as node:
        peers.keep(await Peer.login(node, OTHER, register=("old", "laptop")))
    async with running_node(redis_url, admins=admins) as node:
        with pytest.raises(Refused, match=r"^unauthorized: username `root` is reserved for a different key$"):
            await peers.register(node, "root")
        assert peers.keep(await Peer.login(node, KEY, register=("root", "laptop"))).admin
        assert not (await peers.login(node, OTHER)).admin
        assert (await peers.register(node, "open")).admin
        await peers.close()


@pytest.mark.parametrize("hello", [False, True])
async def test_a_handshake_has_a_deadline(redis_url: str, peers: Peers, hello: bool) -> None:
    """A silent peer costs a socket; it gets the reason of its close."""
    async with running_node(redis_url, handshake_seconds=0.2) as node:
        peer = (await challenged(peers, node))[0] if hello else await dial(peers, node)
        assert await refusal(peer) == "unauthorized: handshake timed out"


async def test_a_session_outlives_the_deadline_of_its_handshake(redis_url: str, peers: Peers) -> None:
    """The deadline is for connections without a login."""
    async with running_node(redis_url, handshake_seconds=0.2) as node:
        ann = await peers.register(node, "ann")
        silent = await dial(peers, node)
        assert await refusal(silent) == "unauthorized: handshake timed out"
        await ann.ask(frames.Ping(), frames.Pong)
        await peers.close()


def unfinished_message(declared: int, sent: int) -> bytes:
    """A masked binary frame, the mask all zeros, of which only the beginning comes."""
    return b"\x82\xff" + declared.to_bytes(8, "big") + bytes(4) + b"." * sent


async def test_a_message_of_a_handshake_has_a_greatest_size(url: str, peers: Peers) -> None:
    """Before the login no large message is buffered."""
    peer = await dial(peers, url)
    peer.ws._writer.transport.write(unfinished_message(1_000_000, ADMISSION_BYTES + 1))
    with pytest.raises(Refused, match=f"^malformed frame: the handshake exceeds {ADMISSION_BYTES} bytes$"):
        await peer.read(frames.Challenge)
    peer.cut()


async def test_a_message_above_the_frame_limit_is_refused_by_its_header(url: str, peers: Peers) -> None:
    """None of its bytes have to arrive."""
    peer = await dial(peers, url)
    peer.ws._writer.transport.write(unfinished_message(20_000_000, 1))
    assert (await peer.ws.receive(timeout=10)).type in ENDED


async def test_a_flood_of_ignored_messages_before_the_login_ends(redis_url: str, peers: Peers) -> None:
    """Text is ignored, so there is never a reply; the bound holds all the same."""
    async with running_node(redis_url, handshake_seconds=0.3) as node:
        peer = await dial(peers, node)
        for _ in range(200):
            await peer.ws.send_str("." * 1000)
        assert await refusal(peer) in (
            f"malformed frame: the handshake exceeds {ADMISSION_BYTES} bytes",
            "unauthorized: handshake timed out",
        )


async def test_requests_of_a_connection_that_is_not_upgraded_have_the_same_bound(url: str) -> None:
    """The connection is aborted with the byte that exceeds it, whatever was answered until then."""
    host, port = url.removeprefix("ws://").rstrip("/").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    count = ADMISSION_BYTES // len(request) + 1
    answered = bytearray()
    writer.write(request * count)
    async with asyncio.timeout(ADMISSION_SECONDS / 2):
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                answered += data
    writer.close()
    assert answered.count(b"HTTP/1.1 200 OK") < count


@pytest.mark.parametrize("noise", [b"", b"\xff" * 40, bytes.fromhex("0001fd000000000000400000")])
async def test_random_bytes_instead_of_a_hello_are_refused(url: str, peers: Peers, noise: bytes) -> None:
    """The last one declares a string of 64 TiB, which once ended the whole process."""
    peer = await dial(peers, url)
    await peer.ws.send_bytes(noise)
    assert (await refusal(peer)).startswith("malformed frame: ")
    await peers.register(url, "ann")


async def test_an_unfinished_registration_stores_nothing(url: str, peers: Peers) -> None:
    """Register alone proves nothing."""
    peer, _ = await challenged(peers, url)
    await peer.send(frames.Register("ann", "laptop", PUBLIC))
    await peer.close()
    ann = peers.keep(await Peer.login(url, KEY, register=("ann", "laptop")))
    assert await ann.who() == ["ann/laptop/main"]


async def test_logins_are_carried_out_in_turns_and_the_others_are_served_meanwhile(redis_url: str) -> None:
    """Thousands of clients come back to a node at once; those that are there keep being answered."""
    peers = Peers()
    async with node_object(redis_url) as node:
        url = f"ws://{node.address}/"
        ann = await peers.register(url, "ann")
        blocked = BlockedCommand(node, LEASE_TAKE)
        arriving = [asyncio.create_task(peers.register(url, f"user{number}")) for number in range(100)]
        await blocked.reached.wait()
        turns = node.parts.connections._logins._turns
        await wait_until(turns.locked, what="as many logins as may be are under way")
        assert len(node.parts.sessions) == 1 + 16
        await ann.ask(frames.Ping(), frames.Pong)
        blocked.release()
        await asyncio.gather(*arriving)
        assert len(node.parts.sessions) == 101
        await peers.close()

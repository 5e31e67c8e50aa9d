"""Bodies, tokens and keys are marked and sent down every path there is; then everything that came out is searched."""

import asyncio
import base64
import contextlib
import itertools
import secrets
import struct
from collections.abc import AsyncIterator

import aiohttp
import pytest
from nacl.signing import SigningKey
from redis import Redis

from conclave import v1
from conclave.model import Plain, Sealed, SessionPath
from conclave.v1 import admin, frames
from tests.support.collector import Collector
from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers, Refused
from tests.support.redis_server import RedisProcess
from tests.support.ruling import PRIVATE, rule
from tests.support.waiting import wait_until

HERE = SessionPath("x", "y", "z")


class Canaries:
    """Secrets that nobody else could have come up with."""

    def __init__(self) -> None:
        self._secrets: dict[str, bytes] = {}
        self._numbers = itertools.count()

    def text(self, what: str) -> str:
        canary = f"canary-{what}-{next(self._numbers)}-{secrets.token_hex(8)}"
        self._secrets[canary] = canary.encode()
        return canary

    def body(self) -> Plain:
        return Plain(self.text("body"))

    def sealed(self) -> Sealed:
        return Sealed(self.text("sealed").encode(), self.text("key-id"))

    def token(self, token: str) -> str:
        """Note a token that the relay made up."""
        self._secrets[token] = token.encode()
        return token

    def key(self) -> SigningKey:
        """Make a key; neither of its halves may be seen."""
        key = SigningKey.generate()
        self._secrets[f"private key {bytes(key).hex()}"] = bytes(key)
        self._secrets[f"public key {bytes(key.verify_key).hex()}"] = bytes(key.verify_key)
        return key

    def found_in(self, output: bytes) -> list[str]:
        """Return which secrets are in an output, in whatever usual form."""
        return [name for name, secret in self._secrets.items() if any(form in output for form in _forms(secret))]


def _forms(secret: bytes) -> set[bytes]:
    encoded = (base64.b64encode(secret), base64.urlsafe_b64encode(secret))
    forms = {secret, secret.hex().encode(), repr(secret)[2:-1].encode(), repr(list(secret))[1:-1].encode()}
    return forms | {form.rstrip(b"=") for form in encoded} | {form.rstrip(b"=")[:-2] for form in encoded}


def test_a_canary_is_found_in_every_form() -> None:
    """A search that finds nothing proves nothing unless it could."""
    canaries = Canaries()
    key = canaries.key()
    raw = bytes(key.verify_key)
    for form in (raw, raw.hex().encode(), base64.urlsafe_b64encode(raw), str(list(raw)).encode(), repr(raw).encode()):
        assert canaries.found_in(b"before " + form + b" behind") == [f"public key {raw.hex()}"]
    body = canaries.body()
    assert canaries.found_in(repr(body).encode()) == [body.text]


@contextlib.asynccontextmanager
async def exporting_node(redis_process: RedisProcess, collector: Collector, form: str) -> AsyncIterator[NodeProcess]:
    environment = {
        "CONCLAVE_LOG": "debug",
        "CONCLAVE_LOG_FORMAT": form,
        "CONCLAVE_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_MAX_QUEUE_SIZE": "100000",
        "OTEL_BLRP_MAX_QUEUE_SIZE": "100000",
    }
    node = NodeProcess(
        *("--redis-url", redis_process.url, "--admin", "root", "--registration", "invite", "--presence", "shared"),
        environment=environment,
    )
    try:
        await node.start()
        yield node
    finally:
        await node.close()


@pytest.mark.parametrize("form", ["text", "json"])
async def test_no_secret_leaves_by_logs_metrics_or_traces(redis_process: RedisProcess, form: str) -> None:
    """People trust the relay with what they say and with what opens their doors, its operator's tools included."""
    canaries, peers = Canaries(), Peers()
    metrics = ""
    async with Collector() as collector, exporting_node(redis_process, collector, form) as node:
        try:
            key = canaries.key()
            root = peers.keep(await Peer.login(node.url, key, "main", register=("root", "laptop")))
            ann, bob = await _registrations(node, canaries, peers, root)
            await _bad_logins(node, canaries, key)
            await _every_request(canaries, root, ann, bob)
            await _defects(redis_process, canaries, ann)
            await _garbage(node, canaries, ann)
            await _a_slow_reader(node, canaries, ann, bob)
            await _an_outage(node, redis_process, canaries, ann)
            metrics = await node.text("/metrics")
        finally:
            await peers.close()
        assert await node.stop() == 0
    logged = "\n".join(node.log)
    for event in ("login.refused", "user.registered", "audit", "request.failed", "request.refused", "slow_reader"):
        assert event in logged, f"{event} was not provoked"
    for event in ("redis.down", "redis.error", "session.closed", "server_invite_create", "conclave server listening"):
        assert event in logged, f"{event} was not provoked"
    exported = b"\n".join(collector.received)
    assert len(collector.named("post")) > 10
    assert {"request.failed", "redis.down", "audit"} <= {record.body for record in collector.records}
    assert any(span.failed for span in collector.spans)
    assert "conclave_refusals" in metrics
    for where, output in (("logs", logged.encode()), ("metrics", metrics.encode()), ("exports", exported)):
        assert canaries.found_in(output) == [], where


async def _refused(asking: object) -> None:
    with contextlib.suppress(Refused, ConnectionError, aiohttp.ClientError):
        await asking  # type: ignore[misc]


async def _registrations(node: NodeProcess, canaries: Canaries, peers: Peers, root: Peer) -> tuple[Peer, Peer]:
    """Two users with a server invite each, and some who have none that is good."""
    people = []
    for name in ("ann", "bob"):
        create = frames.Admin(admin.ServerInviteCreate(1, 3600))
        token = canaries.token((await root.ask(create, frames.InviteToken)).token)
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


async def _shake_hands(peer: Peer, key: SigningKey, user: str, token: str | None) -> None:
    await peer.send(frames.Hello(1, "main"))
    challenge = await peer.read(frames.Challenge)
    pubkey = bytes(key.verify_key)
    await peer.send(frames.Register(user, "laptop", pubkey, token))
    await peer.send(frames.Auth(pubkey, key.sign(challenge.nonce).signature))
    await peer.read(frames.Established)


async def _bad_logins(node: NodeProcess, canaries: Canaries, known: SigningKey) -> None:
    """A key that nobody knows, a signature that is none, names that are none, frames that are none."""
    stranger = canaries.key()
    await _refused(Peer.login(node.url, stranger))
    await _refused(Peer.login(node.url, stranger, register=("root", "laptop")))
    await _refused(Peer.login(node.url, stranger, register=("a\nb", "laptop")))
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


async def _every_request(canaries: Canaries, root: Peer, ann: Peer, bob: Peer) -> None:
    """All that a session can ask for, granted and refused."""
    await ann.create("ops", PRIVATE)
    await ann.join("ops")
    tokens = [canaries.token(await ann.invite("ops", uses, seconds)) for uses, seconds in ((1, None), (None, 3600))]
    await _refused(bob.join("ops"))
    await _refused(bob.join("ops", canaries.text("token")))
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
    await wait_until(lambda: len(bob.messages) == 2, what="bob hears what was said")
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
    await rule(ann, admin.AclAdd("ops", "bob"))
    await bob.join("ops")


async def _any_answer(peer: Peer, request: frames.Frame) -> frames.Frame | None:
    try:
        return await peer.ask(request, frames.Frame)  # type: ignore[arg-type]
    except Refused:
        return None


async def _defects(redis_process: RedisProcess, canaries: Canaries, ann: Peer) -> None:
    """What the store holds is not what a node can read: conversions fail, and complain of what they could not read."""
    with Redis.from_url(redis_process.url) as store:
        (machines,) = store.keys("*:machines:ann")
        for row in (canaries.text("row"), f"{canaries.text('row')} {canaries.text('row')}"):
            store.hset(machines, "odd", row)
            assert "failed to carry this out" in await ann.refusal(frames.ListMachines())
        store.hdel(machines, "odd")
        for log in store.keys("*:log"):
            kept = v1.encode_payload(canaries.body())
            store.xadd(log, {"f": canaries.text("sender"), "p": kept})
        assert "failed to carry this out" in await ann.refusal(frames.ReadSince("ops", 0))
        for log in store.keys("*:log"):
            store.delete(log)
        # A server that lacks a command quotes the arguments of the call; one that forbids it does not.
        store.execute_command("ACL", "SETUSER", "default", "-hvals")
        assert "cannot reach its store" in await ann.refusal(frames.Who("ops"))
        store.execute_command("ACL", "SETUSER", "default", "+hvals")
        (names,) = store.keys("*:names")
        store.rename(names, "aside")
        store.set(names, canaries.text("value"))
        assert "cannot reach its store" in await ann.refusal(frames.Join(canaries.text("channel"), "x"))
        store.rename("aside", names)


async def _garbage(node: NodeProcess, canaries: Canaries, ann: Peer) -> None:
    """Frames and requests that nobody should send."""
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


async def _a_slow_reader(node: NodeProcess, canaries: Canaries, ann: Peer, bob: Peer) -> None:
    bob.stop_reading()
    while not any("slow_reader" in line for line in node.log):
        await ann.post("ops", Plain(canaries.text("flood") + "x" * 900_000))


async def _an_outage(node: NodeProcess, redis_process: RedisProcess, canaries: Canaries, ann: Peer) -> None:
    """In the middle of everything; the commands that were on their way are lost with their arguments."""
    redis_process.pause()
    say = frames.ChannelMsg("ops", HERE, canaries.body())
    assert "cannot reach its store" in await ann.refusal(say)
    redis_process.resume()
    redis_process.kill()
    assert "cannot reach its store" in await ann.refusal(say)
    await _refused(Peer.login(node.url, canaries.key()))
    await redis_process.start()

    async def is_back() -> bool:
        return await node.status("/ready") == 200

    await wait_until(is_back, what="the node is ready again")
    await ann.post("ops", canaries.body())

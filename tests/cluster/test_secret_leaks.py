"""Bodies, tokens and keys are marked and sent down every path there is; then everything that came out is searched."""

import base64
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence

import pytest
from redis import Redis

from conclave.model import Plain, SessionPath
from conclave.protocol import v1
from conclave.protocol.v1 import frames
from tests.support import canary_paths, v2_canary_paths
from tests.support.canaries import Canaries
from tests.support.canary_paths import refused
from tests.support.collector import Collector
from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers
from tests.support.redis_server import RedisProcess
from tests.support.v2_peer import V2Peer, V2Peers
from tests.support.waiting import wait_until

HERE = SessionPath("x", "y", "z")


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
async def exporting_node(
    redis_process: RedisProcess, collector: Collector, form: str, program: Sequence[str] = ()
) -> AsyncIterator[NodeProcess]:
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
        program=program,
    )
    try:
        await node.start()
        yield node
    finally:
        await node.close()


@pytest.mark.parametrize("form", ["text", pytest.param("json", marks=pytest.mark.long)])
async def test_no_secret_leaves_by_logs_metrics_or_traces(redis_process: RedisProcess, form: str) -> None:
    """Users trust the relay with messages, keys and tokens; the operator's tools must not show them either."""
    canaries, peers, v2_peers = Canaries(), Peers(), V2Peers()
    metrics, trail = "", b""
    async with Collector() as collector, exporting_node(redis_process, collector, form) as node:
        try:
            key = canaries.key()
            root = peers.keep(await Peer.login(node.url, key, "main", register=("root", "laptop")))
            ann, bob = await canary_paths.registrations(node, canaries, peers, root)
            await canary_paths.bad_logins(node, canaries, key)
            await canary_paths.every_request(canaries, root, ann, bob)
            again = await v2_peers.login(node.url, key, "again")
            dan, eve = await v2_canary_paths.registrations(node, canaries, v2_peers, root)
            await v2_canary_paths.bad_logins(node, canaries, key)
            await v2_canary_paths.every_request(canaries, again, dan, eve)
            await v2_canary_paths.garbage(node, canaries, key, dan)
            trail = await _audit_trail(redis_process, again)
            await _defects(redis_process, canaries, ann, dan)
            await canary_paths.garbage(node, canaries, ann)
            await _a_slow_reader(node, canaries, ann, bob)
            await _an_outage(node, redis_process, canaries, ann)
            metrics = await node.text("/metrics")
        finally:
            await peers.close()
            await v2_peers.close()
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
    assert {f"request {each}" for each in v2_canary_paths.OPERATIONS} <= {span.name for span in collector.spans}
    assert "conclave_refusals" in metrics
    assert b"channel_create" in trail or b"create_channel" in trail
    outputs = {"logs": logged.encode(), "metrics": metrics.encode(), "exports": exported, "audit trail": trail}
    assert {where: found for where, output in outputs.items() if (found := canaries.found_in(output))} == {}


async def _audit_trail(redis_process: RedisProcess, root: V2Peer) -> bytes:
    """Send the operations of admins, and read the audit trail."""
    with Redis.from_url(redis_process.url) as store:
        (trail,) = store.keys("*:audit")
        kept = repr(store.xrange(trail))
    return f"{kept}\n{await root.ask('audit', limit=1000)}".encode()


_DEFECT = """
import sys
from relay.channels import fanout
def defect(data):
    int(data)
fanout.parse_live = defect
from cli.main import main
sys.exit(main())
"""
"""A relay that cannot read live messages and ends by that."""


async def test_a_crash_is_logged_with_its_place_and_without_values(redis_process: RedisProcess) -> None:
    """Python's own last line quotes the value that could not be handled, in no log format and at any level."""
    canaries, peers = Canaries(), Peers()
    program = (sys.executable, "-c", _DEFECT)
    async with Collector() as collector, exporting_node(redis_process, collector, "text", program) as node:
        root = await peers.register(node.url, "root")
        await root.create("ops")
        await root.join("ops")
        with Redis.from_url(redis_process.url) as store:
            (topic,) = [each for each in store.pubsub_channels() if each.endswith(b":live")]
            store.publish(topic, f"1-1\0x\0{canaries.text('version')}\0{canaries.text('from')}\0x".encode())
        await wait_until(lambda: not node.is_running, timeout=30, what="the node ends")
        await peers.close()
        assert await node.stop() == 1
    logged = "\n".join(node.log)
    assert "defect" in logged, "where it happened"
    assert "ValueError" in logged
    assert any(record.body == "node.failed" for record in collector.records)
    assert canaries.found_in(logged.encode() + b"\n".join(collector.received)) == []


async def _defects(redis_process: RedisProcess, canaries: Canaries, ann: Peer, dan: V2Peer) -> None:
    """Make the store hold values that a node cannot read: conversions fail, and quote the value that they met."""
    with Redis.from_url(redis_process.url) as store:
        (machines,) = store.keys("*:machines:ann")
        for row in (canaries.text("row"), f"{canaries.text('row')} {canaries.text('row')}"):
            store.hset(machines, "odd", row)
            assert "failed to carry this out" in await ann.refusal(frames.ListMachines())
        store.hdel(machines, "odd")
        (machines,) = store.keys("*:machines:dan")
        store.hset(machines, "odd", canaries.text("row"))
        assert "failed to carry this out" in await dan.refusal("machines")
        store.hdel(machines, "odd")
        for log in store.keys("*:log"):
            kept = v1.encode_payload(canaries.body())
            store.xadd(log, {"f": canaries.text("sender"), "p": kept})
        assert "failed to carry this out" in await ann.refusal(frames.ReadSince("ops", 0))
        await dan.create("yard")
        await dan.join("yard")
        await dan.post("yard", canaries.text("body"))
        for log in store.keys("*:log"):
            store.xadd(log, {"f": canaries.text("sender"), "p": canaries.text("payload")})
        assert "failed to carry this out" in await dan.refusal("history", channel="yard")
        for log in store.keys("*:log"):
            store.delete(log)
        # A server that lacks a command quotes the arguments of the call; one that forbids it does not.
        store.execute_command("ACL", "SETUSER", "default", "-hvals")
        assert "cannot reach its store" in await ann.refusal(frames.Who("ops"))
        store.execute_command("ACL", "SETUSER", "default", "+hvals")
        (names,) = store.keys("*:names")
        store.rename(names, "aside")
        store.set(names, canaries.text("value"))
        assert "failed to carry this out" in await ann.refusal(frames.Join(canaries.text("channel"), "x"))
        store.rename("aside", names)


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
    await refused(Peer.login(node.url, canaries.key()))
    await redis_process.start()

    async def is_back() -> bool:
        return await node.status("/ready") == 200

    await wait_until(is_back, what="the node is ready again")
    await ann.post("ops", canaries.body())

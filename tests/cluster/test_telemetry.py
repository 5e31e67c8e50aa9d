"""Telemetry that real node processes export to a collector."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from conclave import __version__
from tests.support.collector import Collector, Span
from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisProcess
from tests.support.v2_peer import V2Peers
from tests.support.waiting import wait_until

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_BLRP_SCHEDULE_DELAY": "50"}


@asynccontextmanager
async def nodes_that_export(
    redis_url: str, count: int, environment: dict[str, str]
) -> AsyncIterator[list[NodeProcess]]:
    installed = any(name.startswith("PYTHON") for name in environment)  # what is imported is the question
    nodes = [NodeProcess("--redis-url", redis_url, environment=environment, installed=installed) for _ in range(count)]
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        yield nodes
    finally:
        await asyncio.gather(*(node.close() for node in nodes))


@asynccontextmanager
async def ann_and_bob(nodes: list[NodeProcess]) -> AsyncIterator[tuple[Peer, Peer]]:
    """Two sessions in a channel, on the first node and on the last."""
    peers = Peers()
    ann, bob = await peers.register(nodes[0].url, "ann"), await peers.register(nodes[-1].url, "bob")
    await ann.create("ops")
    await ann.join("ops")
    await bob.join("ops")
    try:
        yield ann, bob
    finally:
        await peers.close()


async def test_a_post_is_one_trace_over_both_nodes(redis_url: str) -> None:
    """A late message can be located only if publishing and delivery lie in one trace."""
    async with (
        Collector() as collector,
        nodes_that_export(redis_url, 2, {**SOON, "CONCLAVE_OTLP_ENDPOINT": f"{collector.url}//"}) as nodes,
        ann_and_bob(nodes) as (ann, bob),
    ):
        await ann.post("ops", "the first after a join may be read from the log, which keeps no traces")
        await wait_until(lambda: bob.bodies, what="bob gets it")
        await wait_until(lambda: collector.named("request channel_msg"), what="its request is exported")
        (first,) = collector.named("request channel_msg")
        await ann.post("ops", "hello")
        await wait_until(lambda: bob.bodies[1:] == ["hello"], what="bob gets that, too")
        await wait_until(lambda: len(collector.named("request channel_msg")) == 2, what="the request is exported")
        (request,) = [span for span in collector.named("request channel_msg") if span != first]
        await wait_until(lambda: len(_in(request, collector, "fan-out")) == 2, what="both deliveries are exported")
        deliveries = _in(request, collector, "fan-out")
        (post,) = _in(request, collector, "post")
        assert (request.parent, post.parent) == ("", request.id)
        assert [span.parent for span in deliveries] == [post.id, post.id]
        assert {_node(span) for span in deliveries} == {_node(request)} | {_node(span) for span in deliveries}
        assert len({_node(span) for span in deliveries}) == 2, "each node's part is said to be its own"
        assert len({span.attributes["conclave.message"] for span in deliveries}) == 1
        assert request.attributes["conclave.path"] == "ann/laptop/main"


async def test_a_post_of_version_2_is_one_trace_too(redis_url: str) -> None:
    """Operations go by their own names, those of the version that was spoken."""
    peers = V2Peers()
    async with (
        Collector() as collector,
        nodes_that_export(redis_url, 2, {**SOON, "CONCLAVE_OTLP_ENDPOINT": collector.url}) as nodes,
    ):
        ann, bob = await peers.register(nodes[0].url, "ann"), await peers.register(nodes[1].url, "bob")
        await ann.create("ops")
        await bob.join("ops")
        await ann.join("ops")
        await ann.post("ops", "first")
        await wait_until(lambda: bob.texts("ops"), what="bob gets it")
        await wait_until(lambda: collector.named("request send"), what="its request is exported")
        (first,) = collector.named("request send")
        await ann.post("ops", "hello")
        await wait_until(lambda: bob.texts("ops")[1:] == ["hello"], what="bob gets that, too")
        await wait_until(lambda: len(collector.named("request send")) == 2, what="the request is exported")
        (request,) = [span for span in collector.named("request send") if span != first]
        await wait_until(lambda: len(_in(request, collector, "fan-out")) == 2, what="both deliveries are exported")
        assert len(_in(request, collector, "post")) == 1
        assert len(collector.named("request channel.create")) == 1
        await peers.close()


def _in(request: Span, collector: Collector, name: str) -> list[Span]:
    """The spans of a name in the trace of a request."""
    return [span for span in collector.named(name) if span.trace == request.trace]


def _node(span: Span) -> str:
    node: str = span.resource["service.instance.id"]
    return node


async def test_logins_requests_and_refusals_are_spans_of_a_known_service(redis_url: str) -> None:
    """A refusal is no error of the service; admin operations go by their own names."""
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20sesame"}
    async with (
        Collector() as collector,
        nodes_that_export(redis_url, 1, {**SOON, **headers, "CONCLAVE_OTLP_ENDPOINT": collector.url}) as nodes,
        ann_and_bob(nodes) as (ann, _),
    ):
        with pytest.raises(Exception, match="already taken"):
            await ann.create("ops")
        await wait_until(lambda: len(collector.named("request create_channel")) == 2, what="both are exported")
        first, second = collector.named("request create_channel")
        assert "conclave.refusal" not in first.attributes
        assert second.attributes["conclave.refusal"] == "conflict"
        assert not any(span.failed for span in collector.spans)
        assert len(collector.named("login")) == 2
        assert first.resource["service.name"] == "conclave"
        assert first.resource["service.version"] == __version__
        assert any(f"node='{_node(first)}'" in line for line in nodes[0].log), "the instance is the node of the logs"
        assert all(each["authorization"] == "Bearer sesame" for each in collector.headers)


async def test_logs_are_exported_as_they_are_written_and_flushed_at_the_end(redis_url: str) -> None:
    """The last lines of a process matter most; they must not wait for a batch that never comes."""
    patient = {"OTEL_BSP_SCHEDULE_DELAY": "60000", "OTEL_BLRP_SCHEDULE_DELAY": "60000"}
    async with (
        Collector() as collector,
        nodes_that_export(redis_url, 1, {**patient, "CONCLAVE_OTLP_ENDPOINT": collector.url}) as nodes,
    ):
        async with ann_and_bob(nodes):
            pass
        assert not collector.received
        assert await nodes[0].stop() == 0
        events = [record.body for record in collector.records]
        assert {"conclave server listening", "session.established", "session.closed"} <= set(events)
        assert "shutdown signal received; draining connections" in events
        assert len(collector.named("login")) == 2
        established = next(record for record in collector.records if record.body == "session.established")
        assert established.level == "INFO"
        assert established.attributes["path"] == "ann/laptop/main"
        assert established.attributes["node"] == established.resource["service.instance.id"]


async def test_lines_below_the_level_are_not_exported(redis_process: RedisProcess) -> None:
    """One level for both: lines that are not logged cost nothing at the collector either."""
    environment = {**SOON, "RUST_LOG": "warn"}
    async with Collector() as collector:
        node = NodeProcess(
            "--redis-url", redis_process.url, environment={**environment, "CONCLAVE_OTLP_ENDPOINT": collector.url}
        )
        node.address = f"127.0.0.1:{free_port()}"
        starting = asyncio.create_task(node.start())  # it never says that it listens
        try:
            await wait_until(lambda: _is_ready(node), timeout=20, what="the node is ready")
            async with ann_and_bob([node]):
                await wait_until(lambda: collector.named("login"), what="spans are exported")
            assert await node.stop() == 0
        finally:
            starting.cancel()
            await node.close()
        assert node.log == []
        assert collector.records == []


async def _is_ready(node: NodeProcess) -> bool:
    try:
        return await node.status("/ready") == 200
    except OSError:
        return False


async def test_nothing_is_sampled_if_the_operator_says_so(redis_url: str) -> None:
    """Then messages carry no trace either; the SDK's variables are the standard setting."""
    environment = {**SOON, "OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    async with (
        Collector() as collector,
        nodes_that_export(redis_url, 2, {**environment, "CONCLAVE_OTLP_ENDPOINT": collector.url}) as nodes,
        ann_and_bob(nodes) as (ann, bob),
    ):
        await ann.post("ops", "hello")
        await wait_until(lambda: bob.bodies == ["hello"], what="bob gets it")
        await wait_until(lambda: len(collector.records) > 4, what="logs are exported nevertheless")
        for node in nodes:
            await node.stop()
        assert collector.spans == []


@pytest.mark.parametrize(
    ("endpoint", "more"),
    [
        ("collector:4318", {}),
        ("http://:x", {}),
        ("http://127.0.0.1:1", {"OTEL_BSP_MAX_QUEUE_SIZE": "1"}),
        ("http://127.0.0.1:1", {"OTEL_BLRP_MAX_QUEUE_SIZE": "1"}),
    ],
)
async def test_a_broken_exporter_is_one_line_and_the_node_serves(
    redis_url: str, endpoint: str, more: dict[str, str]
) -> None:
    """A typing error in the telemetry settings must not stop the relay."""
    environment = {"CONCLAVE_OTLP_ENDPOINT": endpoint, **more}
    async with nodes_that_export(redis_url, 1, environment) as nodes, ann_and_bob(nodes) as (ann, bob):
        await ann.post("ops", "hello")
        await wait_until(lambda: bob.bodies == ["hello"], what="bob gets it")
        assert len([line for line in nodes[0].log if "telemetry.off" in line]) == 1


async def test_a_missing_library_is_one_error_with_the_command_to_install_it(redis_url: str, tmp_path: Path) -> None:
    """The exporter is an extra: most operators have no collector."""
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('not installed')")
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    environment = {"CONCLAVE_OTLP_ENDPOINT": "http://127.0.0.1:1", "PYTHONPATH": path}
    async with nodes_that_export(redis_url, 1, environment) as nodes:
        (line,) = [line for line in nodes[0].log if "telemetry.off" in line]
        assert "error" in line
        assert "pip install 'conclave-cli[otel]'" in line


async def test_a_collector_that_is_away_is_no_matter_for_the_sessions(redis_url: str) -> None:
    """Exports are tried, and given up, in threads of their own; what they hold is bounded."""
    small = {"OTEL_BSP_MAX_QUEUE_SIZE": "32", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}
    environment = {**SOON, **small, "CONCLAVE_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    async with nodes_that_export(redis_url, 1, environment) as nodes:
        async with ann_and_bob(nodes) as (ann, bob):
            for number in range(200):
                await ann.post("ops", str(number))
            await wait_until(lambda: len(bob.bodies) == 200, what="bob gets everything")
        assert await nodes[0].stop() == 0
        assert not any("telemetry.off" in line for line in nodes[0].log)


async def test_a_collector_that_hangs_does_not_hold_up_the_end(redis_url: str) -> None:
    """A rolling deployment waits for every node."""
    async with Collector() as collector, Proxy("127.0.0.1", int(collector.url.split(":")[2].split("/")[0])) as proxy:
        environment = {**SOON, "CONCLAVE_OTLP_ENDPOINT": f"http://127.0.0.1:{proxy.port}/base"}
        async with nodes_that_export(redis_url, 1, environment) as nodes, ann_and_bob(nodes):
            await wait_until(lambda: collector.named("login"), what="the exporter has its connection")
            proxy.swallow()
            asked = time.monotonic()
            assert await nodes[0].stop() == 0
            assert time.monotonic() - asked < 10
            assert any("telemetry.unflushed" in line for line in nodes[0].log)


async def test_refusals_of_a_collector_are_not_exported_themselves(redis_url: str) -> None:
    """The exporter's complaints are logged here; if they were exported too, each would cause the next."""
    async with (
        Collector(status=400) as collector,
        nodes_that_export(redis_url, 1, {**SOON, "CONCLAVE_OTLP_ENDPOINT": collector.url}) as nodes,
        ann_and_bob(nodes) as (ann, _),
    ):
        await wait_until(lambda: any("Failed to export" in line for line in nodes[0].log), what="it complains")
        await ann.who()
        await wait_until(lambda: collector.named("request who"), what="the next batch is exported")
        assert not [record for record in collector.records if "export" in record.body]


@pytest.mark.parametrize("endpoint", [None, "", "  "])
async def test_without_a_collector_nothing_is_imported(redis_url: str, endpoint: str | None) -> None:
    """A node without a collector pays nothing for one: no library in memory, and so no thread of it."""
    environment = {"PYTHONPROFILEIMPORTTIME": "1"}
    if endpoint is not None:
        environment["CONCLAVE_OTLP_ENDPOINT"] = endpoint
    async with nodes_that_export(redis_url, 1, environment) as nodes, ann_and_bob(nodes):
        imported = {line.rpartition("|")[2].strip() for line in nodes[0].log if line.startswith("import time:")}
        assert "relay.observability.tracing" in imported
        exporter = (
            "relay.observability.otlp",
            "opentelemetry.exporter",
            "opentelemetry.sdk.trace",
            "google.protobuf",
            "requests",
        )
        assert not [module for module in imported if module.startswith(exporter)]

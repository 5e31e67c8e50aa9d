"""Alerts and dashboards query only metrics that nodes serve."""

import json
import re
from pathlib import Path

import pytest

from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers, Refused
from tests.support.prometheus import prometheus
from tests.support.promtool import metrics_of, rules
from tests.support.waiting import wait_until

_GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"

_ELSEWHERE = {
    "up",  # Prometheus itself
    "container_memory_working_set_bytes",  # the kubelet
    "kube_pod_container_resource_limits",  # from here on kube-state-metrics
    "kube_deployment_spec_replicas",
    "kube_deployment_status_replicas_available",
    "redis_memory_used_bytes",  # from here on redis_exporter
    "redis_memory_max_bytes",
    "redis_commands_processed_total",
    "redis_connected_clients",
    "redis_connected_slaves",
    "redis_master_link_up",
    "redis_aof_last_write_status",
    "redis_aof_last_bgrewrite_status",
    "redis_rdb_last_bgsave_status",
    "redis_evicted_keys_total",
}

_OF_WORKERS = {"conclave_worker_up", "conclave_worker_restarts_total"}
"""Metrics of a node with `--workers` only."""


def _of_nodes(exprs: list[str]) -> set[str]:
    """The metrics in some expressions that a node has to serve."""
    return {name for expr in exprs for name in metrics_of(expr) if ":" not in name} - _ELSEWHERE


_IN_RULES = _of_nodes([rule["expr"] for rule in rules()])
_IN_DASHBOARDS = _of_nodes(
    [
        target["expr"]
        for path in _GRAFANA.glob("*.json")
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", ())
    ]
)


def _served(text: str) -> set[str]:
    """The series that a /metrics page declares, those without a sample yet included."""
    names: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        names |= {f"{name}{suffix}" for suffix in ("_bucket", "_count", "_sum")} if kind == "histogram" else {name}
    return names


async def test_every_metric_in_a_rule_is_served(nodes: list[NodeProcess]) -> None:
    """An alert on a renamed metric never fires again."""
    assert _IN_RULES - _served(await nodes[0].text("/metrics")) == _OF_WORKERS


async def test_every_metric_in_a_rule_is_served_for_each_worker(redis_url: str) -> None:
    """Several processes behind one port serve the metrics of one, and those of their supervisor."""
    node = NodeProcess("--redis-url", redis_url, "--workers", "2")
    try:
        await node.start()
        assert _IN_RULES - _served(await node.text("/metrics")) == set()
    finally:
        await node.close()


async def test_every_metric_in_a_dashboard_is_served(nodes: list[NodeProcess]) -> None:
    """A panel on a renamed metric is empty, which looks like good news."""
    assert _IN_DASHBOARDS - _served(await nodes[0].text("/metrics")) == set()


async def test_the_objective_of_deliveries_is_a_bucket(nodes: list[NodeProcess]) -> None:
    """The alerts ask which deliveries took at most 0.5 s, and Prometheus does not interpolate there."""
    assert 'conclave_delivery_seconds_bucket{le="0.5"}' in await nodes[0].text("/metrics")


async def test_rules_find_data_on_a_busy_cluster(nodes: list[NodeProcess], peers: Peers, tmp_path: Path) -> None:
    """After some traffic every series that a rule reads has samples, and the objectives have a value."""
    posters = [await peers.register(node.url, f"user{node.pid}") for node in nodes]
    await posters[0].create("ops")
    for poster in posters:
        await poster.join("ops")
        with pytest.raises(Refused):
            await poster.join("nowhere")
    await (await Peer.register(nodes[0].url, "passer-by")).close()
    async with prometheus(nodes, tmp_path) as watcher:

        async def has_data(expr: str) -> bool:
            for poster in posters:
                await poster.post("ops", "hello")
            return bool(await watcher.query(expr))

        async def finds_data(expr: str) -> None:
            await wait_until(lambda: has_data(expr), timeout=30, what=f"data for {expr}")

        for name in sorted(_IN_RULES - _OF_WORKERS):
            await finds_data(name)
        for rule in rules():
            if rule.get("record") == "conclave:deliveries_late:ratio_rate5m":
                await finds_data(rule["expr"])

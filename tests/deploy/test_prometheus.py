"""A real Prometheus with the configuration and the rules of deploy/, on a real cluster of three nodes."""

from pathlib import Path

from tests.support.nodes import NodeProcess
from tests.support.peer import Peers
from tests.support.prometheus import Prometheus, prometheus
from tests.support.waiting import wait_until


async def test_cluster_is_watched(nodes: list[NodeProcess], peers: Peers, tmp_path: Path) -> None:
    """Every node is scraped, every rule can be evaluated, sessions are counted, and no alert fires."""
    for node in nodes:
        await peers.register(node.url, f"guest{node.pid}")
    async with prometheus(nodes, tmp_path) as watcher:
        await wait_until(lambda: _has(watcher, 'sum(up{job="conclave"})', 3), timeout=30, what="all nodes are up")
        await wait_until(lambda: _has(watcher, "sum(conclave_sessions)", 3), timeout=30, what="sessions are counted")
        await wait_until(lambda: _all_evaluated(watcher), timeout=60, what="every rule was evaluated")
        assert await watcher.query('ALERTS{alertstate="firing"}') == []


async def test_a_dead_node_raises_an_alert(nodes: list[NodeProcess], tmp_path: Path) -> None:
    """From the kill to a pending alert: labels, rules and scrapes match each other."""
    async with prometheus(nodes, tmp_path) as watcher:
        await wait_until(lambda: _has(watcher, 'sum(up{job="conclave"})', 3), timeout=30, what="all nodes are up")
        await nodes[1].kill()
        pending = 'ALERTS{alertname="ConclaveNodeDown", alertstate="pending"}'
        await wait_until(lambda: _has(watcher, pending, 1), timeout=30, what="the alert is pending")
        found = (await watcher.get("alerts"))["alerts"]
        [alert] = [each for each in found if each["labels"]["alertname"] == "ConclaveNodeDown"]
        assert nodes[1].address in alert["annotations"]["description"], "it names the node"
        assert nodes[0].address not in alert["annotations"]["description"]


async def _has(watcher: Prometheus, expr: str, value: float) -> bool:
    return await watcher.query(expr) == [value]


async def _all_evaluated(watcher: Prometheus) -> bool:
    groups = (await watcher.get("rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    bad = [rule for rule in rules if rule["health"] == "err"]
    assert bad == []
    return bool(rules) and all(rule["health"] == "ok" for rule in rules)

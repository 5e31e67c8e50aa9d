"""The cores and the memory that a load needs by the formula of docs/performance.md, and the growth to 100 nodes.

    python bench/sizing.py [--sessions N] [--messages M] [--listeners L] [--utilisation SHARE]

The costs are those of the machine in docs/performance.md; measure yours with `make bench`. Without arguments it prints
the table of the growth: each node has the same sessions, and each session posts as often and to as many others.
"""

import argparse
import math
import sys

import msgspec


class Costs(msgspec.Struct, frozen=True):
    """Microseconds of CPU on a core that is about half busy, unless the name says otherwise."""

    post: float = 170.0
    """A post, at the node that takes it."""
    receive: float = 60.0
    """A live message, at a node that has listeners, without its deliveries."""
    deliver: float = 16.0
    """A delivery to one session."""
    ping: float = 60.0
    """A ping of a session that says nothing else, three a minute."""
    idle: float = 4_000.0
    """A node without sessions, per second."""
    store_post: float = 65.0
    """A post, in Redis, without its publication."""
    store_publish: float = 35.0
    """The publication of a post to one node, in Redis."""
    store_idle: float = 800.0
    """A node, in Redis, per second."""
    node_bytes: int = 60_000_000
    session_bytes: int = 12_000
    logged_bytes: int = 235
    """A message of 200 bytes in the log."""


class Load(msgspec.Struct, frozen=True):
    """Sessions, messages a second, and the sessions that each message is delivered to, all nodes together."""

    sessions: int
    messages: float
    listeners: float


class Need(msgspec.Struct, frozen=True):
    """Cores that are busy all the time, and bytes."""

    node_cores: float
    store_cores: float
    node_bytes: float
    store_bytes: float


MACHINE = Costs()
RETENTION_SECONDS = 7 * 86_400
_PINGS = 1 / 20
"""Pings a second of a session that says nothing else."""


def need(load: Load, nodes: int, costs: Costs = MACHINE) -> Need:
    """Return what a load needs. A channel's listeners are taken to be at as many nodes as there can be."""
    reached = min(nodes, load.listeners)
    messages = load.messages * (costs.post + reached * costs.receive + load.listeners * costs.deliver)
    store = load.messages * (costs.store_post + reached * costs.store_publish)
    return Need(
        node_cores=(messages + load.sessions * _PINGS * costs.ping + nodes * costs.idle) / 1e6,
        store_cores=(store + nodes * costs.store_idle) / 1e6,
        node_bytes=nodes * costs.node_bytes + load.sessions * costs.session_bytes,
        store_bytes=load.messages * RETENTION_SECONDS * costs.logged_bytes,
    )


def nodes_for(load: Load, utilisation: float, costs: Costs = MACHINE) -> int:
    """Return the least number of nodes, of one core each, that are busy for no more than this share of the time."""
    nodes = 1
    while need(load, nodes, costs).node_cores > nodes * utilisation:
        nodes += 1
        if nodes > 10_000:  # noqa: PLR2004 - more nodes do not help: each has to receive every message
            raise ValueError("the messages that every node receives leave no time for deliveries")
    return nodes


def growth(costs: Costs = MACHINE) -> str:
    """Return a table: 2,000 sessions a node, one message a minute from each, to nine others."""
    lines = [
        "| nodes | sessions | messages a second | share of a node's core | share of Redis' core |",
        "|---:|---:|---:|---:|---:|",
    ]
    for nodes in (1, 2, 4, 10, 30, 100):
        sessions = 2_000 * nodes
        load = Load(sessions, sessions / 60, 9)
        needed = need(load, nodes, costs)
        shares = f"{needed.node_cores / nodes:.0%} | {needed.store_cores:.0%}"
        lines.append(f"| {nodes} | {sessions:,} | {load.messages:,.0f} | {shares} |")
    return "\n".join(lines)


def example(load: Load, utilisation: float, costs: Costs = MACHINE) -> str:
    """Return what a load needs, in words."""
    nodes = nodes_for(load, utilisation, costs)
    needed = need(load, nodes, costs)
    return (
        f"{nodes} node{'s' * (nodes > 1)} of one core, busy {needed.node_cores / nodes:.0%} of the time, with "
        f"{math.ceil(needed.node_bytes / nodes / 1e6):,} MB each; "
        f"{needed.store_cores:.0%} of one core of Redis, and {needed.store_bytes / 1e9:,.1f} GB in it for seven days"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute the cores and the memory that a load needs.")
    parser.add_argument("--sessions", type=int)
    parser.add_argument("--messages", type=float, default=100.0, help="messages a second, all channels together")
    parser.add_argument("--listeners", type=float, default=10.0, help="the sessions that a message is delivered to")
    parser.add_argument("--utilisation", type=float, default=0.5, help="the share of the time that a node may be busy")
    words = parser.parse_args()
    if words.sessions is None:
        sys.stdout.write(f"{growth()}\n")
        return
    load = Load(words.sessions, words.messages, words.listeners)
    sys.stdout.write(f"{example(load, words.utilisation)}\n")


if __name__ == "__main__":
    main()

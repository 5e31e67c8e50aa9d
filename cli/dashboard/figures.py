"""Figures about each node, and totals over all of them. Pure."""

from collections.abc import Iterable, Sequence

import msgspec

from cli.dashboard.snapshot import Snapshot, gauge, label, quantile, rate

SLOWEST = 0.99
"""Lags are this quantile of the observations."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One node. Rates are per second, lags in seconds. None: no such metric, or a rate that is not known yet."""

    version: str | None
    state: str | None
    """ready, draining, or not ready."""
    sessions: float | None
    channels: float | None
    messages_in: float | None
    messages_out: float | None
    bytes_in: float | None
    bytes_out: float | None
    pubsub_lag: float | None
    loop_lag: float | None
    outbox_bytes: float | None
    redis_up: bool | None
    refusals: float | None
    registered: float | None
    """The number of nodes that this one sees in the cluster."""


class NodeRow(msgspec.Struct, frozen=True):
    """A node and its figures, or the reason why there are none."""

    node: str
    figures: Figures | None
    error: str | None = None


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """All nodes that answered: sums, and the worst lag of each kind."""

    nodes: int
    answered: int
    ready: int
    registered: float | None
    sessions: float | None
    messages_in: float | None
    messages_out: float | None
    bytes_in: float | None
    bytes_out: float | None
    pubsub_lag: float | None
    loop_lag: float | None
    outbox_bytes: float | None
    refusals: float | None


def figures(snapshots: Sequence[Snapshot]) -> Figures:
    """Return the figures from a node's snapshots, oldest first: rates between the last two, lags over all of them."""
    new = snapshots[-1]
    last = snapshots[-2] if len(snapshots) > 1 else None
    first = snapshots[0] if len(snapshots) > 1 else None
    redis_up = gauge(new, "redis_up", min)
    return Figures(
        version=label(new, "build_info", "version"),
        state=_state(new),
        sessions=gauge(new, "sessions"),
        channels=gauge(new, "channels"),
        messages_in=rate(last, new, "posts_total"),
        messages_out=rate(last, new, "deliveries_total"),
        bytes_in=rate(last, new, "received_bytes_total"),
        bytes_out=rate(last, new, "sent_bytes_total"),
        pubsub_lag=quantile(first, new, "pubsub_lag_seconds", SLOWEST),
        loop_lag=quantile(first, new, "event_loop_lag_seconds", SLOWEST),
        outbox_bytes=gauge(new, "outbox_bytes"),
        redis_up=None if redis_up is None else redis_up > 0,
        refusals=rate(last, new, "refusals_total"),
        registered=gauge(new, "nodes", max),
    )


def totals(rows: Iterable[NodeRow]) -> Totals:
    asked = list(rows)
    known = [row.figures for row in asked if row.figures is not None]
    return Totals(
        nodes=len(asked),
        answered=len(known),
        ready=sum(one.state == "ready" for one in known),
        registered=_greatest(one.registered for one in known),
        sessions=_sum(one.sessions for one in known),
        messages_in=_sum(one.messages_in for one in known),
        messages_out=_sum(one.messages_out for one in known),
        bytes_in=_sum(one.bytes_in for one in known),
        bytes_out=_sum(one.bytes_out for one in known),
        pubsub_lag=_greatest(one.pubsub_lag for one in known),
        loop_lag=_greatest(one.loop_lag for one in known),
        outbox_bytes=_sum(one.outbox_bytes for one in known),
        refusals=_sum(one.refusals for one in known),
    )


def _state(snapshot: Snapshot) -> str | None:
    if (gauge(snapshot, "draining", max) or 0) > 0:
        return "draining"
    ready = gauge(snapshot, "ready", min)
    return None if ready is None else "ready" if ready > 0 else "not ready"


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _greatest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)

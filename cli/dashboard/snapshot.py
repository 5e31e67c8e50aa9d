"""The metrics of a node at one moment, and rates and quantiles from two such snapshots. Pure."""

import math
from collections.abc import Callable, Iterable

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from conclave.errors import ConclaveError

PREFIX = "conclave_"
_NAMES = (
    *("build_info", "ready", "draining", "redis_up", "nodes"),
    *("sessions", "channels", "outbox_bytes"),
    *("posts_total", "deliveries_total", "received_bytes_total", "sent_bytes_total", "refusals_total"),
    *("pubsub_lag_seconds_bucket", "event_loop_lag_seconds_bucket"),
)
_WANTED = tuple(f"{PREFIX}{name}" for name in _NAMES)

Labels = frozenset[tuple[str, str]]


class NoMetrics(ConclaveError):
    """The answer of a node is not the metrics of a relay."""


class Snapshot(msgspec.Struct, frozen=True):
    """`series` maps a metric's name, without the prefix, to its values by labels. `at` is in seconds of one clock.

    A node that runs several processes has each series several times: they are told apart by a label of their own.
    """

    at: float
    series: dict[str, dict[Labels, float]]


def parse(text: str, at: float) -> Snapshot:
    """Read Prometheus' text format. Metrics of other programs, infinities and NaN are left out.

    Raises:
        NoMetrics: for another format, and if nothing is left.
    """
    lines = "\n".join(line for line in text.split("\n") if line.startswith(_WANTED))
    series: dict[str, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families(lines):
            for sample in family.samples:
                if math.isfinite(sample.value):
                    series.setdefault(sample.name.removeprefix(PREFIX), {})[_labels(sample.labels)] = sample.value
    except (ValueError, IndexError, KeyError) as error:
        raise NoMetrics("its metrics cannot be read") from error
    if not series:
        raise NoMetrics("it has no metrics of a relay")
    return Snapshot(at, series)


def gauge(snapshot: Snapshot, name: str, join: Callable[[Iterable[float]], float] = sum) -> float | None:
    """Return the value of a gauge, joined over the processes of a node; None if the node does not have it."""
    series = snapshot.series.get(name)
    return join(series.values()) if series else None


def label(snapshot: Snapshot, name: str, of: str) -> str | None:
    """Return the distinct values of one label, joined by commas."""
    found = {value for labels in snapshot.series.get(name, ()) for key, value in labels if key == of}
    return ", ".join(sorted(found)) or None


def rate(old: Snapshot | None, new: Snapshot, name: str) -> float | None:
    """Return the increase of a counter per second; None without an earlier snapshot."""
    if old is None or name not in new.series or new.at <= old.at:
        return None
    return sum(_increases(old, new, name).values()) / (new.at - old.at)


def quantile(old: Snapshot | None, new: Snapshot, name: str, share: float) -> float | None:
    """Return a quantile of the observations of a histogram between two snapshots; None if there are none.

    As in Prometheus it is interpolated within a bucket; in the last bucket it is that bucket's lower bound.
    """
    if old is None:
        return None
    counts: dict[float, float] = {}
    for labels, increase in _increases(old, new, f"{name}_bucket").items():
        bound = _bound(labels)
        if bound is not None:
            counts[bound] = counts.get(bound, 0.0) + increase
    buckets = sorted(counts.items())
    if len(buckets) < 2 or buckets[-1][0] != math.inf or buckets[-1][1] <= 0:  # noqa: PLR2004 - a finite one, and all
        return None
    return _interpolated(buckets, share * buckets[-1][1])


def _interpolated(buckets: list[tuple[float, float]], rank: float) -> float:
    lower, below = 0.0, 0.0
    for bound, count in buckets[:-1]:
        if count >= rank:
            within = (rank - below) / (count - below) if count > below else 1.0
            return lower + (bound - lower) * within
        lower, below = bound, max(below, count)
    return lower


def _increases(old: Snapshot, new: Snapshot, name: str) -> dict[Labels, float]:
    """Return the increase of each series of a counter. A series that fell was reset by a restart of its process."""
    before = old.series.get(name, {})
    increases = {}
    for labels, value in new.series.get(name, {}).items():
        earlier = before.get(labels, 0.0)
        increases[labels] = value - earlier if value >= earlier else max(value, 0.0)
    return increases


def _labels(labels: dict[str, str]) -> Labels:
    return frozenset(labels.items())


def _bound(labels: Labels) -> float | None:
    try:
        bound = float(dict(labels)["le"])
    except (KeyError, ValueError):
        return None
    return bound if bound > 0 else None

"""The metrics of a node as they stood at one moment, and what two such pages say about the time between them."""

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


class NoPage(ConclaveError):
    """What a node answered are not the metrics of a relay."""


class Page(msgspec.Struct, frozen=True):
    """`series` maps a metric's name, without the prefix, to its values by labels. `at` is in seconds of one clock.

    A node that runs several processes has each series several times: they are told apart by a label of their own.
    """

    at: float
    series: dict[str, dict[Labels, float]]


def parse(text: str, at: float) -> Page:
    """Read Prometheus' text format; what is not about a relay, and values that are no numbers, are left out.

    Raises:
        NoPage: if it is something else, or nothing is left.
    """
    lines = "\n".join(line for line in text.split("\n") if line.startswith(_WANTED))
    series: dict[str, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families(lines):
            for sample in family.samples:
                if math.isfinite(sample.value):
                    series.setdefault(sample.name.removeprefix(PREFIX), {})[_labels(sample.labels)] = sample.value
    except (ValueError, IndexError, KeyError) as error:
        raise NoPage("its metrics cannot be read") from error
    if not series:
        raise NoPage("it has no metrics of a relay")
    return Page(at, series)


def gauge(page: Page, name: str, join: Callable[[Iterable[float]], float] = sum) -> float | None:
    """Return a present value, that of several processes joined; None if the node does not have it."""
    series = page.series.get(name)
    return join(series.values()) if series else None


def label(page: Page, name: str, of: str) -> str | None:
    """Return the values of one label, each once."""
    found = {value for labels in page.series.get(name, ()) for key, value in labels if key == of}
    return ", ".join(sorted(found)) or None


def rate(old: Page | None, new: Page, name: str) -> float | None:
    """Return a counter's increase per second."""
    if old is None or name not in new.series or new.at <= old.at:
        return None
    return sum(_increases(old, new, name).values()) / (new.at - old.at)


def quantile(old: Page | None, new: Page, name: str, share: float) -> float | None:
    """Return the value that this share of a histogram's new observations did not exceed; None if there are none.

    As in Prometheus it is interpolated within a bucket, and the last bucket counts as its lower bound.
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


def _increases(old: Page, new: Page, name: str) -> dict[Labels, float]:
    """How much each series of a counter grew. One that fell began anew: its process was restarted."""
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

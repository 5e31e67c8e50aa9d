"""A node's metrics, for Prometheus. No user, channel or path is ever a label."""

from prometheus_client import Counter, Histogram, disable_created_metrics

from relay.observability.metrics.node import WRONG_URL, Metrics
from relay.observability.metrics.table import CONTENT_TYPE, Labelled

disable_created_metrics()  # type: ignore[no-untyped-call]  # a further series for each counter and histogram, which no dashboard or alert uses

__all__ = ["CONTENT_TYPE", "WRONG_URL", "Counter", "Histogram", "Labelled", "Metrics"]

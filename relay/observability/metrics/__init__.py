"""What a node counts and measures, for Prometheus. No user, channel or path is ever a label."""

from relay.observability.metrics.families import CONTENT_TYPE, Family, render
from relay.observability.metrics.instruments import Counter, Labelled
from relay.observability.metrics.node import Metrics

__all__ = ["CONTENT_TYPE", "Counter", "Family", "Labelled", "Metrics", "render"]

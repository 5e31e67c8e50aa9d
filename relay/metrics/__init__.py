"""What a node counts and measures, for Prometheus. No user, channel or path is ever a label."""

from relay.metrics.families import CONTENT_TYPE, Family, render
from relay.metrics.instruments import Counter, Labelled
from relay.metrics.node import Metrics

__all__ = ["CONTENT_TYPE", "Counter", "Family", "Labelled", "Metrics", "render"]

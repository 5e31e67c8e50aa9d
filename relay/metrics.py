"""What the node counts. No user, channel or path is ever a label."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Metrics:
    """The metrics of one node, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.logins = Counter(
            "conclave_logins",
            "Logins by outcome: ok, gone, or the refusal's code.",
            ["outcome"],
            registry=self.registry,
        )
        self.closes = Counter(
            "conclave_session_closes", "Sessions that ended, by reason.", ["reason"], registry=self.registry
        )
        self.refusals = Counter("conclave_refusals", "Refused requests by code.", ["code"], registry=self.registry)
        self.refilled = Counter(
            "conclave_messages_refilled", "Messages that were read from a log after a gap.", registry=self.registry
        )
        self.lost = Counter(
            "conclave_history_lost",
            "Gaps that the log could not fill: trimmed, or lost in a failover.",
            registry=self.registry,
        )

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Register a gauge that is read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

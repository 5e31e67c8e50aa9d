"""The dashboards: the cluster from its users' side, a node from inside, and Redis from the nodes' side."""

from collections.abc import Iterable
from typing import Any

from deploy.generate.panels import Panel, Query, Row, dashboard

_NS = 'namespace=~"$namespace"'
_NODE = f'{_NS}, instance=~"$instance"'
# A gauge that is not summed has one series per worker.
_EACH = "{{instance}} {{worker}}"


def _rate(metric: str, by: str = "", labels: str = _NS) -> str:
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{labels}}}[$__rate_interval]))"


def _quantile(quantile: float, metric: str, by: str = "", labels: str = _NS) -> str:
    grouping = f"{by}, le" if by else "le"
    rate = f"rate({metric}_bucket{{{labels}}}[$__rate_interval])"
    return f"histogram_quantile({quantile}, sum by ({grouping}) ({rate}))"


def _quantiles(metric: str, labels: str = _NS) -> tuple[Query, ...]:
    return tuple(Query(_quantile(q, metric, labels=labels), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99))


def _cluster() -> Iterable[Row]:
    yield Row(
        "Now",
        (
            Panel("Nodes ready", "Nodes that take new sessions.", (Query(f"sum(conclave_ready{{{_NS}}})", ""),),
                  kind="stat", red_below=1),
            Panel("Nodes draining", "Nodes that are about to stop.", (Query(f"sum(conclave_draining{{{_NS}}})", ""),),
                  kind="stat"),
            Panel("Sessions", "Connected clients.", (Query(f"sum(conclave_sessions{{{_NS}}})", ""),), kind="stat"),
            Panel("Requests failing", "Share of the last hour; the promise is 0.1 %.",
                  (Query(f"max(conclave:requests_failed:ratio_rate1h{{{_NS}}})", ""),),
                  unit="percentunit", kind="stat", red_above=0.001),
            Panel("Deliveries late", "Share of the last hour that took longer than 0.5 s; the promise is 1 %.",
                  (Query(f"max(conclave:deliveries_late:ratio_rate1h{{{_NS}}})", ""),),
                  unit="percentunit", kind="stat", red_above=0.01),
            Panel("Messages lost", "Gaps of the last day that no log could fill.",
                  (Query(f"sum(increase(conclave_history_lost_total{{{_NS}}}[1d]))", ""),), kind="stat", red_above=1),
        ),
    )  # fmt: skip
    yield Row(
        "Traffic",
        (
            Panel("Posts and whispers", "Posts and whispers from clients, per second.", (
                Query(_rate("conclave_posts_total"), "posts"),
                Query(_rate("conclave_whispers_total"), "whispers"),
            )),
            Panel("Deliveries", "Messages handed to sockets, per second.",
                  (Query(_rate("conclave_deliveries_total"), "deliveries"),)),
            Panel("Bytes", "From and to clients, per second.", (
                Query(_rate("conclave_received_bytes_total"), "received"),
                Query(_rate("conclave_sent_bytes_total"), "sent"),
            ), unit="Bps"),
        ),
    )  # fmt: skip
    yield Row(
        "What users feel",
        (
            Panel("Delivery", "From Redis' timestamp to the socket.", _quantiles("conclave_delivery_seconds"),
                  unit="s", red_above=0.5),
            Panel("Publish", "Time from a post to its acknowledgement.", _quantiles("conclave_publish_seconds"),
                  unit="s"),
            Panel("Login", "From the first frame to the session.", _quantiles("conclave_login_seconds"), unit="s"),
        ),
    )  # fmt: skip
    yield Row(
        "Sessions",
        (
            Panel("Sessions by node", "A node that was replaced starts empty.",
                  (Query(f"sum by (instance) (conclave_sessions{{{_NS}}})"),)),
            Panel("Logins", "By outcome, per second.",
                  (Query(_rate("conclave_logins_total", "outcome"), "{{outcome}}"),)),
            Panel("Resumes", "Sessions that came back, by outcome, per second.",
                  (Query(_rate("conclave_resumes_total", "outcome"), "{{outcome}}"),)),
            Panel("Closes", "By reason, per second.",
                  (Query(_rate("conclave_session_closes_total", "reason"), "{{reason}}"),)),
        ),
    )  # fmt: skip
    yield Row(
        "Failures",
        (
            Panel("Refusals", "By code, per second; only internal and unavailable are the relay's fault.",
                  (Query(_rate("conclave_refusals_total", "code"), "{{code}}"),)),
            Panel("Gaps", "Losses of live delivery: gaps, messages read from logs, gaps that no log could fill.", (
                Query(_rate("conclave_gaps_total"), "gaps"),
                Query(_rate("conclave_messages_refilled_total"), "messages refilled"),
                Query(_rate("conclave_history_lost_total"), "lost"),
            )),
            Panel("Administration", "Operations by outcome, per second.", (
                Query(_rate("conclave_admin_operations_total", "operation, outcome"), "{{operation}} {{outcome}}"),
            )),
        ),
    )  # fmt: skip


def _node() -> Iterable[Row]:
    yield Row(
        "Load",
        (
            Panel("Sessions", "Connected clients.", (Query(f"conclave_sessions{{{_NODE}}}", _EACH),)),
            Panel("Channels and subscriptions", "Channels of this node, and the sessions that have joined them.", (
                Query(f"conclave_channels{{{_NODE}}}", f"{_EACH} channels"),
                Query(f"conclave_subscriptions{{{_NODE}}}", f"{_EACH} subscriptions"),
            )),
            Panel("Event loop lag", "Lag of the loop (99th percentile): above 0.25 s the node is short of CPU.",
                  (Query(_quantile(0.99, "conclave_event_loop_lag_seconds", "instance", _NODE)),),
                  unit="s", red_above=0.25),
        ),
    )  # fmt: skip
    yield Row(
        "Memory",
        (
            Panel("Resident memory", "Of the process.", (Query(f"process_resident_memory_bytes{{{_NODE}}}", _EACH),),
                  unit="bytes"),
            Panel("Outboxes", "Bytes that wait for sockets.", (Query(f"conclave_outbox_bytes{{{_NODE}}}", _EACH),),
                  unit="bytes"),
            Panel("Slow readers", "Sessions closed because too many bytes waited for them, per second.",
                  (Query(_rate("conclave_session_closes_total", "instance", f'{_NODE}, reason="slow_reader"')),)),
        ),
    )  # fmt: skip
    yield Row(
        "Fan-out",
        (
            Panel("Deliveries", "Messages handed to sockets, per second.",
                  (Query(_rate("conclave_deliveries_total", "instance", _NODE)),)),
            Panel("Subscribers per message", "Sessions of this node that one message reaches.",
                  _quantiles("conclave_fanout_size", _NODE)),
            Panel("Time of a fan-out", "Time for which one message occupies the loop.",
                  _quantiles("conclave_fanout_seconds", _NODE), unit="s"),
        ),
    )  # fmt: skip
    yield Row(
        "State",
        (
            Panel("Ready", "1 while the node takes sessions.", (Query(f"conclave_ready{{{_NODE}}}", _EACH),)),
            Panel("Draining", "1 while the node is about to stop.", (Query(f"conclave_draining{{{_NODE}}}", _EACH),)),
            Panel("Nodes known", "Nodes in the registry, as seen by this one.",
                  (Query(f"conclave_nodes{{{_NODE}}}", _EACH),)),
            Panel("Version", "Versions that run.", (
                Query(f"sum by (version) (conclave_build_info{{{_NODE}}})", "{{version}}"),
            )),
        ),
    )  # fmt: skip


def _redis() -> Iterable[Row]:
    yield Row(
        "As the nodes see it",
        (
            Panel("Up", "1 while a node reaches Redis.", (Query(f"conclave_redis_up{{{_NS}}}", _EACH),), red_below=1),
            Panel("Errors and reconnects", "Per second.", (
                Query(_rate("conclave_redis_errors_total"), "errors"),
                Query(_rate("conclave_redis_reconnects_total"), "reconnects"),
            )),
            Panel("Publish to subscribe", "A node's own probe through Redis and back (99th percentile).",
                  (Query(_quantile(0.99, "conclave_pubsub_lag_seconds", "instance")),), unit="s", red_above=0.25),
        ),
    )  # fmt: skip
    yield Row(
        "Scripts",
        (
            Panel("Calls", "By script, per second.",
                  (Query(_rate("conclave_script_seconds_count", "script"), "{{script}}"),)),
            Panel("Duration", "By script, as a node waits for it (99th percentile).",
                  (Query(_quantile(0.99, "conclave_script_seconds", "script"), "{{script}}"),), unit="s"),
            Panel("Janitor", "Runs, and dead nodes whose leftovers they removed, per second.", (
                Query(_rate("conclave_janitor_runs_total"), "runs"),
                Query(_rate("conclave_janitor_removed_total"), "removed"),
            )),
        ),
    )  # fmt: skip
    yield Row(
        "The server itself (redis_exporter)",
        (
            Panel("Memory", "Retention determines it: see docs/operations.md.", (
                Query(f"redis_memory_used_bytes{{{_NS}}}", "used"),
                Query(f"redis_memory_max_bytes{{{_NS}}} > 0", "limit"),
            ), unit="bytes"),
            Panel("Commands", "Per second.", (Query(_rate("redis_commands_processed_total"), "commands"),)),
            Panel("Clients", "Connections; two or three of each node.", (
                Query(f"redis_connected_clients{{{_NS}}}", "clients"),
            )),
            Panel("Replication", "Replicas that are connected.", (
                Query(f"redis_connected_slaves{{{_NS}}}", "replicas"),
            )),
        ),
    )  # fmt: skip


DASHBOARDS: dict[str, dict[str, Any]] = {
    "cluster": dashboard(
        uid="conclave-cluster",
        title="Conclave / Cluster",
        about="A cluster from its users' side: traffic, delays, failures.",
        rows=_cluster(),
    ),
    "node": dashboard(
        uid="conclave-node",
        title="Conclave / Node",
        about="One or more nodes from inside.",
        rows=_node(),
        by_instance=True,
    ),
    "redis": dashboard(
        uid="conclave-redis", title="Conclave / Redis", about="The Redis behind a cluster.", rows=_redis()
    ),
}
"""By the name of their file."""

"""The metrics of a node. `make docs` writes them as a table into docs/operations.md."""

from collections.abc import Sequence

from prometheus_client import ProcessCollector

from conclave import __version__
from conclave.errors import Code
from relay.model.close_reason import CloseReason
from relay.observability.metrics.table import Table

_CODES = tuple(code.value for code in Code)
WRONG_URL = "wrong_url"
"""The outcome of a login for another address than the public URLs of the node."""
_OPERATIONS = (
    *("create_channel", "acl_list", "ban_list", "invite_list", "invite_revoke", "server_invite_create"),
    *("machine_add", "machine_remove", "user_remove"),
)
"""The audited operations that have a script of their own."""
_VERDICTS = ("ok", "denied", "missing", "revoked", "taken", "named", "enrolled")

_FORMATS = ("inbox", "live", "log", "lease", "sessions", "nodes", "subscribers", "announcement")
"""Values in Redis that other nodes have written, and that this node reads."""

_QUICK = (0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
_SECONDS = (0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class Metrics(Table):
    """The metrics of one node."""

    def __init__(self, scripts: Sequence[str], channel_operations: Sequence[str] = ()) -> None:
        """Take the names of the Lua scripts that the node may run, and of the operations that administer.lua has."""
        super().__init__()
        self._define_state()
        self._define_sessions((*channel_operations, *_OPERATIONS))
        self._define_messages()
        self._define_redis(scripts)
        ProcessCollector(registry=self.registry)

    def _define_state(self) -> None:
        self._gauges("build_info", "1; the label is the version that runs.", version=[__version__]).labels(
            version=__version__
        ).set(1)
        self.ready = self._gauge("ready", "1 while the node accepts sessions.")
        self.draining = self._gauge("draining", "1 while the node is about to stop and closes its sessions.")
        self.event_loop_lag = self._histogram(
            "event_loop_lag_seconds", "Delay of a timer on the event loop, measured twice a second.", _SECONDS
        )

    def _define_sessions(self, operations: Sequence[str]) -> None:
        self.sessions = self._gauge("sessions", "Sessions on this node.")
        self.channels = self._gauge("channels", "Channels whose topics this node has subscribed to.")
        self.subscriptions = self._gauge(
            "subscriptions", "Sessions of this node in channels, summed over the channels."
        )
        self.records_pending = self._gauge(
            "records_pending", "Records of sessions (leases, lists) that are still to be written to Redis, or removed."
        )
        self.outbox_bytes = self._gauge("outbox_bytes", "Bytes that wait for the sockets of all sessions.")
        self.logins = self._counters(
            "logins",
            "Logins: ok, gone (the client left before the end), wrong_url (for another address than those of "
            "`--public-url`), or the refusal's code.",
            outcome=("ok", "gone", WRONG_URL, *_CODES),
        )
        self.login_seconds = self._histogram(
            "login_seconds", "Time from the upgrade to the session, the client's own share included.", _SECONDS
        )
        self.closes = self._counters(
            "session_closes", "Sessions that ended.", reason=[reason.value for reason in CloseReason]
        )
        self.refusals = self._counters("refusals", "Refused requests of sessions.", code=_CODES)
        self.resumes = self._counters(
            "resumes",
            "Joins with `since`: all messages after it were recovered, or some are lost (gap).",
            outcome=("recovered", "gap"),
        )
        self.received_bytes = self._unlocked_counter("received_bytes", "Bytes of WebSocket messages from clients.")
        self.sent_bytes = self._unlocked_counter("sent_bytes", "Bytes of WebSocket frames written for clients.")
        self.admin_operations = self._counters(
            "admin_operations",
            "Operations in the audit trail, by their outcome.",
            complete=False,
            operation=operations,
            outcome=_VERDICTS,
        )

    def _define_messages(self) -> None:
        self.posts = self._unlocked_counter("posts", "Acknowledged messages from sessions of this node.")
        self.publish_seconds = self._unlocked_histogram(
            "publish_seconds", "Time from a post to its acknowledgement; refused posts are not included.", _SECONDS
        )
        self.whispers = self._counters(
            "whispers", "Whispers from sessions of this node: ok, or the refusal's code.", outcome=("ok", *_CODES)
        )
        self.deliveries = self._unlocked_counter(
            "deliveries",
            "Live messages, each counted once for every session of this node that got it; replays are not included.",
        )
        self.fanout_size = self._unlocked_histogram(
            "fanout_size", "Sessions of this node that got one message; messages for none are not included.", _SIZES
        )
        self.fanout_seconds = self._unlocked_histogram(
            "fanout_seconds", "Time in which one message is put into the outboxes of this node.", _QUICK
        )
        self.delivery_seconds = self._unlocked_histogram(
            "delivery_seconds",
            "Age of a message, by the clock of Redis, when this node has put it into the outboxes; once per message "
            "and node. A busy node writes it up to `--max-gather-ms` later.",
            _SECONDS,
        )
        self.gaps = self._counter("gaps", "Gaps: live delivery has missed messages of a channel.")
        self.refilled = self._counter(
            "messages_refilled",
            "Messages read from a log for all sessions of a channel: after a gap, at a first join, or after a change "
            "of the membership version. Replays for one session are not included.",
        )
        self.lost = self._counter("history_lost", "Gaps that the log could not fill: trimmed, or lost in a failover.")

    def _define_redis(self, scripts: Sequence[str]) -> None:
        self.redis_up = self._gauge("redis_up", "1 while Redis answers: of a Cluster, the masters that a node needs.")
        self.redis_masters_away = self._gauge(
            "redis_masters_away", "Masters of a Redis Cluster that do not answer; 1 while a server of its own does not."
        )
        self.redis_errors = self._counter(
            "redis_errors", "Commands that Redis refused, and connections that broke or did not answer."
        )
        self.redis_findings = self._gauges(
            "redis_findings",
            "1 while the configuration of Redis has this fault, which the log explains (`redis.finding`).",
            finding=("eviction", "persistence", "memory", "version", "replica"),
        )
        self.redis_overloads = self._counter(
            "redis_overloads", "Commands that were refused because too many waited for Redis already."
        )
        self.redis_reconnects = self._counter(
            "redis_reconnects", "Repeated connections to Redis: for commands, topics, or the inbox."
        )
        self.script_seconds = self._histograms(
            "script_seconds",
            "Time from a script's call to its result, the wait to be sent included.",
            _SECONDS,
            script=scripts,
        )
        self.pubsub_lag = self._histogram(
            "pubsub_lag_seconds",
            "Time of this node's own probe, sent every two seconds, through Redis.",
            _SECONDS,
        )
        self.probes_missed = self._counter(
            "pubsub_probes_missed",
            "Probes that had not arrived when the next one was due: the subscriber connection may deliver nothing.",
        )
        self.unreadable = self._counters(
            "unreadable",
            "Stored or transmitted values that this node could not read and has skipped: another version wrote them, "
            "or another program.",
            where=_FORMATS,
        )
        self.nodes = self._gauge("nodes", "Nodes in the registry, as this node saw it last.")
        self.janitor_runs = self._counter("janitor_runs", "Runs of the janitor.")
        self.janitor_removed = self._counter("janitor_removed", "Dead nodes whose remains this node has removed.")

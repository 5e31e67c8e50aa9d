"""Every alert fires when it should, is quiet when it should be, and links to a section with the remedy."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.promtool import RULES, Scenario, alerts, metrics_of, rules, try_link, try_out

_OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
_A = 'namespace="chat", job="conclave", instance="a"'
_B = 'namespace="chat", job="conclave", instance="b"'
_OTHER = 'namespace="talk", job="conclave", instance="a"'
_W0, _W1 = (f'{_A}, worker="{number}"' for number in (0, 1))
_STORE = 'namespace="chat", job="redis", instance="r"'
_EVER = 400

Series = dict[str, str]


def _sample(name: str, values: str, node: str = _A, more: str = "") -> Series:
    return {f"{name}{{{node}{', ' + more if more else ''}}}": values}


def _flat(name: str, value: float = 1, node: str = _A, more: str = "") -> Series:
    return _sample(name, f"{value}x{_EVER}", node, more)


def _growing(name: str, step: float, node: str = _A, more: str = "") -> Series:
    """A counter that grows by this amount every 30 seconds."""
    return _sample(name, f"0+{step}x{_EVER}", node, more)


def _join(*parts: Series) -> Series:
    return {name: values for part in parts for name, values in part.items()}


def _requests(failing: float, of: float = 100) -> Series:
    return _join(
        _growing("conclave_posts_total", of - failing),
        _growing("conclave_logins_total", 0, more='outcome="ok"'),
        _growing("conclave_refusals_total", failing, more='code="unavailable"'),
    )


def _deliveries(late: float, of: float = 100) -> Series:
    return _join(
        _growing("conclave_delivery_seconds_bucket", of - late, more='le="0.5"'),
        _growing("conclave_delivery_seconds_count", of),
    )


def _lag(name: str, slow: float) -> Series:
    """A histogram with this share of its values between 0.25 and 1 second."""
    return _join(
        _growing(f"{name}_bucket", 100 - 100 * slow, more='le="0.25"'),
        _growing(f"{name}_bucket", 100, more='le="1"'),
        _growing(f"{name}_bucket", 100, more='le="+Inf"'),
    )


def _memory(share: float) -> Series:
    container = 'namespace="chat", pod="p", container="conclave"'
    return _join(
        _flat("container_memory_working_set_bytes", share * 1000, container),
        _flat("kube_pod_container_resource_limits", 1000, container, 'resource="memory"'),
    )


def _healthy(node: str) -> Series:
    return _join(
        _flat("conclave_ready", 1, node),
        _flat("conclave_redis_up", 1, node),
        _flat("conclave_draining", 0, node),
        _growing("conclave_pubsub_lag_seconds_count", 15, node),
    )


def _node(node: str = _A, **changed: Series) -> Series:
    """The series of a healthy node, except for the given ones, which are named without `conclave_`."""
    kept = {k: v for k, v in _healthy(node).items() if not any(k.startswith(f"conclave_{name}{{") for name in changed)}
    return _join(kept, *changed.values())


def _logins(**outcomes: float) -> Series:
    """Logins per 30 seconds by their outcome."""
    return _join(*(_growing("conclave_logins_total", n, more=f'outcome="{each}"') for each, n in outcomes.items()))


def _deployment(wanted: int, available: int, name: str = "acme-conclave") -> Series:
    deployment = f'namespace="chat", deployment="{name}"'
    return _join(
        _flat("kube_deployment_spec_replicas", wanted, deployment),
        _flat("kube_deployment_status_replicas_available", available, deployment),
    )


def _finding(name: str, value: float, node: str = _A) -> Series:
    return _flat("conclave_redis_findings", value, node, f'finding="{name}"')


def _redis(**values: float) -> Series:
    """Series of redis_exporter, in the namespace of a node."""
    return _join(_flat("conclave_redis_up"), *(_flat(f"redis_{name}", value, _STORE) for name, value in values.items()))


_OUTAGE = _join(
    _sample("conclave_posts_total", f"0+98x120 11760x20 11760+98x{_EVER}"),
    _sample("conclave_refusals_total", f"0x120 98+98x19 1960x{_EVER}", more='code="unavailable"'),
)
"""Ten minutes in which every request fails, after an hour in which none did."""
_GAPS = _growing("conclave_gaps_total", 0.1)
_NO_LOSS = _growing("conclave_history_lost_total", 0)
_SLOW = 'reason="slow_reader"'

SCENARIOS: dict[str, Scenario] = {
    name: Scenario(name.split(":")[0], series, at, firing)
    for name, series, at, firing in [
        ("ConclaveRequestsFailingFast: 2 %", _requests(2), "90m", 1),
        ("ConclaveRequestsFailingFast: 0.8 % for hours", _requests(0.8), "90m", 1),
        ("ConclaveRequestsFailingFast: 5 % for 20 minutes after five good hours",
         _join(_sample("conclave_posts_total", "0+95x700"),
               _sample("conclave_refusals_total", "0x600 5+5x99", more='code="unavailable"')), "320m", 1),
        ("ConclaveRequestsFailingFast: 0.05 %", _requests(0.05), "90m", 0),
        ("ConclaveRequestsFailingFast: 2 %, over for 40 minutes",
         _join(_growing("conclave_posts_total", 98),
               _sample("conclave_refusals_total", f"0+2x140 280x{_EVER}", more='code="internal"')), "110m", 0),
        ("ConclaveRequestsFailingFast: refusals that are the client's fault",
         _join(_growing("conclave_posts_total", 10), _growing("conclave_refusals_total", 90, more='code="not_found"')),
         "90m", 0),
        ("ConclaveRequestsFailingFast: logins", _join(
            _growing("conclave_logins_total", 50, more='outcome="ok"'),
            _growing("conclave_logins_total", 5, more='outcome="internal"')), "90m", 1),
        ("ConclaveRequestsFailingFast: two of four requests an hour", _requests(0.017, of=0.034), "90m", 0),
        ("ConclaveRequestsFailingFast: all for ten minutes, over for six", _OUTAGE, "76m", 0),
        ("ConclaveRequestsFailingFast: all for five minutes until now", _OUTAGE, "65m", 1),
        ("ConclaveRequestsFailingSlow: all for ten minutes, over for an hour", _OUTAGE, "130m", 0),
        ("ConclaveRequestsFailingSlow: 0.3 %", _requests(0.3), "150m", 1),
        ("ConclaveRequestsFailingSlow: 0.05 %", _requests(0.05), "150m", 0),
        ("ConclaveDeliveriesLateFast: 20 %", _deliveries(20), "90m", 1),
        ("ConclaveDeliveriesLateFast: 10 % for hours", _deliveries(10), "90m", 1),
        ("ConclaveDeliveriesLateFast: half for 20 minutes after five good hours",
         _join(_sample("conclave_delivery_seconds_bucket", "0+100x600 60050+50x99", more='le="0.5"'),
               _sample("conclave_delivery_seconds_count", "0+100x700")), "320m", 1),
        ("ConclaveDeliveriesLateFast: 3 %", _deliveries(3), "90m", 0),
        ("ConclaveDeliveriesLateFast: nobody says anything", _deliveries(0, of=0), "90m", 0),
        ("ConclaveDeliveriesLateFast: one message an hour is late", _deliveries(0.008, of=0.008), "90m", 0),
        ("ConclaveDeliveriesLateSlow: 3 %", _deliveries(3), "150m", 1),
        ("ConclaveDeliveriesLateSlow: 0.5 %", _deliveries(0.5), "150m", 0),
        ("ConclaveHistoryLost: once", _sample("conclave_history_lost_total", f"0x20 1x{_EVER}"), "15m", 1),
        ("ConclaveHistoryLost: long ago", _sample("conclave_history_lost_total", f"0x20 1x{_EVER}"), "60m", 0),
        ("ConclaveGapNotRefilled: nothing is read",
         _join(_GAPS, _growing("conclave_messages_refilled_total", 0), _NO_LOSS), "30m", 1),
        ("ConclaveGapNotRefilled: messages are read",
         _join(_GAPS, _growing("conclave_messages_refilled_total", 3), _NO_LOSS), "30m", 0),
        ("ConclaveGapNotRefilled: another node's refills do not count",
         _join(_GAPS, _growing("conclave_messages_refilled_total", 0), _NO_LOSS,
               _growing("conclave_messages_refilled_total", 3, _B),
               _growing("conclave_history_lost_total", 0, _B)), "30m", 1),
        ("ConclaveGapNotRefilled: another worker's refills do not count", _join(
            _growing("conclave_gaps_total", 0.1, _W0), _growing("conclave_gaps_total", 0, _W1),
            _growing("conclave_messages_refilled_total", 0, _W0), _growing("conclave_messages_refilled_total", 3, _W1),
            _growing("conclave_history_lost_total", 0, _W0), _growing("conclave_history_lost_total", 0, _W1)),
         "30m", 1),
        ("ConclaveDeafSubscriber: no probe comes back",
         _node(pubsub_lag_seconds_count=_flat("conclave_pubsub_lag_seconds_count", 9)), "10m", 1),
        ("ConclaveDeafSubscriber: no probe ever", _node(pubsub_lag_seconds_count={}), "10m", 1),
        ("ConclaveDeafSubscriber: hears itself", _node(), "10m", 0),
        ("ConclaveDeafSubscriber: Redis is away", _node(
            pubsub_lag_seconds_count=_flat("conclave_pubsub_lag_seconds_count", 9),
            redis_up=_flat("conclave_redis_up", 0)), "10m", 0),
        ("ConclaveDeafSubscriber: one worker of two never heard a probe",
         _join(_node(_W0, pubsub_lag_seconds_count={}), _node(_W1)), "10m", 1),
        ("ConclaveDeafSubscriber: both workers", _join(
            _node(_W0, pubsub_lag_seconds_count=_flat("conclave_pubsub_lag_seconds_count", 9, _W0)),
            _node(_W1, pubsub_lag_seconds_count=_flat("conclave_pubsub_lag_seconds_count", 9, _W1))), "10m", 1),
        ("ConclaveDeafSubscriber: Redis is away from one worker", _join(
            _node(_W0, pubsub_lag_seconds_count=_flat("conclave_pubsub_lag_seconds_count", 9, _W0),
                  redis_up=_flat("conclave_redis_up", 0, _W0)), _node(_W1)), "10m", 0),
        ("ConclavePubsubSlow: 5 % slow", _lag("conclave_pubsub_lag_seconds", 0.05), "30m", 1),
        ("ConclavePubsubSlow: 0.1 % slow", _lag("conclave_pubsub_lag_seconds", 0.001), "30m", 0),
        ("ConclaveJanitorStuck: no run",
         _join(_flat("conclave_redis_up"), _flat("conclave_janitor_runs_total", 7)), "30m", 1),
        ("ConclaveJanitorStuck: one of two nodes runs", _join(
            _flat("conclave_redis_up"), _flat("conclave_janitor_runs_total", 7),
            _flat("conclave_redis_up", 1, _B), _growing("conclave_janitor_runs_total", 15, _B)), "30m", 0),
        ("ConclaveJanitorStuck: Redis is away",
         _join(_flat("conclave_redis_up", 0), _flat("conclave_janitor_runs_total", 7)), "30m", 0),
        ("ConclaveWrongPublicUrl: every login", _logins(wrong_url=1, ok=0), "20m", 1),
        ("ConclaveWrongPublicUrl: one address of two", _logins(wrong_url=1, ok=0.5), "20m", 1),
        ("ConclaveWrongPublicUrl: a client with an old address", _logins(wrong_url=1, ok=5), "20m", 0),
        ("ConclaveWrongPublicUrl: other refusals", _logins(wrong_url=0, ok=0, unauthorized=5), "20m", 0),
        ("ConclaveLoginsRefused: every login", _logins(unauthorized=1, ok=0), "40m", 1),
        ("ConclaveLoginsRefused: clients of another version", _logins(version=1, ok=0.05), "40m", 1),
        ("ConclaveLoginsRefused: one of two", _logins(unauthorized=1, ok=1), "40m", 0),
        ("ConclaveLoginsRefused: three at night", _logins(unauthorized=0.1, ok=0), "40m", 0),
        ("ConclaveSlowReaders: 60 of 1,000", _join(
            _flat("conclave_sessions", 1000), _growing("conclave_session_closes_total", 2, more=_SLOW)), "40m", 1),
        ("ConclaveSlowReaders: 60 of 10,000", _join(
            _flat("conclave_sessions", 10_000), _growing("conclave_session_closes_total", 2, more=_SLOW)), "40m", 0),
        ("ConclaveSlowReaders: 3 of 10", _join(
            _flat("conclave_sessions", 10), _growing("conclave_session_closes_total", 0.1, more=_SLOW)), "40m", 0),
        ("ConclaveSlowReaders: others leave", _join(
            _flat("conclave_sessions", 10), _growing("conclave_session_closes_total", 9, more='reason="left"')),
         "40m", 0),
        ("ConclaveAllNodesDown: none is there", {}, "10m", 1),
        ("ConclaveAllNodesDown: all are down", _flat("up", 0), "10m", 1),
        ("ConclaveAllNodesDown: one is up", _join(_flat("up", 0), _flat("up", 1, _B)), "10m", 0),
        ("ConclaveAllNodesDown: one cluster of two", _join(_flat("up", 0), _flat("up", 0, _B), _flat("up", 1, _OTHER)),
         "10m", 1),
        ("ConclaveAllNodesDown: two clusters of two", _join(_flat("up", 0), _flat("up", 0, _OTHER)), "10m", 2),
        ("ConclaveNodeDown: one of two", _join(_flat("up", 0), _flat("up", 1, _B)), "10m", 1),
        ("ConclaveNodeDown: two of two are one page", _join(_flat("up", 0), _flat("up", 0, _B)), "10m", 1),
        ("ConclaveNodeDown: restarted within a minute", _sample("up", f"1x10 0 0 1x{_EVER}"), "7m", 0),
        ("ConclaveNodeDown: another job", _flat("up", 0, 'job="redis", instance="a"'), "10m", 0),
        ("ConclaveNodeNotReady: for minutes", _node(ready=_flat("conclave_ready", 0)), "10m", 1),
        ("ConclaveNodeNotReady: while it drains", _node(
            ready=_flat("conclave_ready", 0), draining=_flat("conclave_draining", 1)), "10m", 0),
        ("ConclaveNodeNotReady: one worker, while another is about to stop", _join(
            _node(_W0, ready=_flat("conclave_ready", 0, _W0)),
            _node(_W1, draining=_flat("conclave_draining", 1, _W1))), "10m", 1),
        ("ConclaveNodeNotReady: ready", _node(), "10m", 0),
        ("ConclaveWorkerDown: one of two does not answer",
         _join(_flat("conclave_worker_up", 0, _W0), _flat("conclave_worker_up", 1, _W1)), "10m", 1),
        ("ConclaveWorkerDown: started anew within a minute", _join(
            _sample("conclave_worker_up", f"1x10 0 0 1x{_EVER}", _W0),
            _sample("conclave_worker_restarts_total", f"0x10 1x{_EVER}", _W0)), "10m", 0),
        ("ConclaveWorkerDown: dies every two minutes", _join(
            _sample("conclave_worker_up", "1 1 1 0 " * 60, _W0),
            _growing("conclave_worker_restarts_total", 0.25, _W0),
            _flat("conclave_worker_restarts_total", 0, _W1)), "30m", 1),
        ("ConclaveWorkerDown: died often, long ago",
         _sample("conclave_worker_restarts_total", f"0+1x9 9x{_EVER}", _W0), "60m", 0),
        ("ConclaveNoNodeReady: none", _join(_flat("conclave_ready", 0), _flat("conclave_ready", 0, _B)), "5m", 1),
        ("ConclaveNoNodeReady: one", _join(_flat("conclave_ready", 0), _flat("conclave_ready", 1, _B)), "5m", 0),
        ("ConclaveNodesMissing: two of three are available", _deployment(3, 2), "20m", 1),
        ("ConclaveNodesMissing: none of three", _deployment(3, 0), "20m", 1),
        ("ConclaveNodesMissing: all are", _deployment(3, 3), "20m", 0),
        ("ConclaveNodesMissing: none is wanted", _deployment(0, 0), "20m", 0),
        ("ConclaveNodesMissing: of something else", _deployment(3, 2, "postgres"), "20m", 0),
        ("ConclaveUnreadable: for long", _growing("conclave_unreadable_total", 1, more='where="live"'), "90m", 1),
        ("ConclaveUnreadable: during a rolling update", _sample(
            "conclave_unreadable_total", f"0x20 0+5x19 100x{_EVER}", more='where="live"'), "34m", 0),
        ("ConclaveEventLoopStalls: 5 % late", _lag("conclave_event_loop_lag_seconds", 0.05), "30m", 1),
        ("ConclaveEventLoopStalls: 0.1 % late", _lag("conclave_event_loop_lag_seconds", 0.001), "30m", 0),
        ("ConclaveMemoryNearLimit: 95 %", _memory(0.95), "30m", 1),
        ("ConclaveMemoryNearLimit: 80 %", _memory(0.8), "30m", 0),
        ("ConclaveRedisDown: for a minute", _node(redis_up=_flat("conclave_redis_up", 0)), "2m", 1),
        ("ConclaveRedisDown: for three nodes is one page",
         _join(*(_flat("conclave_redis_up", 0, node) for node in (_A, _B, _W0))), "2m", 1),
        ("ConclaveRedisDown: one node of three",
         _join(_flat("conclave_redis_up", 0), _flat("conclave_redis_up", 1, _B), _flat("conclave_redis_up", 1, _W0)),
         "2m", 0),
        ("ConclaveRedisDown: up", _node(), "2m", 0),
        ("ConclaveRedisMasterAway: for both nodes", _join(
            _flat("conclave_redis_masters_away", 1), _flat("conclave_redis_masters_away", 2, _B)), "2m", 1),
        ("ConclaveRedisMasterAway: for one of them", _join(
            _flat("conclave_redis_masters_away", 1), _flat("conclave_redis_masters_away", 0, _B)), "2m", 0),
        ("ConclaveRedisErrors: one in six seconds", _growing("conclave_redis_errors_total", 5), "20m", 1),
        ("ConclaveRedisErrors: one in an hour", _sample("conclave_redis_errors_total", f"0x20 1x{_EVER}"), "20m", 0),
        ("ConclaveRedisReconnects: one a minute", _growing("conclave_redis_reconnects_total", 0.5), "20m", 1),
        ("ConclaveRedisReconnects: one", _sample("conclave_redis_reconnects_total", f"0x20 1x{_EVER}"), "20m", 0),
        ("ConclaveRedisReconnects: one outage of four connections",
         _sample("conclave_redis_reconnects_total", f"0x20 4x{_EVER}"), "20m", 0),
        ("ConclaveRedisFinding: by two nodes", _join(_finding("eviction", 1), _finding("eviction", 1, _B)), "10m", 1),
        ("ConclaveRedisFinding: two of them", _join(_finding("version", 1), _finding("persistence", 1)), "10m", 2),
        ("ConclaveRedisFinding: none", _join(_finding("eviction", 0), _finding("memory", 0)), "10m", 0),
        ("ConclaveRedisMemoryNearLimit: 90 %", _redis(memory_used_bytes=90, memory_max_bytes=100), "20m", 1),
        ("ConclaveRedisMemoryNearLimit: 50 %", _redis(memory_used_bytes=50, memory_max_bytes=100), "20m", 0),
        ("ConclaveRedisMemoryNearLimit: no limit", _redis(memory_used_bytes=50, memory_max_bytes=0), "20m", 0),
        ("ConclaveRedisReplicaLinkDown: for minutes", _redis(master_link_up=0), "10m", 1),
        ("ConclaveRedisReplicaLinkDown: up", _redis(master_link_up=1), "10m", 0),
        ("ConclaveRedisNotPersisting: a write failed", _redis(aof_last_write_status=0), "10m", 1),
        ("ConclaveRedisNotPersisting: a rewrite failed", _redis(aof_last_bgrewrite_status=0), "10m", 1),
        ("ConclaveRedisNotPersisting: a snapshot failed", _redis(rdb_last_bgsave_status=0), "10m", 1),
        ("ConclaveRedisNotPersisting: all is written", _redis(
            aof_last_write_status=1, aof_last_bgrewrite_status=1, rdb_last_bgsave_status=1), "10m", 0),
        ("ConclaveRedisEvicts: once", _join(
            _flat("conclave_redis_up"), _sample("redis_evicted_keys_total", f"0x20 1x{_EVER}", _STORE)), "15m", 1),
        ("ConclaveRedisEvicts: never", _redis(evicted_keys_total=0), "15m", 0),
        ("ConclaveRedisEvicts: the cache of another application", _join(_flat("conclave_redis_up"), _growing(
            "redis_evicted_keys_total", 9, 'namespace="shop", job="redis", instance="r"')), "15m", 0),
    ]
}  # fmt: skip


def test_rules_are_valid() -> None:
    """Prometheus refuses the whole file for one mistake."""
    done = subprocess.run(
        ["promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES],  # noqa: S607 - make brought it
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_alert_fires_when_it_should_and_not_otherwise(scenario: Scenario, tmp_path: Path) -> None:
    """An alert that cannot fire is worse than none, and one with false alarms is switched off."""
    done = try_out(scenario, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    """A new alert without both cases may never fire, or always."""
    for alert in alerts():
        firing = {scenario.firing for scenario in SCENARIOS.values() if scenario.alert == alert}
        assert {0, 1} <= firing, alert
    assert {scenario.alert for scenario in SCENARIOS.values()} == set(alerts())


@pytest.mark.parametrize("alert", alerts().values(), ids=list(alerts()))
def test_alert_has_its_meaning_and_its_remedy(alert: dict[str, Any]) -> None:
    """An operator who is woken reads the summary on a small screen and then follows the link."""
    said = alert["annotations"]
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert said.keys() == {"summary", "description", "runbook_url"}
    assert len(said["summary"]) <= 120
    assert not said["summary"].endswith(".")
    assert said["description"].endswith(".")
    page, anchor = said["runbook_url"].split("#")
    assert page == '{{ or $externalLabels.runbooks "docs/operations.md" }}'
    section = _section(anchor)
    for word in ("**Users", "**Look", "**Do"):
        assert word in section, f"the runbook of {alert['alert']} lacks {word}"


@pytest.mark.parametrize(
    ("labels", "page"),
    [
        ({"runbooks": "https://git.example/operations.md"}, "https://git.example/operations.md"),
        ({}, "docs/operations.md"),
    ],
)
def test_link_of_an_alert_leads_to_the_operators_page(labels: dict[str, str], page: str, tmp_path: Path) -> None:
    """A path in a repository cannot be clicked; the page is where the operators' copy of it is."""
    done = try_link("ConclaveNoNodeReady", _flat("conclave_ready", 0), labels, page, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_section_belongs_to_an_alert() -> None:
    """A section without an alert describes one that was renamed."""
    titles = re.findall(r"^#### (Conclave\w+)$", _OPERATIONS.read_text(), re.MULTILINE)
    assert sorted(titles) == sorted(alerts())


def test_links_of_the_page_have_targets() -> None:
    """A runbook is read under pressure."""
    text = _OPERATIONS.read_text()
    titles = {_anchor(title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        if path:
            assert (_OPERATIONS.parent / path).exists(), target
        else:
            assert anchor in titles, target


def test_recorded_series_are_recorded() -> None:
    """An alert on a series that no rule records never fires."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    named = {name for rule in rules() for name in metrics_of(rule["expr"]) if ":" in name}
    assert named == recorded


def _section(anchor: str) -> str:
    for part in re.split(r"^#+ ", _OPERATIONS.read_text(), flags=re.MULTILINE):
        title, _, body = part.partition("\n")
        if _anchor(title) == anchor:
            return body
    raise AssertionError(f"docs/operations.md has no section {anchor}")


def _anchor(title: str) -> str:
    """Return the anchor that Markdown renderers give a heading."""
    return re.sub(r"[^\w -]", "", title.strip().lower()).replace(" ", "-")

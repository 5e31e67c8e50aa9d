"""From metrics to figures: gauges from one snapshot, rates and quantiles from two."""

import math
from bisect import bisect_left
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.dashboard.figures import Figures, NodeRow, figures, totals
from cli.dashboard.snapshot import NoMetrics, Snapshot, gauge, label, parse, quantile, rate

PAGE = """\
# HELP conclave_sessions Sessions on this node.
# TYPE conclave_sessions gauge
conclave_sessions 12.0
conclave_build_info{version="0.4.0"} 1.0
conclave_ready 1.0
conclave_draining 0.0
conclave_redis_up 1.0
conclave_nodes 3.0
conclave_channels 4.0
conclave_outbox_bytes 2048.0
# TYPE conclave_posts_total counter
conclave_posts_total 100.0
conclave_deliveries_total 1000.0
conclave_received_bytes_total 5e+03
conclave_sent_bytes_total 50000.0
conclave_refusals_total{code="not_found"} 5.0
conclave_refusals_total{code="internal"} 1.0
process_cpu_seconds_total 3.2
"""

BOUNDS = (0.001, 0.01, 0.1, 1.0)
counts = st.integers(0, 10**9)


def histogram(observed: list[float], labels: str = "") -> str:
    """A histogram in the format of a node."""
    sizes = Counter(bisect_left(BOUNDS, value) for value in observed)
    lines, so_far = [], 0
    for at, bound in enumerate((*BOUNDS, math.inf)):
        so_far += sizes[at]
        text = "+Inf" if bound == math.inf else str(bound)
        lines.append(f'conclave_pubsub_lag_seconds_bucket{{{labels}le="{text}"}} {so_far}')
    return "\n".join(lines)


def test_a_snapshot_becomes_figures() -> None:
    """One snapshot has the gauges; rates need a second one."""
    found = figures([parse(PAGE, 5.0)])
    assert (found.version, found.state, found.redis_up, found.registered) == ("0.4.0", "ready", True, 3)
    assert (found.sessions, found.channels, found.outbox_bytes) == (12, 4, 2048)
    assert (found.messages_in, found.refusals, found.pubsub_lag) == (None, None, None)


def test_two_snapshots_become_rates() -> None:
    """Rates are per second, whatever the interval; refusals of all codes are added up."""
    later = PAGE.replace("posts_total 100.0", "posts_total 130").replace("5e+03", "7000").replace("} 5.0", "} 9.0")
    found = figures([parse(PAGE, 0.0), parse(PAGE, 10.0), parse(later, 12.0)])
    assert (found.messages_in, found.messages_out, found.bytes_in, found.refusals) == (15, 0, 1000, 2)


@pytest.mark.parametrize(
    ("ready", "draining", "state"),
    [("1", "0", "ready"), ("0", "0", "not ready"), ("1", "1", "draining"), ("0", "1", "draining")],
)
def test_draining_takes_precedence_over_not_ready(ready: str, draining: str, state: str) -> None:
    """A draining node becomes unready, too; draining is the more precise state."""
    assert figures([parse(f"conclave_ready {ready}\nconclave_draining {draining}\n", 0)]).state == state


def test_a_missing_metric_is_unknown_and_not_zero() -> None:
    """An older version may lack some metrics."""
    page = parse("conclave_sessions 3\n", 0)
    found = figures([page, parse("conclave_sessions 3\n", 2)])
    said = {name: value for name in Figures.__struct_fields__ if (value := getattr(found, name)) is not None}
    assert said == {"sessions": 3}


def test_a_node_of_several_processes_is_one_node() -> None:
    """Its series have a label for the process. Gauges are added up, and the node is as ready as its worst process."""
    first, second = 'worker="0"', 'worker="1"'
    text = "\n".join(
        f"conclave_{name}{{{labels}}} {value}"
        for name, values in {
            "sessions": (3, 4),
            "ready": (1, 0),
            "redis_up": (1, 0),
            "draining": (0, 0),
            "nodes": (4, 5),
            "posts_total": (10, 20),
        }.items()
        for labels, value in zip((first, second), values, strict=True)
    )
    restarted = text.replace(f"posts_total{{{second}}} 20", f"posts_total{{{second}}} 6")
    found = figures([parse(text, 0), parse(restarted, 2)])
    assert (found.sessions, found.state, found.redis_up, found.registered) == (7, "not ready", False, 5)
    assert found.messages_in == 3, "the other process did nothing; this one began anew and has counted six"


@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=4), st.floats(0.01, 100))
def test_a_rate_is_never_negative_and_never_more_than_what_was_counted(
    series: list[tuple[int, int]], seconds: float
) -> None:
    """Any of the processes may have been restarted in between."""
    old, new = (
        "\n".join(f'conclave_posts_total{{worker="{at}"}} {pair[side]}' for at, pair in enumerate(series))
        for side in (0, 1)
    )
    found = rate(parse(old, 0), parse(new, seconds), "posts_total")
    assert found is not None
    assert 0 <= found * seconds <= sum(after for _, after in series) * (1 + 1e-9)
    if all(after >= before for before, after in series):
        assert found * seconds == pytest.approx(sum(after - before for before, after in series))


@given(
    st.lists(st.floats(0, 3), max_size=50),
    st.lists(st.floats(0, 3), max_size=50),
    st.floats(0.01, 1),
)
def test_a_quantile_is_of_the_new_observations_and_right_to_the_bucket(
    earlier: list[float], later: list[float], share: float
) -> None:
    """Observations before the window do not count; beyond the last bound the result is the last bound."""
    found = quantile(parse(histogram(earlier), 0), parse(histogram(earlier + later), 1), "pubsub_lag_seconds", share)
    if not later:
        assert found is None
        return
    assert found is not None
    rank = max(1, math.ceil(share * len(later) - 1e-9))
    at = bisect_left(BOUNDS, sorted(later)[rank - 1])
    lower, upper = (0.0, *BOUNDS)[at], (*BOUNDS, BOUNDS[-1])[at]
    assert lower - 1e-9 <= found <= upper + 1e-9


def test_the_quantile_of_several_processes_is_that_of_all_their_observations() -> None:
    """A process with few observations must not weigh as much as one with many."""
    before = "\n".join(histogram([], f'worker="{worker}",') for worker in "01")
    after = "\n".join([histogram([0.5] * 99, 'worker="0",'), histogram([0.0001], 'worker="1",')])
    found = quantile(parse(before, 0), parse(after, 1), "pubsub_lag_seconds", 0.5)
    assert found is not None
    assert 0.1 < found < 1


names = st.sampled_from(["sessions", "posts_total", "pubsub_lag_seconds_bucket", "build_info", "ready"])
junk = st.text(st.sampled_from('{}="\\,\n #le1.0eE+-NaInf\x00é'), max_size=30)


@given(st.lists(st.tuples(names, junk), max_size=5))
def test_any_answer_is_a_snapshot_or_an_error(lines: list[tuple[str, str]]) -> None:
    """Another server, or a hostile one, may listen at the address."""
    text = "".join(f"conclave_{name}{rest}\n" for name, rest in lines)
    try:
        page = parse(text, 0)
    except NoMetrics:
        return
    found = figures([page, Snapshot(1, page.series)])
    for name in Figures.__struct_fields__:
        value = getattr(found, name)
        assert not isinstance(value, float) or math.isfinite(value)


def test_metrics_of_another_program_are_an_error() -> None:
    """A neighbouring web server answers, too."""
    for text in ("<html>", "", "process_cpu_seconds_total 3\n", "conclave_sessions NaN\n"):
        with pytest.raises(NoMetrics):
            parse(text, 0)


def test_gauges_and_labels_that_are_missing_are_none() -> None:
    """So is a rate without an earlier value, or over no time."""
    page = parse(PAGE, 0)
    assert gauge(page, "absent") is None
    assert label(page, "ready", "version") is None
    assert rate(page, page, "posts_total") is None
    assert rate(None, page, "posts_total") is None


def test_totals_cover_the_nodes_that_answered() -> None:
    """Totals are sums, the worst lag, and one node's view of the cluster; None if no node knows the value."""
    one = figures([parse(PAGE + histogram([]), 0), parse(PAGE + histogram([0.005]), 1)])
    two = figures([parse(PAGE + histogram([]), 0), parse(PAGE.replace("ready 1.0", "ready 0") + histogram([0.5]), 1)])
    found = totals([NodeRow("a", one), NodeRow("b", None, "connection refused"), NodeRow("c", two)])
    assert (found.nodes, found.answered, found.ready, found.registered, found.sessions) == (3, 2, 1, 3, 24)
    assert found.pubsub_lag == two.pubsub_lag
    assert found.loop_lag is None
    assert totals([]).sessions is None

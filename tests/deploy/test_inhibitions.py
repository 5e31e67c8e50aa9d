"""One failure is one page: the alerts of an outage of Redis, and what a real Alertmanager makes of them."""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.support.alertmanager import CONFIG, alertmanager
from tests.support.chart import render
from tests.support.promtool import alerts, try_times

_NODES = "abc"
_BEFORE, _OUT, _AFTER = 120, 20, 200
"""Steps of 30 seconds: an hour that is well, ten minutes without Redis, and the time after them."""

DURING = {
    "ConclaveRedisDown",
    "ConclaveRedisMasterAway",
    "ConclaveNoNodeReady",
    "ConclaveNodeNotReady",
    "ConclaveRequestsFailingFast",
    "ConclaveRedisErrors",
}

FOLLOWS = {
    "ConclaveRedisDown": DURING | {"ConclaveNodesMissing", "ConclaveRequestsFailingSlow"},
    "ConclaveRedisNotPersisting": {"ConclaveNoNodeReady", "ConclaveRedisErrors"},
    "ConclaveAllNodesDown": {"ConclaveNodeDown", "ConclaveNodesMissing"},
    "ConclaveNoNodeReady": {"ConclaveNodeNotReady", "ConclaveNodesMissing", "ConclaveRedisErrors"},
    "ConclaveNodeDown": {"ConclaveNodesMissing"},
    "ConclaveRedisMasterAway": {"ConclaveRedisErrors", "ConclaveRequestsFailingFast"},
    "ConclaveWrongPublicUrl": {"ConclaveLoginsRefused"},
    "ConclaveRequestsFailingFast": {"ConclaveRequestsFailingSlow"},
    "ConclaveDeliveriesLateFast": {"ConclaveDeliveriesLateSlow"},
}
"""The alert of a failure, and others that fire with it."""


def _state(well: float, out: float) -> str:
    """A gauge."""
    return f"{well}x{_BEFORE} {out}x{_OUT - 1} {well}x{_AFTER}"


def _count(well: float, out: float) -> str:
    """A counter, with its growth per step in and outside of the outage."""
    at_begin, at_end = well * _BEFORE, well * _BEFORE + out * _OUT
    return f"0+{well}x{_BEFORE} {at_begin + out}+{out}x{_OUT - 1} {at_end + well}+{well}x{_AFTER}"


def outage() -> dict[str, str]:
    """The series of three nodes that lose their Redis for ten minutes, and of the Deployment that they belong to."""
    series = {
        'kube_deployment_spec_replicas{namespace="chat", deployment="conclave"}': _state(3, 3),
        'kube_deployment_status_replicas_available{namespace="chat", deployment="conclave"}': _state(3, 0),
    }
    for node in _NODES:
        values = {
            "up{": _state(1, 1),
            "conclave_ready{": _state(1, 0),
            "conclave_redis_up{": _state(1, 0),
            "conclave_draining{": _state(0, 0),
            "conclave_redis_masters_away{": _state(0, 1),
            "conclave_posts_total{": _count(50, 0),
            'conclave_refusals_total{code="unavailable", ': _count(0, 50),
            'conclave_logins_total{outcome="ok", ': _count(1, 0),
            'conclave_logins_total{outcome="unavailable", ': _count(0, 1),
            "conclave_redis_errors_total{": _count(0, 30),
            "conclave_redis_reconnects_total{": f"0x{_BEFORE + _OUT} 3x{_AFTER}",
            "conclave_pubsub_lag_seconds_count{": _count(15, 0),
            "conclave_janitor_runs_total{": _count(3, 0),
            "conclave_gaps_total{": _count(0, 0),
            "conclave_delivery_seconds_count{": _count(50, 0),
            'conclave_delivery_seconds_bucket{le="0.5", ': _count(50, 0),
        }
        series |= {
            f'{name}namespace="chat", job="conclave", instance="{node}"}}': text for name, text in values.items()
        }
    return series


def test_an_outage_of_redis_has_one_alert_of_a_kind_and_none_after_it(tmp_path: Path) -> None:
    """However many nodes there are; and who sleeps again after the recovery is not woken for what is over."""
    over = {"76m": set[str](), "85m": set[str](), "100m": set[str](), "140m": set[str]()}
    done = try_times(outage(), {"59m": set(), "68m": DURING, **over}, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_one_failure_is_one_page(tmp_path: Path) -> None:
    """What follows from another alert is not sent; the alerts of another cluster are."""
    async with alertmanager(tmp_path) as manager:
        for page, others in FOLLOWS.items():
            await manager.fire({page, *others}, f"of-{page}")
        assert await manager.pages() == {(f"of-{page}", page) for page in FOLLOWS}


async def test_an_alert_that_has_a_cause_of_its_own_is_sent(tmp_path: Path) -> None:
    """Lost messages and a full Redis are never only a consequence."""
    firing = {"ConclaveAllNodesDown", "ConclaveRedisDown", "ConclaveHistoryLost", "ConclaveRedisEvicts"}
    async with alertmanager(tmp_path) as manager:
        await manager.fire(firing, "chat")
        assert {name for _, name in await manager.pages()} == firing - {"ConclaveRedisDown"}


def test_every_name_is_an_alert() -> None:
    """An inhibition of an alert that was renamed has no effect."""
    for rule in yaml.safe_load(CONFIG.read_text())["inhibit_rules"]:
        for side in ("source_matchers", "target_matchers"):
            matchers: list[str] = rule[side]
            for matcher in matchers:
                _, _, value = matcher.partition('"')
                for pattern in _alternatives(value.removesuffix('"')):
                    assert any(re.fullmatch(pattern, alert) for alert in alerts()), pattern


def _alternatives(pattern: str) -> list[str]:
    """Split at the bars outside of parentheses."""
    return re.findall(r"(?:[^|(]|\([^)]*\))+", pattern)


def test_the_operator_gets_the_same_inhibitions() -> None:
    """An AlertmanagerConfig writes a matcher in three parts."""
    chart = render({"metrics": {"alertmanagerConfig": {"enabled": True, "labels": {"a": "b"}}}})
    config = chart.of("AlertmanagerConfig", "metrics")
    assert config is not None
    assert config["metadata"]["labels"]["a"] == "b"
    rules = config["spec"]["inhibitRules"]

    def written(matchers: list[dict[str, Any]]) -> list[str]:
        return [f'{each["name"]} {each["matchType"]} "{each["value"]}"' for each in matchers]

    assert [
        {
            "source_matchers": written(rule["sourceMatch"]),
            "target_matchers": written(rule["targetMatch"]),
            "equal": rule["equal"],
        }
        for rule in rules
    ] == yaml.safe_load(CONFIG.read_text())["inhibit_rules"]

"""Prometheus' rules of deploy/, and promtool, which tries them on invented series."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yaml"

_OPERATORS = {"and", "or", "unless", "bool", "offset"}


def rules() -> list[dict[str, Any]]:
    """Return every rule: alerts have an `alert`, the others a `record`."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def metrics_of(expr: str) -> set[str]:
    """Return the names of the series that an expression reads."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expr)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    return set(re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*\b(?!\s*\()", bare)) - _OPERATORS


@dataclass(frozen=True, slots=True)
class Scenario:
    """Series in promtool's notation, and the number of alerts of a name that fire at a time."""

    alert: str
    series: dict[str, str]
    at: str
    firing: int


def try_out(scenario: Scenario, directory: Path, interval: str = "30s") -> subprocess.CompletedProcess[str]:
    """Run one scenario with the real rules; the exit code is 0 if as many alerts fire as it expects."""
    fires = {
        "expr": f'count(ALERTS{{alertname="{scenario.alert}", alertstate="firing"}}) or vector(0)',
        "eval_time": scenario.at,
        "exp_samples": [{"labels": "{}", "value": scenario.firing}],
    }
    return _run(scenario.series, {"interval": interval, "promql_expr_test": [fires]}, directory)


def try_times(series: dict[str, str], firing: dict[str, set[str]], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run some series with the real rules; the exit code is 0 if exactly these alerts fire at each time, once each."""
    expected = [
        {
            "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": at,
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)],
        }
        for at, names in firing.items()
    ]
    return _run(series, {"promql_expr_test": expected}, directory)


def try_link(
    alert: str, series: dict[str, str], external_labels: dict[str, str], page: str, directory: Path
) -> subprocess.CompletedProcess[str]:
    """Run an alert without values in its texts; the exit code is 0 if its link leads to its section of the page."""
    rule = alerts()[alert]
    said = {
        **rule["annotations"],
        "description": rule["annotations"]["description"].replace("{{ $labels.namespace }}", "chat"),
        "runbook_url": f"{page}#{alert.lower()}",
    }
    fires = {"exp_labels": {"namespace": "chat", **rule["labels"]}, "exp_annotations": said}
    test = {"alert_rule_test": [{"eval_time": "10m", "alertname": alert, "exp_alerts": [fires]}]}
    return _run(series, {**test, "external_labels": external_labels}, directory)


def _run(series: dict[str, str], test: dict[str, Any], directory: Path) -> subprocess.CompletedProcess[str]:
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "30s",
        "tests": [{"interval": "30s", "input_series": inputs, **test}],
    }
    path = directory / "test.yaml"
    path.write_text(yaml.safe_dump(document))
    return subprocess.run(
        ["promtool", "test", "rules", str(path)],  # noqa: S607 - make brought it
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

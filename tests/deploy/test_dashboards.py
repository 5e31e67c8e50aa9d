"""The dashboards: they are valid for Grafana, every query parses, and panels do not overlap."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

_GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
_DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(_GRAFANA.glob("*.json"))}


def _panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def test_there_are_three_dashboards() -> None:
    """The cluster, a node, Redis; each with an address that does not change."""
    assert {name: dashboard["uid"] for name, dashboard in _DASHBOARDS.items()} == {
        "cluster": "conclave-cluster",
        "node": "conclave-node",
        "redis": "conclave-redis",
    }


@pytest.mark.parametrize("dashboard", _DASHBOARDS.values(), ids=_DASHBOARDS)
def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    """Grafana moves overlapping panels and then saves another layout than this one."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("dashboard", _DASHBOARDS.values(), ids=_DASHBOARDS)
def test_panels_explain_themselves_and_follow_the_variables(dashboard: dict[str, Any]) -> None:
    """A panel that ignores the chosen namespace shows another cluster."""
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in _panels(dashboard):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            for variable in variables - {"datasource"}:
                assert f'{variable}=~"${variable}"' in target["expr"], panel["title"]


@pytest.mark.parametrize("dashboard", _DASHBOARDS.values(), ids=_DASHBOARDS)
def test_every_query_parses(dashboard: dict[str, Any], tmp_path: Path) -> None:
    """A panel with an invalid query shows nothing, which is noticed when it is needed."""
    rules = [
        {"record": f"q:{panel['id']}_{target['refId']}", "expr": _filled(target["expr"])}
        for panel in _panels(dashboard)
        for target in panel["targets"]
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", path],  # noqa: S607 - make brought it
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dashboard", _DASHBOARDS.values(), ids=_DASHBOARDS)
def test_the_series_of_workers_are_distinguishable(dashboard: dict[str, Any]) -> None:
    """A node with several workers has each series once per worker; lines with the same name are useless."""
    for panel in _panels(dashboard):
        for target in panel["targets"]:
            if re.match(r"(conclave|process)_\w+\{", target["expr"]):
                assert target["legendFormat"].startswith("{{instance}} {{worker}}"), panel["title"]


def _filled(expr: str) -> str:
    return expr.replace("$__rate_interval", "1m").replace("$namespace", ".*").replace("$instance", ".*")

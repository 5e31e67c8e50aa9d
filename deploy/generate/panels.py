"""Dashboards as rows of panels with queries, and their form in Grafana's JSON."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_WIDTH = 24
_HEIGHT = 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, with the names of its series."""

    expr: str
    legend: str = "{{instance}}"


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph, or with `kind="stat"` a number."""

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    red_above: float | None = None
    red_below: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels side by side, under a title."""

    title: str
    panels: tuple[Panel, ...]


def dashboard(*, uid: str, title: str, about: str, rows: Iterable[Row], by_instance: bool = False) -> dict[str, Any]:
    """Return a dashboard in Grafana's format, with variables for data source, namespace and, if wanted, node."""
    return {
        "uid": uid,
        "title": title,
        "description": about,
        "tags": ["conclave"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "title": "Conclave", "tags": ["conclave"], "keepTime": True}],
        "annotations": {"list": [_alerts()]},
        "templating": {"list": list(_variables(by_instance=by_instance))},
        "panels": list(_placed(rows)),
    }


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Conclave.*", alertstate="firing", namespace=~"$namespace"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}}",
    }


def _variables(*, by_instance: bool) -> Iterable[dict[str, Any]]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    yield _label_variable("namespace", "Namespace", "label_values(conclave_sessions, namespace)")
    if by_instance:
        yield _label_variable("instance", "Node", 'label_values(conclave_sessions{namespace=~"$namespace"}, instance)')


def _label_variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _placed(rows: Iterable[Row]) -> Iterable[dict[str, Any]]:
    y, number = 0, 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
        }
        y += 1
        width = _WIDTH // len(row.panels)
        height = _HEIGHT // 2 if all(panel.kind == "stat" for panel in row.panels) else _HEIGHT
        for place, panel in enumerate(row.panels):
            number += 1
            yield _panel(panel, number, {"x": place * width, "y": y, "w": width, "h": height})
        y += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.red_above is not None:
        defaults["thresholds"] = _thresholds("green", "red", panel.red_above)
    elif panel.red_below is not None:
        defaults["thresholds"] = _thresholds("red", "green", panel.red_below)
    if panel.kind == "timeseries":
        defaults["custom"] = {"fillOpacity": 10, "showPoints": "never"}
        if "thresholds" in defaults:
            defaults["custom"]["thresholdsStyle"] = {"mode": "line"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind),
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": query.expr, "legendFormat": query.legend}
            for place, query in enumerate(panel.queries)
        ],
    }


def _options(kind: str) -> dict[str, Any]:
    if kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "graphMode": "area"}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}


def _thresholds(low: str, high: str, limit: float) -> dict[str, Any]:
    return {"mode": "absolute", "steps": [{"color": low, "value": None}, {"color": high, "value": limit}]}

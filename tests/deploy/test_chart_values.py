"""Values: each is described and used, an invalid one is refused by name, and the notes name the next step."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import CHART, Object, refusal, render


def test_every_value_has_a_description_and_a_rule() -> None:
    """An operator reads the schema's description in an editor, or in README."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    for path, rule in _rules(schema):
        assert rule.get("description", "").endswith("."), f"{path} is not described"
        if "properties" in rule:
            assert rule["additionalProperties"] is False, f"{path} takes anything"


def test_schema_and_values_have_the_same_names() -> None:
    """A value that only one of them has is refused, or checked by nothing."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    by_rule = {path for path, _ in _rules(schema)} - {("global",)}
    assert by_rule <= set(_paths(values))
    free = [("resources",), ("valkey", "resources"), ("podSecurityContext",), ("securityContext",)]
    free.append(("metrics", "dashboards", "labels"))
    missing = [path for path in _paths(values) if path not in by_rule and not _is_below(path, free)]
    assert missing == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replicas": "three"}, ["/replicas", "got string, want integer"]),
        ({"replicas": -1}, ["/replicas", "minimum"]),
        ({"redis": {"url": "redis://ann:secret@r"}, "valkey": {"enabled": False}}, ["/redis/url", "pattern"]),
        ({"redis": {"url": "redis://r"}}, ["redis.url and valkey.enabled exclude each other"]),
        ({"redis": {"readUrl": "redis://r"}}, ["redis.readUrl needs redis.url"]),
        (
            {"redis": {"url": "redis://r", "readUrlKey": "near"}, "valkey": {"enabled": False}},
            ["redis.readUrlKey and redis.url exclude each other"],
        ),
        (
            {"redis": {"url": "redis+cluster://a,b", "readUrl": "redis://near"}, "valkey": {"enabled": False}},
            ["redis.readUrl and a Cluster in redis.url exclude each other"],
        ),
        ({"redis": {"url": "redis://r", "readUrl": "redis+sentinel://a/b"}}, ["/redis/readUrl", "pattern"]),
        ({"redis": {"ca": {"secret": "a", "configMap": "b"}}}, ["redis.ca.secret and redis.ca.configMap exclude"]),
        (
            {"metrics": {"serviceMonitor": {"enabled": True, "scrapeTimeout": "16s"}}},
            ["metrics.serviceMonitor.scrapeTimeout (16s) is more than metrics.serviceMonitor.interval (15s)"],
        ),
        ({"metrics": {"prometheusRule": {"runbooks": "docs/operations.md"}}}, ["/metrics/prometheusRule/runbooks"]),
        ({"service": {"loadBalancerSourceRanges": ["10.0.0.1"]}}, ["/service/loadBalancerSourceRanges/0"]),
        ({"ingress": {"extraHosts": [{"tlsSecret": "x"}]}}, ["/ingress/extraHosts/0", "host"]),
        ({"extraContainers": [{"image": "x"}]}, ["/extraContainers/0", "name"]),
        ({"drain": {"seconds": -1}}, ["/drain/seconds", "minimum"]),
        ({"drain": {"marginSeconds": 1}}, ["/drain/marginSeconds", "minimum"]),
        ({"drian": {}}, ["'drian' not allowed"]),
        ({"ingress": {"enabled": True, "hosts": []}}, ["/ingress", "'hosts' not allowed"]),
        ({"ingress": {"enabled": True, "path": "/chat"}}, ["/ingress", "'path' not allowed"]),
        ({"relay": {"registration": "opne"}}, ["/relay/registration", "open"]),
        ({"relay": {"publicUrls": ["https://chat.example"]}}, ["/relay/publicUrls/0", "pattern"]),
        ({"relay": {"maxMessageBytes": 2_621_441}}, ["/relay/maxMessageBytes", "maximum"]),
        ({"image": {"digest": "latest"}}, ["/image/digest", "pattern"]),
        ({"image": {"tag": 1.0}}, ["/image/tag", "want string"]),
        ({"metrics": {"port": 4390}}, ["/metrics/port"]),
        ({"service": {"type": "Ingress"}}, ["/service/type"]),
        ({"resources": {"requests": {"memory": "lots"}}}, ["/resources/requests/memory"]),
        ({"resources": {"request": {}}}, ["/resources", "'request' not allowed"]),
        ({"podDisruptionBudget": {"maxUnavailable": "half"}}, ["/podDisruptionBudget/maxUnavailable"]),
        ({"rollingUpdate": {"maxSurge": 0}}, ["/rollingUpdate/maxSurge"]),
        ({"websocketTimeoutSeconds": 30}, ["/websocketTimeoutSeconds", "minimum"]),
        ({"valkey": {"enabled": True, "maxMemory": "512Mi"}}, ["/valkey/maxMemory", "pattern"]),
        ({"imagePullSecrets": ["pull"]}, ["/imagePullSecrets/0", "want object"]),
        ({"valkey": {"enabled": False}}, ["redis.existingSecret is missing", "valkey.enabled=true"]),
        ({"redis": {"existingSecret": "r"}}, ["redis.existingSecret and valkey.enabled exclude each other"]),
        (
            {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}},
            ["autoscaling.maxReplicas (2) is less than autoscaling.minReplicas (5)"],
        ),
        (
            {"autoscaling": {"enabled": True, "targetCPUUtilizationPercentage": 0}},
            ["needs autoscaling.targetCPUUtilizationPercentage or autoscaling.targetSessions"],
        ),
        (
            {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}},
            ["autoscaling.targetCPUUtilizationPercentage needs resources.requests.cpu"],
        ),
        ({"httpRoute": {"enabled": True}}, ["httpRoute.parentRefs is missing"]),
        (
            {"websocketTimeoutSeconds": 4001, "ingress": {"enabled": True, "controller": "alb"}},
            ["websocketTimeoutSeconds (4001) is more than 4000"],
        ),
        (
            {"metrics": {"serviceMonitor": {"enabled": True, "interval": "31s"}}},
            ["metrics.serviceMonitor.interval (31s) is more than 30s"],
        ),
    ],
    ids=str,
)
def test_an_invalid_value_is_refused_by_name(values: Object, words: list[str]) -> None:
    """A typing error that silently installs the default is found in production."""
    said = refusal(values)
    for word in words:
        assert word in said


@pytest.mark.parametrize("value", ["commonLabels", "podLabels"])
def test_labels_of_the_chart_are_reserved(value: str) -> None:
    """Labels that selectors need must stay, or a Service has no nodes; any other label is accepted."""
    labels = render()["Deployment"]["metadata"]["labels"]
    for name in labels:
        assert f"/{value}/{name.replace('/', '~1')}" in refusal({value: {name: "x"}})
    pod = render({value: {"app.kubernetes.io/created-by": "x"}})["Deployment"]["spec"]["template"]
    assert pod["metadata"]["labels"]["app.kubernetes.io/created-by"] == "x"


@pytest.mark.parametrize(
    "values",
    [
        {"websocketTimeoutSeconds": 4000, "ingress": {"enabled": True, "controller": "alb"}},
        {"websocketTimeoutSeconds": 4001, "ingress": {"controller": "alb"}},
        {"websocketTimeoutSeconds": 604_800, "ingress": {"enabled": True, "controller": "nginx"}},
        {"metrics": {"serviceMonitor": {"enabled": True, "interval": "30s"}}},
        {"metrics": {"serviceMonitor": {"interval": "31s"}}},
    ],
    ids=str,
)
def test_value_at_its_limit_or_without_effect_is_accepted(values: Object) -> None:
    """A rule that refuses valid values is a defect, too."""
    assert render(values).objects


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({}, ["port-forward service/acme-conclave 4390:80", "register --server ws://127.0.0.1:4390 "]),
        (
            {"ingress": {"enabled": True, "host": "chat.example", "tlsSecret": "tls"}},
            ["is at wss://chat.example\n", "register --server wss://chat.example "],
        ),
        (
            {"ingress": {"enabled": True, "host": "chat.example"}},
            ["is at ws://chat.example\n", "register --server ws://chat.example "],
        ),
        ({"ingress": {"enabled": True, "host": "*.chat.example"}}, ["port-forward service/acme-conclave 4390:80"]),
        (
            {"httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}], "hostnames": ["b.example"]}},
            ["is at wss://b.example\n"],
        ),
        ({"service": {"type": "LoadBalancer"}}, ["get service acme-conclave", "--server ws://ADDRESS "]),
        ({"service": {"type": "LoadBalancer", "port": 4390}}, ["--server ws://ADDRESS:4390 "]),
        ({"relay": {"publicUrls": ["wss://chat.example"]}}, ["is at wss://chat.example\n"]),
        ({"redis": {"existingSecret": "r"}}, ["at the ports 6379, 6380 only: another port belongs in networkPolicy."]),
        ({}, ["The bundled Valkey is for trying out", "Nobody administers this server", "helm --namespace chat test"]),
    ],
    ids=str,
)
def test_notes_tell_the_url_and_the_next_command(tmp_path: Path, values: Object, lines: list[str]) -> None:
    """After an install, an operator wants to see it work."""
    notes = _notes(tmp_path, values)
    for line in lines:
        assert line in notes


def test_notes_do_not_warn_of_what_is_configured(tmp_path: Path) -> None:
    """A warning that always appears is not read."""
    notes = _notes(
        tmp_path,
        {"redis": {"url": "redis://r"}, "admins": {"existingSecret": "a"}, "relay": {"registration": "invite"}},
    )
    for word in ("Valkey", "administers", "Everybody", "networkPolicy"):
        assert word not in notes


def _notes(directory: Path, values: Object) -> str:
    """Render NOTES.txt, which helm shows only at an install."""
    chart = directory / "conclave"
    shutil.copytree(CHART, chart)
    templates = chart / "templates"
    text = (templates / "NOTES.txt").read_text()
    (templates / "_notes.tpl").write_text(f'{{{{- define "notes" -}}}}\n{text}{{{{- end }}}}\n')
    (templates / "notes.yaml").write_text(
        "kind: Notes\nmetadata: {labels: {app.kubernetes.io/component: relay}}\n"
        'text: {{ include "notes" . | toJson }}\n'
    )
    notes: str = render(values, chart=chart)["Notes"]["text"]
    return notes


def _rules(schema: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Object]]:
    for key, rule in schema.get("properties", {}).items():
        if path in {("resources",), ("valkey", "resources")}:
            return  # a Kubernetes object of its own
        yield (*path, key), rule
        yield from _rules(rule, (*path, key))


def _paths(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield (*path, key)
            yield from _paths(value, (*path, key))


def _is_below(path: tuple[str, ...], places: list[tuple[str, ...]]) -> bool:
    return any(path[: len(place)] == place for place in places)

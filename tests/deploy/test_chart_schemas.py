"""Everything that the chart renders, over a matrix of values, is accepted by Kubernetes and its operators."""

from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.support.chart import CHART, TRIAL, helm, render
from tests.support.custom_resources import DEFINITIONS, read_definition

_SECRET = {"redis": {"existingSecret": "conclave-redis", "readUrlKey": "read"}}
_EVERYTHING: dict[str, Any] = {
    "redis": {"existingSecret": "r", "url": "rediss://r:6390/0", "readUrl": "rediss://near", "ca": {"secret": "ca"}},
    "nameOverride": "talk",
    "commonLabels": {"team": "chat"},
    "image": {"repository": "registry.example:5000/chat/conclave", "digest": "sha256:" + "a" * 64},
    "imagePullSecrets": [{"name": "pull"}],
    "admins": {"existingSecret": "conclave-admins"},
    "relay": {"registration": "invite", "otlpEndpoint": "http://collector:4318", "publicUrls": ["wss://chat.example"]},
    "service": {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "annotations": {"a": "b"},
        "nodePort": 30001,
        "labels": {"c": "d"},
        "loadBalancerClass": "example.com/lb",
        "ipFamilyPolicy": "PreferDualStack",
        "loadBalancerSourceRanges": ["10.0.0.0/8", "fd00::/8"],
        "ipFamilies": ["IPv6", "IPv4"],
    },
    "ingress": {
        "enabled": True,
        "tlsSecret": "tls",
        "className": "nginx",
        "annotations": {"a": "b"},
        "extraHosts": [{"host": "b.example", "tlsSecret": "b"}, {"host": "c.example"}],
    },
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["chat.example"]},
    "autoscaling": {
        "enabled": True,
        "targetSessions": 3000,
        "metrics": [
            {"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "1"}}}
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
    },
    "podDisruptionBudget": {"maxUnavailable": "25%"},
    "rollingUpdate": {"maxSurge": "50%"},
    "networkPolicy": {
        "ingressFrom": [{"namespaceSelector": {}}],
        "metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
        "redisTo": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "extraEgress": [{"ports": [{"port": 443}]}],
    },
    "serviceAccount": {"annotations": {"a": "b"}},
    "metrics": {
        "serviceMonitor": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "scrapeTimeout": "10s",
            "relabelings": [{"targetLabel": "cluster", "replacement": "eu"}],
            "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"], "regex": "x"}],
        },
        "prometheusRule": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "runbooks": "https://git.example/o.md",
        },
        "alertmanagerConfig": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Conclave"}},
    },
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "priorityClassName": "high",
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "chat", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    ],
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
    "deploymentAnnotations": {"a": "b"},
    "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
    "hostAliases": [{"ip": "10.0.0.5", "hostnames": ["redis.example"]}],
    "extraEnvFrom": [{"secretRef": {"name": "more", "optional": True}}],
    "extraInitContainers": [{"name": "first", "image": "busybox", "command": ["true"]}],
    "extraContainers": [{"name": "beside", "image": "busybox", "command": ["sleep", "inf"]}],
    "extraManifests": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}, "data": {"a": "b"}}
    ],
}

MATRIX: dict[str, dict[str, Any]] = {
    "trial": TRIAL,
    "trial in memory": {"valkey": {"enabled": True, "persistence": {"enabled": False}}},
    "trial, open": {"valkey": {"enabled": True}, "networkPolicy": {"enabled": False}},
    "secret": _SECRET,
    "everything": _EVERYTHING,
    "everything in a trial": {**{k: v for k, v in _EVERYTHING.items() if k != "redis"}, **TRIAL},
    "nothing extra": {
        **_SECRET,
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "serviceAccount": {"create": False},
        "resources": {},
    },
    **{
        f"{controller} ingress": {**_SECRET, "ingress": {"enabled": True, "controller": controller}}
        for controller in ("nginx", "haproxy", "alb", "traefik", "other")
    },
    "node port": {**_SECRET, "service": {"type": "NodePort"}},
}
KUBERNETES = ("1.27", "1.31", "1.35")
_CUSTOM = {read_definition(name)["spec"]["names"]["kind"]: name for name in DEFINITIONS}


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_lint_finds_nothing(values: dict[str, Any]) -> None:
    """A warning of the linter is a later failure of an install."""
    done = helm("lint", "--strict", values=values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_fits_kubernetes_schemas(version: str, values: dict[str, Any]) -> None:
    """Some clusters drop a misspelt field silently, others refuse the install."""
    for item in render(values).objects:
        if item["kind"] in _CUSTOM:
            jsonschema.validate(item, _custom_schema(item["kind"], item["apiVersion"].split("/")[1]))
        else:
            kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_no_two_objects_have_one_name(values: dict[str, Any]) -> None:
    """Of two objects of a kind with one name, the later silently replaces the earlier."""
    names = [(item["apiVersion"], item["kind"], item["metadata"]["name"]) for item in render(values).objects]
    assert len(names) == len(set(names))


def test_everything_is_in_the_matrix() -> None:
    """A template that no set of values renders is tested by nothing."""
    kinds = {item["kind"] for values in MATRIX.values() for item in render(values).objects}
    written = {
        line.removeprefix("kind:").strip()
        for path in (CHART / "templates").rglob("*.yaml")
        for line in path.read_text().splitlines()
        if line.startswith("kind:")
    }
    assert kinds == written


def test_long_names_fit() -> None:
    """Kubernetes refuses a Service whose name has more than 63 characters; release names may have 53."""
    for item in render(MATRIX["everything in a trial"], release="a" * 53).objects:
        assert len(item["metadata"]["name"]) <= 63, item["kind"]


@cache
def _custom_schema(kind: str, version: str) -> dict[str, Any]:
    definition = read_definition(_CUSTOM[kind])
    [schema] = [item["schema"] for item in definition["spec"]["versions"] if item["name"] == version]
    strict = schema["openAPIV3Schema"]
    _tighten(strict)
    strict["properties"]["metadata"] = {"type": "object"}
    return dict(strict)


def _tighten(schema: Any) -> None:
    """Make a schema refuse the fields that an API server would drop."""
    if not isinstance(schema, dict):
        return
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    if "(?i)" in schema.get("pattern", ""):  # Go takes flags anywhere in a pattern, Python only at its beginning
        schema["pattern"] = "(?i)" + schema["pattern"].replace("(?i)", "")
    for child in schema.get("properties", {}).values():
        _tighten(child)
    _tighten(schema.get("items"))
    _tighten(schema.get("additionalProperties"))

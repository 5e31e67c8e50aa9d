"""The properties that the chart promises to an operator, one by one."""

from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from conclave import __version__
from tests.support.chart import CHART, Object, render
from tests.support.redis_server import RedisProcess

_SECRET = {"redis": {"existingSecret": "conclave-redis"}}


def _environment(container: Object) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def test_no_value_is_a_secret() -> None:
    """Values end up in repositories and in Helm's own records; a Redis password must not."""
    chart = render({"redis": {"existingSecret": "r", "readUrlKey": "near"}, "admins": {"existingSecret": "a"}})
    assert _environment(chart.container) == {
        "CONCLAVE_REDIS_URL": {"secretKeyRef": {"name": "r", "key": "url"}},
        "CONCLAVE_REDIS_READ_URL": {"secretKeyRef": {"name": "r", "key": "near"}},
        "CONCLAVE_ADMINS": {"secretKeyRef": {"name": "a", "key": "admins"}},
    }
    assert chart.of("Secret") is None


def test_a_secret_may_hold_the_password_alone() -> None:
    """A database's operator hands out passwords; the URL without one is no secret."""
    redis = {"url": "rediss://ann@r:6390/3", "readUrl": "rediss://ann@near:6391", "passwordKey": "pw"}
    chart = render({"redis": {**redis, "existingSecret": "r"}})
    assert _environment(chart.container) == {
        "CONCLAVE_REDIS_URL": "rediss://ann@r:6390/3",
        "CONCLAVE_REDIS_READ_URL": "rediss://ann@near:6391",
        "CONCLAVE_REDIS_PASSWORD": {"secretKeyRef": {"name": "r", "key": "pw"}},
    }
    assert _environment(render({"redis": {"url": "redis://r"}}).container) == {"CONCLAVE_REDIS_URL": "redis://r"}


@pytest.mark.parametrize(
    ("ca", "source"),
    [({"secret": "s"}, {"secret": {"secretName": "s"}}), ({"configMap": "c"}, {"configMap": {"name": "c"}})],
)
def test_a_private_authority_is_mounted_and_used(ca: Object, source: Object) -> None:
    """Without it, TLS to such a Redis fails. A directory is mounted, so a renewed certificate is read from there."""
    chart = render({"redis": {"existingSecret": "r", "ca": {**ca, "key": "own.pem"}}})
    [mount] = chart.container["volumeMounts"]
    assert chart.pod["volumes"] == [{"name": mount["name"], **source}]
    assert _environment(chart.container)["SSL_CERT_FILE"] == f"{mount['mountPath']}/own.pem"
    assert "subPath" not in mount


@pytest.mark.parametrize(
    ("redis", "ports"),
    [
        ({"existingSecret": "r"}, [6379, 6380]),
        ({"url": "rediss://ann@r:6390/3?timeout=1:2"}, [6379, 6380, 6390]),
        ({"url": "redis://r", "readUrl": "redis://near:7000"}, [6379, 6380, 7000]),
        ({"url": "redis+sentinel://a:26380,b,[::1]:26381/main?db=1"}, [6379, 6380, 26380, 26379, 26381]),
        ({"url": "redis+cluster://a:7001,b:7002"}, [6379, 6380, 7001, 7002]),
    ],
)
def test_network_policy_opens_the_ports_of_the_urls(redis: Object, ports: list[int]) -> None:
    """A policy that blocks the Redis is a cluster that waits for it, with nothing that says why."""
    _, egress = render({"redis": redis})["NetworkPolicy"]["spec"]["egress"]
    assert [port["port"] for port in egress["ports"]] == ports


def test_settings_reach_the_node() -> None:
    """A value without effect is worse than none."""
    chart = render(
        {
            "relay": {
                "registration": "closed",
                "presence": "shared",
                "publicUrls": ["wss://a.example", "wss://b.example"],
                "workers": 2,
                "logLevel": "debug",
                "otlpEndpoint": "http://collector:4318",
                "maxMessageBytes": 2_000_000,
            },
            "redis": {"existingSecret": "r", "keyPrefix": "blue"},
            "metrics": {"port": 9999},
        }
    )
    assert chart["ConfigMap"]["data"] == {
        "CONCLAVE_BIND": "0.0.0.0:4390",
        "CONCLAVE_METRICS_BIND": "0.0.0.0:9999",
        "CONCLAVE_KEY_PREFIX": "blue",
        "CONCLAVE_REGISTRATION": "closed",
        "CONCLAVE_PRESENCE": "shared",
        "CONCLAVE_WORKERS": "2",
        "CONCLAVE_LOG": "debug",
        "CONCLAVE_LOG_FORMAT": "json",
        "CONCLAVE_DRAIN_DELAY": "5",
        "CONCLAVE_DRAIN_SECONDS": "20",
        "CONCLAVE_PUBLIC_URLS": "wss://a.example,wss://b.example,ws://acme-conclave.chat.svc:80",
        "CONCLAVE_OTLP_ENDPOINT": "http://collector:4318",
    }
    assert chart.container["args"] == ["serve", "--max-message-bytes", "2000000"]
    assert chart.container["envFrom"] == [{"configMapRef": {"name": chart["ConfigMap"]["metadata"]["name"]}}]


def test_changed_setting_restarts_the_nodes() -> None:
    """A node reads its configuration once; without a new checksum a change would wait for the next restart."""

    def checksum(values: Object) -> str:
        annotations: dict[str, str] = render(values)["Deployment"]["spec"]["template"]["metadata"]["annotations"]
        return annotations["checksum/config"]

    assert checksum({}) == checksum({"replicas": 7})
    assert checksum({}) != checksum({"relay": {"presence": "shared"}})


def test_a_new_chart_version_alone_restarts_no_node() -> None:
    """The chart's version in the pods' labels would roll the cluster for a corrected comment."""
    labels = render()["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert not {"helm.sh/chart", "app.kubernetes.io/version"} & labels.keys()


def test_every_selector_matches_the_labels_of_its_pods() -> None:
    """A label that one side lacks leaves a Service without nodes, or a policy without effect."""
    chart = render({**_SECRET, "commonLabels": {"team": "chat"}, "podLabels": {"x": "y"}})
    labels = chart["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    metrics = chart.of("Service", "metrics")
    assert metrics is not None
    spread = [constraint["labelSelector"]["matchLabels"] for constraint in chart.pod["topologySpreadConstraints"]]
    for selector in (
        chart["Deployment"]["spec"]["selector"]["matchLabels"],
        chart["Service"]["spec"]["selector"],
        metrics["spec"]["selector"],
        chart["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        chart["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *spread,
    ):
        assert selector.items() <= labels
        assert "team" not in selector, "a selector never changes"


def test_every_object_has_the_usual_labels() -> None:
    """Tools, and operators with kubectl, find a release's objects by them."""
    for item in render({"commonLabels": {"team": "chat"}}).objects:
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "conclave"
        assert labels["app.kubernetes.io/instance"] == "acme"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["helm.sh/chart"].startswith("conclave-")
        assert labels["team"] == "chat"
        assert item["metadata"]["namespace"] == "chat"


@pytest.mark.parametrize(
    ("values", "release", "name"),
    [
        ({}, "acme", "acme-conclave"),
        ({}, "conclave", "conclave"),
        ({"nameOverride": "talk"}, "acme", "acme-talk"),
        ({"fullnameOverride": "talk"}, "acme", "talk"),
    ],
)
def test_names_contain_the_release_and_can_be_replaced(values: Object, release: str, name: str) -> None:
    """Two releases in one namespace must not share a name, and an operator may choose it."""
    assert render(values, release=release)["Deployment"]["metadata"]["name"] == name


# --- Stopping, starting, replacing ---


@pytest.mark.parametrize("drain", [(5, 20, 10), (0, 0, 10), (30, 600, 60)])
def test_node_is_not_killed_while_it_drains(drain: tuple[int, int, int]) -> None:
    """The kill must come after the longest drain, for any settings."""
    delay, seconds, margin = drain
    chart = render({"drain": {"delaySeconds": delay, "seconds": seconds, "marginSeconds": margin}})
    assert chart.pod["terminationGracePeriodSeconds"] == delay + seconds + margin
    assert chart["ConfigMap"]["data"]["CONCLAVE_DRAIN_DELAY"] == str(delay)
    assert chart["ConfigMap"]["data"]["CONCLAVE_DRAIN_SECONDS"] == str(seconds)


def test_node_serves_until_balancers_have_noticed() -> None:
    """A login that is sent to a node that accepts no sessions fails."""
    chart = render()
    probe = chart.container["readinessProbe"]
    noticed = probe["periodSeconds"] * probe["failureThreshold"]
    assert float(chart["ConfigMap"]["data"]["CONCLAVE_DRAIN_DELAY"]) > noticed


def test_rollout_never_drops_below_capacity() -> None:
    """A deploy that stops a node before another is ready overloads the remaining ones."""
    spec = render()["Deployment"]["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert spec["minReadySeconds"] >= 1


def test_liveness_is_not_readiness() -> None:
    """While Redis is away nodes must stay: a restart would end every session to no purpose."""
    container = render().container
    assert container["livenessProbe"]["httpGet"] == {"path": "/health", "port": "ws"}
    assert container["startupProbe"]["httpGet"] == {"path": "/health", "port": "ws"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "ws"}


def test_load_balancers_notice_a_drain_in_time() -> None:
    """Readiness has to turn false within the time in which the node still serves."""
    chart = render()
    probe = chart.container["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] <= int(chart["ConfigMap"]["data"]["CONCLAVE_DRAIN_DELAY"])


def test_evictions_take_one_node_at_a_time() -> None:
    """Draining machines for an upgrade must not stop two nodes together, nor wait for one that is broken."""
    spec = render()["PodDisruptionBudget"]["spec"]
    assert spec["maxUnavailable"] == 1
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_nodes_spread() -> None:
    """The loss of a zone or a machine should cost as few nodes as possible."""
    pod = render().pod
    assert [constraint["topologyKey"] for constraint in pod["topologySpreadConstraints"]] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    [term] = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"


def test_own_affinity_replaces_the_default() -> None:
    """An explicit affinity must not be combined with the default one."""
    constraint = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    pod = render({"affinity": {"nodeAffinity": {}}, "topologySpreadConstraints": [constraint]}).pod
    assert pod["affinity"] == {"nodeAffinity": {}}
    assert pod["topologySpreadConstraints"] == [constraint]


# --- Security ---


def test_pods_fit_the_restricted_standard() -> None:
    """Namespaces that enforce the restricted Pod Security Standard refuse any pod that does not, the test's too."""
    chart = render()
    test = next(item for item in chart.objects if item["kind"] == "Pod")
    valkey = chart.of("StatefulSet", "valkey")
    assert valkey is not None
    for pod in (chart.pod, valkey["spec"]["template"]["spec"], test["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
        assert all("hostPath" not in volume for volume in pod.get("volumes", ()))


def test_network_policy_lets_through_what_a_node_needs() -> None:
    """Clients, scrapers, names and the Redis; nothing else, and the test of the chart in any case."""
    given = {**_SECRET, "networkPolicy": {"ingressFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "redisPorts": [6390]}}
    spec = render(given)["NetworkPolicy"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    clients, scrapers = spec["ingress"]
    assert clients["ports"] == [{"port": "ws", "protocol": "TCP"}]
    assert clients["from"][0] == {"ipBlock": {"cidr": "10.0.0.0/8"}}
    assert clients["from"][1]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    assert scrapers == {"ports": [{"port": "metrics", "protocol": "TCP"}], "from": [{"namespaceSelector": {}}]}
    names, redis = spec["egress"]
    assert [port["port"] for port in names["ports"]] == [53, 53]
    assert redis == {"ports": [{"port": 6390, "protocol": "TCP"}]}


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://collector:4318", 4318), ("https://otel.example/v1", 443), ("http://collector", 80)],
)
def test_network_policy_opens_the_port_of_the_collector(endpoint: str, port: int) -> None:
    """A policy that blocks the traces to a configured endpoint is hard to find."""
    egress = render({**_SECRET, "relay": {"otlpEndpoint": endpoint}})["NetworkPolicy"]["spec"]["egress"]
    assert egress[-1]["ports"] == [{"port": port, "protocol": "TCP"}]


def test_bundled_valkey_is_reached_by_nodes_only() -> None:
    """It has no password."""
    chart = render()
    policy = chart.of("NetworkPolicy", "valkey")
    assert policy is not None
    [rule] = policy["spec"]["ingress"]
    [peer] = rule["from"]
    labels = chart["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["spec"]["egress"] == []


async def test_bundled_valkey_refuses_writes_before_it_is_killed(tmp_path: Path) -> None:
    """The kernel kills a server above the limit, again after every restart, because it reads as much from the log."""
    valkey = render().of("StatefulSet", "valkey")
    assert valkey is not None
    [container] = valkey["spec"]["template"]["spec"]["containers"]
    words = container["command"]
    given = {name: value for name, value in zip(words[1::2], words[2::2], strict=True) if "maxmemory" in name}
    server = RedisProcess(tmp_path, settings=tuple(word for pair in given.items() for word in pair))
    try:
        await server.start()
        with Redis.from_url(server.url) as redis:
            said = redis.config_get("maxmemory*")
    finally:
        server.close()
    assert said["maxmemory-policy"] == "noeviction"
    assert container["resources"]["limits"]["memory"] == "1Gi"
    assert int(said["maxmemory"]) == 2**30 // 2


def test_bundled_valkey_grows_with_its_values() -> None:
    """A larger memory limit has its own limit for the data."""
    valkey = render({"valkey": {"enabled": True, "maxMemory": "2gb"}}).of("StatefulSet", "valkey")
    assert valkey is not None
    [container] = valkey["spec"]["template"]["spec"]["containers"]
    assert container["command"][container["command"].index("--maxmemory") :][:2] == ["--maxmemory", "2gb"]


def test_metrics_stay_inside() -> None:
    """The Service that clients reach has no port for metrics, however it is exposed."""
    chart = render({**_SECRET, "service": {"type": "LoadBalancer"}})
    assert [port["name"] for port in chart["Service"]["spec"]["ports"]] == ["ws"]
    metrics = chart.of("Service", "metrics")
    assert metrics is not None
    assert metrics["spec"]["clusterIP"] == "None"
    assert metrics["spec"]["publishNotReadyAddresses"] is True


# --- Service, Ingress, Gateway ---


def test_service_takes_class_ranges_families_and_labels() -> None:
    """Load balancers of clouds are chosen and limited by them."""
    given = {
        "type": "LoadBalancer",
        "labels": {"lb": "internal"},
        "loadBalancerClass": "example.com/internal",
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
        "ipFamilyPolicy": "RequireDualStack",
        "ipFamilies": ["IPv6", "IPv4"],
    }
    service = render({"service": given})["Service"]
    assert service["metadata"]["labels"]["lb"] == "internal"
    assert {name: service["spec"][name] for name in given if name != "labels"} == {
        name: value for name, value in given.items() if name != "labels"
    }
    assert not {"loadBalancerClass", "ipFamilies"} & render()["Service"]["spec"].keys()


def test_ingress_has_several_hosts() -> None:
    """Each with its certificate, and each a public URL."""
    extra = [{"host": "b.example", "tlsSecret": "tls"}, {"host": "c.example", "tlsSecret": "c"}, {"host": "d.example"}]
    chart = render({"ingress": {"enabled": True, "host": "a.example", "tlsSecret": "tls", "extraHosts": extra}})
    spec = chart["Ingress"]["spec"]
    assert [rule["host"] for rule in spec["rules"]] == ["a.example", "b.example", "c.example", "d.example"]
    assert all(rule["http"] == spec["rules"][0]["http"] for rule in spec["rules"])
    assert spec["tls"] == [
        {"hosts": ["a.example", "b.example"], "secretName": "tls"},
        {"hosts": ["c.example"], "secretName": "c"},
    ]
    urls = chart["ConfigMap"]["data"]["CONCLAVE_PUBLIC_URLS"].split(",")
    assert urls[:4] == ["wss://a.example", "wss://b.example", "wss://c.example", "ws://d.example"]


@pytest.mark.parametrize(
    ("controller", "annotation", "value"),
    [
        ("nginx", "nginx.ingress.kubernetes.io/proxy-read-timeout", "3900"),
        ("nginx", "nginx.ingress.kubernetes.io/proxy-send-timeout", "3900"),
        ("haproxy", "haproxy.org/timeout-tunnel", "3900s"),
        ("alb", "alb.ingress.kubernetes.io/load-balancer-attributes", "idle_timeout.timeout_seconds=3900"),
    ],
)
def test_ingress_keeps_idle_sessions(controller: str, annotation: str, value: str) -> None:
    """Most controllers close a connection that is idle for a minute, which is as long as a client may be idle."""
    ingress = render({"websocketTimeoutSeconds": 3900, "ingress": {"enabled": True, "controller": controller}})
    assert ingress["Ingress"]["metadata"]["annotations"][annotation] == value


def test_an_annotation_of_the_operator_takes_precedence() -> None:
    """The chart's default must not override an explicit annotation."""
    own = {"nginx.ingress.kubernetes.io/proxy-read-timeout": "60", "cert-manager.io/cluster-issuer": "le"}
    annotations = render({"ingress": {"enabled": True, "annotations": own}})["Ingress"]["metadata"]["annotations"]
    assert annotations == {**own, "nginx.ingress.kubernetes.io/proxy-send-timeout": "3600"}


def test_ingress_and_route_lead_to_the_service() -> None:
    """By its port and with the configured host; only the WebSocket's path, not the metrics."""
    chart = render(
        {
            "service": {"port": 8080},
            "ingress": {"enabled": True, "host": "chat.example", "tlsSecret": "tls"},
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["chat.example"]},
        }
    )
    name = chart["Service"]["metadata"]["name"]
    ingress = chart["Ingress"]["spec"]
    assert ingress["tls"] == [{"hosts": ["chat.example"], "secretName": "tls"}]
    [path] = ingress["rules"][0]["http"]["paths"]
    assert (path["path"], path["pathType"]) == ("/", "Exact")
    assert path["backend"]["service"] == {"name": name, "port": {"name": "ws"}}
    [rule] = chart["HTTPRoute"]["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    assert rule["backendRefs"] == [{"name": name, "port": 8080}]
    assert rule["matches"] == [{"path": {"type": "Exact", "value": "/"}}]


def test_public_urls_follow_ingress_and_route() -> None:
    """Nodes know their public URLs without a second setting for them."""
    chart = render(
        {
            "ingress": {"enabled": True, "host": "a.example", "tlsSecret": "tls"},
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}], "hostnames": ["b.example"], "tls": False},
        }
    )
    assert chart["ConfigMap"]["data"]["CONCLAVE_PUBLIC_URLS"].split(",") == [
        "wss://a.example",
        "ws://b.example",
        "ws://acme-conclave.chat.svc:80",
    ]
    assert "CONCLAVE_PUBLIC_URLS" not in render()["ConfigMap"]["data"]


def test_wildcard_is_no_public_url() -> None:
    """A wildcard is no address, and a client that dials a name that matches it would be refused for another name."""
    ingress = {"enabled": True, "host": "*.a.example"}
    route = {"enabled": True, "parentRefs": [{"name": "g"}], "hostnames": ["*.b.example"]}
    chart = render({"ingress": ingress, "httpRoute": route})
    assert "CONCLAVE_PUBLIC_URLS" not in chart["ConfigMap"]["data"]
    assert chart["Ingress"]["spec"]["rules"][0]["host"] == "*.a.example"
    assert chart["HTTPRoute"]["spec"]["hostnames"] == ["*.b.example"]
    both: Object = {"ingress": ingress, "httpRoute": {**route, "hostnames": ["*.b.example", "b.example"]}}
    assert "CONCLAVE_PUBLIC_URLS" not in render(both)["ConfigMap"]["data"]
    chart = render({**both, "relay": {"publicUrls": ["wss://b.example"]}})
    assert chart["ConfigMap"]["data"]["CONCLAVE_PUBLIC_URLS"].startswith("wss://b.example,ws://acme-conclave.")


# --- Scaling and watching ---


def test_autoscaler_counts_cpu_and_sessions() -> None:
    """Sessions fill a node without traffic; and the Deployment must not fight the autoscaler."""
    chart = render({"autoscaling": {"enabled": True, "targetSessions": 3000, "minReplicas": 4, "maxReplicas": 9}})
    assert chart["Deployment"]["spec"]["replicas"] == 4, "where no Deployment can be looked up"
    spec = chart["HorizontalPodAutoscaler"]["spec"]
    assert spec["scaleTargetRef"]["name"] == chart["Deployment"]["metadata"]["name"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (4, 9)
    cpu, sessions = spec["metrics"]
    assert cpu["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    assert sessions["pods"]["metric"]["name"] == "conclave_sessions"
    assert sessions["pods"]["target"] == {"type": "AverageValue", "averageValue": "3000"}
    assert spec["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 120}]


def test_no_node_runs_during_a_restore() -> None:
    """Also with an autoscaler, which leaves a Deployment of 0 alone."""
    for values in ({}, {"autoscaling": {"enabled": True}}):
        assert render({**values, "replicas": 0})["Deployment"]["spec"]["replicas"] == 0


def test_autoscaler_takes_metrics_and_behaviour_of_its_own() -> None:
    """Each cluster has its own adapter for metrics."""
    metric = {"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "1"}}}
    behavior = {"scaleDown": {"selectPolicy": "Disabled"}}
    given = {"enabled": True, "targetCPUUtilizationPercentage": 0, "metrics": [metric], "behavior": behavior}
    spec = render({"autoscaling": given})["HorizontalPodAutoscaler"]["spec"]
    assert (spec["metrics"], spec["behavior"]) == ([metric], behavior)


def test_alerts_name_the_deployment_and_link_to_the_operators_page() -> None:
    """The page is where the operators of this cluster read it; the Deployment has the name of the release."""
    page = "https://git.example/operations.md"
    given = {"prometheusRule": {"enabled": True, "runbooks": page}}
    rule = render({"metrics": given}).of("PrometheusRule", "metrics")
    assert rule is not None
    alerts = {each["alert"]: each for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each}
    for name, alert in alerts.items():
        assert alert["annotations"]["runbook_url"] == f"{page}#{name.lower()}"
    assert 'deployment=~"acme-conclave"' in alerts["ConclaveNodesMissing"]["expr"]


def test_service_monitor_takes_relabelings_and_a_time_out() -> None:
    """Large installations drop series and add labels at the scrape."""
    given = {
        "enabled": True,
        "scrapeTimeout": "10s",
        "relabelings": [{"targetLabel": "cluster", "replacement": "eu"}],
        "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"], "regex": "x"}],
    }
    monitor = render({"metrics": {"serviceMonitor": given}}).of("ServiceMonitor", "metrics")
    assert monitor is not None
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["scrapeTimeout"] == "10s"
    assert [each["targetLabel"] for each in endpoint["relabelings"]] == ["job", "cluster"]
    assert endpoint["metricRelabelings"] == given["metricRelabelings"]


def test_alerts_and_dashboards_are_the_ones_of_deploy() -> None:
    """One set of rules and dashboards for every installation; and scraped under the job that they query."""
    enabled = {"enabled": True}
    chart = render({"metrics": {"serviceMonitor": enabled, "prometheusRule": enabled, "dashboards": enabled}})
    rules = chart.of("PrometheusRule", "metrics")
    monitor = chart.of("ServiceMonitor", "metrics")
    service = chart.of("Service", "metrics")
    assert rules is not None
    assert monitor is not None
    assert service is not None
    assert {group["name"] for group in rules["spec"]["groups"]} >= {"conclave-nodes", "conclave-redis"}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert {"targetLabel": "job", "replacement": "conclave"} in endpoint["relabelings"]
    shown = [item["data"] for item in chart.objects if "grafana_dashboard" in item["metadata"]["labels"]]
    assert shown == [
        {f"conclave-{path.name}": path.read_text().rstrip("\n")}
        for path in sorted((CHART.parent / "grafana").glob("*.json"))
    ]


def test_image_by_digest() -> None:
    """A digest names one image for good; a tag beside it must not win."""
    digest = "sha256:" + "0" * 64
    image = {"repository": "registry.example/conclave", "tag": "1.0", "digest": digest}
    assert render({"image": image}).container["image"] == f"registry.example/conclave@{digest}"
    assert render({"image": {"tag": "1.0"}}).container["image"] == "conclave:1.0"


def test_version_is_that_of_the_program() -> None:
    """The chart installs the version of the relay that it was released with, by default."""
    assert render().container["image"] == f"conclave:{__version__}"


def test_what_an_installation_needs_beside_the_chart_has_a_place() -> None:
    """A missing value makes a fork of the chart."""
    given = {
        "deploymentAnnotations": {"reloader.example/auto": "true"},
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "extraInitContainers": [{"name": "first", "image": "busybox"}],
        "extraContainers": [{"name": "beside", "image": "busybox"}],
        "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
        "hostAliases": [{"ip": "10.0.0.5", "hostnames": ["redis.example"]}],
    }
    chart = render(given)
    assert chart["Deployment"]["metadata"]["annotations"] == given["deploymentAnnotations"]
    conclave, beside = chart.pod["containers"]
    assert conclave["name"] == "conclave"
    assert [beside] == given["extraContainers"]
    assert conclave["envFrom"] == [{"secretRef": {"name": "more"}}, {"configMapRef": {"name": "acme-conclave"}}], (
        "of a name that both have, the last counts"
    )
    assert chart.pod["initContainers"] == given["extraInitContainers"]
    assert chart.pod["dnsConfig"] == given["dnsConfig"]
    assert chart.pod["hostAliases"] == given["hostAliases"]


def test_extra_manifests_are_templates() -> None:
    """They may refer to the release."""
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: '{{ .Release.Name }}-text'}\n"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": '{{ include "conclave.fullname" . }}-more'}}
    found = [item for item in render({"extraManifests": [secret, text]}).objects if item["kind"] == "Secret"]
    assert [item["metadata"]["name"] for item in found] == ["acme-conclave-more", "acme-text"]


def test_extra_environment_volumes_and_mounts_reach_the_node() -> None:
    """A client certificate for rediss:// needs all three."""
    volume = {"name": "ca", "configMap": {"name": "ca"}}
    mount = {"name": "ca", "mountPath": "/ca"}
    chart = render(
        {
            "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/ca/ca.pem"}],
            "extraVolumes": [volume],
            "extraVolumeMounts": [mount],
            "priorityClassName": "high",
            "imagePullSecrets": [{"name": "pull"}],
        }
    )
    assert {"name": "SSL_CERT_FILE", "value": "/ca/ca.pem"} in chart.container["env"]
    assert chart.pod["volumes"] == [volume]
    assert chart.container["volumeMounts"] == [mount]
    assert chart.pod["priorityClassName"] == "high"
    assert chart.pod["imagePullSecrets"] == [{"name": "pull"}]

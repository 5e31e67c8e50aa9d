"""The chart on a real API server: everything is accepted, and an upgrade does what its operator meant."""

import json
import os
import subprocess
from typing import Any

import pytest

from tests.deploy.test_chart_schemas import MATRIX
from tests.support.chart import CHART, TRIAL, Object, render
from tests.support.kube_api import KubeApi, Refused
from tests.support.waiting import wait_until

_SECRET = {"redis": {"existingSecret": "conclave-redis"}}


def _reason(api: KubeApi, name: str) -> str | None:
    """The reason why an autoscaler acts or does not; None if it has not said so yet."""
    status = api.get("HorizontalPodAutoscaler", name, version="autoscaling/v2").get("status", {})
    found = [each["reason"] for each in status.get("conditions") or () if each["type"] == "ScalingActive"]
    return found[0] if found else None


def _is_seen(api: KubeApi, name: str) -> bool:
    """Tell whether the controllers of a Deployment and of its autoscaler have acted on their present form."""
    deployment = api.get("Deployment", name)
    is_new = deployment["status"].get("observedGeneration") == deployment["metadata"]["generation"]
    return is_new and _reason(api, name) is not None


class Release:
    """One release of the chart, by helm."""

    def __init__(self, api: KubeApi, name: str) -> None:
        self._api = api
        self.name = name
        self._environment = {**os.environ, "KUBECONFIG": str(api.kubeconfig)}

    def upgrade(self, values: Object) -> None:
        done = self.try_upgrade(values)
        assert done.returncode == 0, done.stderr

    def try_upgrade(self, values: Object) -> subprocess.CompletedProcess[str]:
        """Install or upgrade it with exactly these values."""
        words = ["helm", "upgrade", "--install", self.name, str(CHART), "--namespace", "chat", "--values", "-"]
        return subprocess.run(
            words,
            input=json.dumps(values),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def nodes(self) -> int:
        """The number of nodes that the cluster is to run."""
        replicas: int = self._api.get("Deployment", f"{self.name}-conclave")["spec"]["replicas"]
        return replicas


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_every_object_is_accepted(api: KubeApi, values: dict[str, Any]) -> None:
    """A schema does not know every rule: ports in use, names, fields that need each other."""
    for item in render(values).objects:
        api.apply(item, dry_run=True)


def test_an_object_that_is_wrong_is_refused(api: KubeApi) -> None:
    """Otherwise the test above would accept everything."""
    service = render(TRIAL)["Service"]
    with pytest.raises(Refused, match="Unsupported value"):
        api.apply({**service, "spec": {**service["spec"], "type": "Nothing"}}, dry_run=True)
    with pytest.raises(Refused, match="field not declared in schema"):
        api.apply({**service, "spec": {**service["spec"], "prots": []}}, dry_run=True)


def test_pods_are_admitted_where_the_restricted_standard_is_enforced(api: KubeApi) -> None:
    """By the admission of this version, not by our list of its rules."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": labels}})
    chart = render({**TRIAL, "extraInitContainers": []})
    valkey = chart.of("StatefulSet", "valkey")
    assert valkey is not None
    [test] = [item["spec"] for item in chart.objects if item["kind"] == "Pod"]
    for name, spec in (("node", chart.pod), ("valkey", valkey["spec"]["template"]["spec"]), ("test", test)):
        volumes = [*spec.get("volumes", ()), {"name": "data", "emptyDir": {}}]
        api.try_pod(name, {**spec, "volumes": volumes}, "strict")
    with pytest.raises(Refused, match="violates PodSecurity"):
        api.try_pod("root", {"containers": [{"name": "a", "image": "a"}]}, "strict")


def test_turning_the_autoscaler_on_keeps_the_nodes(api: KubeApi) -> None:
    """A Deployment whose number is no longer given gets one node, and the sessions of the others end at once."""
    release = Release(api, "scaled")
    release.upgrade(_SECRET)
    assert release.nodes == 3
    automatic = {**_SECRET, "autoscaling": {"enabled": True, "minReplicas": 2}}
    release.upgrade(automatic)
    assert release.nodes == 3
    assert api.get("HorizontalPodAutoscaler", "scaled-conclave", version="autoscaling/v2")["spec"]["minReplicas"] == 2


async def test_no_node_stops_when_the_autoscaler_is_turned_on(api: KubeApi) -> None:
    """By the controllers' own doing: the pods stay the same ones."""
    release = Release(api, "steady")
    release.upgrade(_SECRET)
    await wait_until(lambda: len(api.pods("steady")) == 3, what="there are three pods")
    before = api.pods("steady")
    release.upgrade({**_SECRET, "autoscaling": {"enabled": True}})
    await wait_until(lambda: _is_seen(api, "steady-conclave"), what="both controllers have seen the upgrade")
    assert api.pods("steady") == before


async def test_an_autoscaler_leaves_a_restore_alone(api: KubeApi) -> None:
    """It would otherwise start nodes on a Redis that is being restored."""
    release = Release(api, "paused")
    automatic = {**_SECRET, "autoscaling": {"enabled": True}}
    release.upgrade(automatic)
    await wait_until(lambda: len(api.pods("paused")) == 3, what="there are three pods")
    release.upgrade({**automatic, "replicas": 0})
    await wait_until(lambda: _reason(api, "paused-conclave") == "ScalingDisabled", what="the autoscaler pauses")
    await wait_until(lambda: not api.pods("paused"), what="no node is left")
    assert release.nodes == 0


def test_an_upgrade_keeps_the_number_that_the_autoscaler_has_chosen(api: KubeApi) -> None:
    """Within its bounds. When it is turned off, the values count again."""
    release = Release(api, "grown")
    automatic: Object = {**_SECRET, "autoscaling": {"enabled": True}}
    release.upgrade(automatic)
    assert release.nodes == 3
    for chosen, kept in ((7, 7), (2, 3), (20, 12)):
        api.scale("grown-conclave", chosen)
        release.upgrade({**automatic, "relay": {"presence": "shared"}, "revisionHistoryLimit": chosen})
        assert release.nodes == kept
    release.upgrade({**_SECRET, "replicas": 4})
    assert release.nodes == 4


@pytest.mark.parametrize("scaling", [{}, {"autoscaling": {"enabled": True}}], ids=["fixed", "automatic"])
def test_a_restore_stops_all_nodes_and_starts_them_again(api: KubeApi, scaling: Object) -> None:
    """Nodes that write into a Redis that is being restored would mix both."""
    release = Release(api, f"restored-{len(scaling)}")
    release.upgrade({**_SECRET, **scaling})
    release.upgrade({**_SECRET, **scaling, "replicas": 0})
    assert release.nodes == 0
    release.upgrade({**_SECRET, **scaling, "replicas": 3})
    assert release.nodes == 3


def test_an_upgrade_from_few_values_to_many_and_back(api: KubeApi) -> None:
    """Also of fields that Kubernetes lets change in one direction only."""
    release = Release(api, "changed")
    everything = {k: v for k, v in MATRIX["everything"].items() if k not in {"nameOverride", "service"}}
    service = {"type": "LoadBalancer", "loadBalancerClass": "example.com/lb", "labels": {"a": "b"}}
    for values in (_SECRET, {**everything, "service": service}, _SECRET):
        release.upgrade(values)


def test_a_change_of_the_bundled_volume_is_refused_with_the_way_out(api: KubeApi) -> None:
    """Kubernetes' own refusal names fields, and not what to do."""
    release = Release(api, "stored")
    release.upgrade(TRIAL)
    release.upgrade({"valkey": {"enabled": True, "maxMemory": "256mb"}})
    for persistence in ({"size": "8Gi"}, {"enabled": False}, {"storageClassName": "fast"}):
        refused = release.try_upgrade({"valkey": {"enabled": True, "persistence": persistence}})
        assert refused.returncode != 0
        assert "valkey.persistence cannot be changed in an upgrade (it was: 4Gi)" in refused.stderr
        assert "delete statefulset stored-conclave-valkey" in refused.stderr

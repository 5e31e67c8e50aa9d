"""The chart, rendered by helm."""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm"

TRIAL: dict[str, Any] = {"valkey": {"enabled": True}}
"""The fewest values that render: everything that is not given has its default."""

Object = dict[str, Any]


class Rendered:
    """The manifests of one set of values."""

    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects

    def __getitem__(self, kind: str) -> Object:
        """Return the relay's object of a kind; there must be one."""
        found = self.of(kind)
        assert found is not None, f"no {kind} of the relay"
        return found

    def of(self, kind: str, component: str = "relay") -> Object | None:
        """Return the only object of a kind and component, or None."""
        found = [item for item in self.objects if item["kind"] == kind and _component(item) == component]
        assert len(found) <= 1, f"{len(found)} objects of kind {kind}"
        return found[0] if found else None

    @property
    def pod(self) -> Object:
        """The specification of a node's pod."""
        spec: Object = self["Deployment"]["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> Object:
        """The container of a node."""
        [container] = self.pod["containers"]
        assert isinstance(container, dict)
        return container


def helm(*words: str, values: Object | None = None, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
    """Run one of helm's commands on the chart with some values."""
    verb, *rest = words
    return subprocess.run(
        ["helm", verb, *rest, str(chart), "--namespace", "chat", "--values", "-"],  # noqa: S607 - make brought it
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def render(values: Object | None = None, *, release: str = "acme", chart: Path = CHART) -> Rendered:
    """Render the chart with some values beside `TRIAL`, unless they say where the Redis is."""
    given = values or {}
    store: Object = {} if "redis" in given or "valkey" in given else TRIAL
    done = helm("template", release, values={**store, **given}, chart=chart)
    assert done.returncode == 0, done.stderr
    return Rendered([item for item in yaml.safe_load_all(done.stdout) if item])


def refusal(values: Object) -> str:
    """Return helm's error for values that it must not accept."""
    done = helm("template", "acme", values={**TRIAL, **values})
    assert done.returncode != 0, f"these values render: {values}"
    return done.stderr


def _component(item: Object) -> str | None:
    """Extra manifests have none."""
    labels: dict[str, str] = item["metadata"].get("labels", {})
    return labels.get("app.kubernetes.io/component")

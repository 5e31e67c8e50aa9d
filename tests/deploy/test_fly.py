"""The configuration for Fly.io matches the behaviour of a node."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

_DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def fly() -> dict[str, Any]:
    return tomllib.loads((_DEPLOY / "fly.toml").read_text())


def test_machine_is_not_killed_while_it_drains(fly: dict[str, Any]) -> None:
    """Fly's default is SIGINT and five seconds."""
    env = fly["env"]
    assert fly["kill_signal"] == "SIGTERM"
    drain = int(env["CONCLAVE_DRAIN_DELAY"]) + int(env["CONCLAVE_DRAIN_SECONDS"])
    assert int(fly["kill_timeout"].removesuffix("s")) >= drain + 10


def test_proxy_notices_before_sessions_are_refused(fly: dict[str, Any]) -> None:
    """A login that reaches the machine in between fails."""
    [check] = fly["http_service"]["checks"]
    assert int(fly["env"]["CONCLAVE_DRAIN_DELAY"]) > 2 * int(check["interval"].removesuffix("s"))


def test_sessions_go_where_they_can_be_served(fly: dict[str, Any]) -> None:
    """Readiness decides, connections are counted, and no machine is stopped under its sessions."""
    service = fly["http_service"]
    assert [check["path"] for check in service["checks"]] == ["/ready"]
    assert service["concurrency"]["type"] == "connections"
    assert service["concurrency"]["soft_limit"] < service["concurrency"]["hard_limit"]
    assert service["auto_stop_machines"] == "off"
    assert service["min_machines_running"] >= 2
    assert service["http_options"]["idle_timeout"] > 60, "clients ping once a minute"


def test_ports_are_the_nodes(fly: dict[str, Any]) -> None:
    """A port without a listener fails the deploy, or silently the metrics."""
    assert fly["env"]["CONCLAVE_BIND"].endswith(f":{fly['http_service']['internal_port']}")
    assert fly["env"]["CONCLAVE_METRICS_BIND"].endswith(f":{fly['metrics']['port']}")
    assert fly["metrics"]["path"] == "/metrics"
    assert fly["checks"]["alive"]["port"] == fly["http_service"]["internal_port"]


def test_machines_have_neither_volumes_nor_secrets(fly: dict[str, Any]) -> None:
    """Nodes are stateless: a volume would pin a machine to its host; and secrets are not in files."""
    assert not {"mounts", "mount"} & fly.keys()
    assert (
        not {"CONCLAVE_REDIS_URL", "CONCLAVE_REDIS_READ_URL", "CONCLAVE_ADMINS", "CONCLAVE_DATA_DIR"}
        & fly["env"].keys()
    )


def test_guide_names_every_secret() -> None:
    """Settings that the file omits must be in the guide."""
    guide = (_DEPLOY / "fly.md").read_text()
    for secret in ("CONCLAVE_REDIS_URL", "CONCLAVE_REDIS_READ_URL", "CONCLAVE_ADMINS", "CONCLAVE_PUBLIC_URLS"):
        assert secret in guide


def test_image_exists(fly: dict[str, Any]) -> None:
    """The paths are relative to the file. Without the second one the whole checkout is sent to the builder."""
    assert (_DEPLOY / fly["build"]["dockerfile"]).is_file()
    assert fly["build"]["ignorefile"] == f"{fly['build']['dockerfile']}.dockerignore"
    assert (_DEPLOY / fly["build"]["ignorefile"]).is_file()

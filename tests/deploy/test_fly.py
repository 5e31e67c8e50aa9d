"""The configuration for Fly.io fits what a node does."""

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


def test_proxy_notices_before_the_door_closes(fly: dict[str, Any]) -> None:
    """A login that is sent to a machine in between fails."""
    [check] = fly["http_service"]["checks"]
    assert int(fly["env"]["CONCLAVE_DRAIN_DELAY"]) > 2 * int(check["interval"].removesuffix("s"))


def test_sessions_go_where_they_can_be_served(fly: dict[str, Any]) -> None:
    """Readiness decides, connections are what counts, and no machine is stopped under its sessions."""
    service = fly["http_service"]
    assert [check["path"] for check in service["checks"]] == ["/ready"]
    assert service["concurrency"]["type"] == "connections"
    assert service["concurrency"]["soft_limit"] < service["concurrency"]["hard_limit"]
    assert service["auto_stop_machines"] == "off"
    assert service["min_machines_running"] >= 2
    assert service["http_options"]["idle_timeout"] > 60, "clients ping once a minute"


def test_ports_are_the_nodes(fly: dict[str, Any]) -> None:
    """A port that nobody listens on fails the deploy, metrics in silence."""
    assert fly["env"]["CONCLAVE_BIND"].endswith(f":{fly['http_service']['internal_port']}")
    assert fly["env"]["CONCLAVE_METRICS_BIND"].endswith(f":{fly['metrics']['port']}")
    assert fly["metrics"]["path"] == "/metrics"
    assert fly["checks"]["alive"]["port"] == fly["http_service"]["internal_port"]


def test_machines_keep_nothing(fly: dict[str, Any]) -> None:
    """Nodes are stateless: a volume would pin a machine to its host; and a secret is not in a file."""
    assert not {"mounts", "mount"} & fly.keys()
    assert (
        not {"CONCLAVE_REDIS_URL", "CONCLAVE_REDIS_READ_URL", "CONCLAVE_ADMINS", "CONCLAVE_DATA_DIR"}
        & fly["env"].keys()
    )


def test_guide_names_every_secret() -> None:
    """What the file leaves out is what the guide must say."""
    guide = (_DEPLOY / "fly.md").read_text()
    for secret in ("CONCLAVE_REDIS_URL", "CONCLAVE_REDIS_READ_URL", "CONCLAVE_ADMINS", "CONCLAVE_PUBLIC_URLS"):
        assert secret in guide


def test_image_exists(fly: dict[str, Any]) -> None:
    """The path is relative to the file."""
    assert (_DEPLOY / fly["build"]["dockerfile"]).is_file()

"""compose.yaml and its balancer: the parts match each other, and the balancer works with real nodes."""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.nodes import NodeProcess
from tests.support.peer import Peers
from tests.support.ports import accepts, free_port
from tests.support.waiting import wait_until

_DEPLOY = Path(__file__).parents[2] / "deploy"
_NODES = ("node-1", "node-2", "node-3")


@pytest.fixture
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((_DEPLOY / "compose.yaml").read_text())
    return document


def test_all_services_are_defined(compose: dict[str, Any]) -> None:
    """Three nodes, their store, the balancer, Prometheus and Grafana."""
    assert compose["services"].keys() == {
        *_NODES, "balancer", "valkey", "redis-exporter", "prometheus", "grafana",
    }  # fmt: skip


def test_the_image_is_built_once(compose: dict[str, Any]) -> None:
    """Services that export one tag at the same time end with "already exists"; no registry has the image."""
    nodes = [compose["services"][name] for name in _NODES]
    assert {node["image"] for node in nodes} == {"conclave"}
    assert [node.get("build") for node in nodes] == [{"context": "..", "dockerfile": "deploy/Dockerfile"}, None, None]
    assert [node["pull_policy"] for node in nodes] == ["build", "never", "never"]


def test_services_have_few_rights(compose: dict[str, Any]) -> None:
    """Users copy this file to production machines."""
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_mounted_files_exist(compose: dict[str, Any]) -> None:
    """Docker creates an empty directory for a missing file."""
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (_DEPLOY / source).exists(), source


def test_node_is_not_killed_while_it_drains(compose: dict[str, Any]) -> None:
    """Compose's default is ten seconds."""
    for name in _NODES:
        service = compose["services"][name]
        env = service["environment"]
        drain = int(env["CONCLAVE_DRAIN_DELAY"]) + int(env["CONCLAVE_DRAIN_SECONDS"])
        assert int(service["stop_grace_period"].removesuffix("s")) >= drain + 10


def test_balancer_notices_before_sessions_are_refused(compose: dict[str, Any]) -> None:
    """A login that reaches the node in between fails."""
    check = re.search(r"check inter (\d+)s fall (\d+)", (_DEPLOY / "haproxy.cfg").read_text())
    assert check is not None
    for name in _NODES:
        env = compose["services"][name]["environment"]
        assert int(env["CONCLAVE_DRAIN_DELAY"]) > int(check[1]) * int(check[2])


def test_every_node_is_behind_the_balancer_and_scraped(compose: dict[str, Any]) -> None:
    """A fourth node that is missing in one of three files is hard to notice."""
    balanced = re.findall(r"server (\S+) (\S+):4390", (_DEPLOY / "haproxy.cfg").read_text())
    scrape = yaml.safe_load((_DEPLOY / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    [targets] = [job["static_configs"][0]["targets"] for job in scrape if job["job_name"] == "conclave"]
    assert balanced == [(name, name) for name in _NODES]
    assert targets == [f"{name}:9464" for name in _NODES]
    assert compose["services"]["balancer"]["depends_on"].keys() == set(_NODES)


def test_grafana_finds_its_dashboards_and_data(compose: dict[str, Any]) -> None:
    """Provisioning errors are only in Grafana's log."""
    provisioning = _DEPLOY / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "conclave.yaml").read_text())["providers"]
    assert source["url"] == "http://prometheus:9090"
    mounts = dict(volume.split(":")[:2][::-1] for volume in compose["services"]["grafana"]["volumes"])
    assert mounts[provider["options"]["path"]] == "./grafana"
    assert mounts["/etc/grafana/provisioning"] == "./grafana/provisioning"
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (_DEPLOY / "grafana" / Path(home).name).is_file()


async def test_balancer_sends_sessions_to_nodes_that_are_ready(
    nodes: list[NodeProcess], peers: Peers, tmp_path: Path
) -> None:
    """With the addresses of these nodes in the same file: sessions are spread, and avoid a node that has ended."""
    port = free_port()
    text = (_DEPLOY / "haproxy.cfg").read_text().replace("bind :4390", f"bind 127.0.0.1:{port}")
    for name, node in zip(_NODES, nodes, strict=True):
        text = text.replace(f"{name}:4390", node.address)
    (tmp_path / "haproxy.cfg").write_text(text)
    with (tmp_path / "haproxy.log").open("wb") as log:
        haproxy = await asyncio.create_subprocess_exec(
            _haproxy(), "-db", "-f", str(tmp_path / "haproxy.cfg"), stdout=log, stderr=log
        )
    url = f"ws://127.0.0.1:{port}/"
    try:
        await wait_until(lambda: accepts(port), what="the balancer listens")
        for number in range(6):
            await peers.register(url, f"guest{number}")
        assert [await _sessions(node) for node in nodes] == [2, 2, 2], "the node with the fewest gets the next"
        await nodes[1].kill()
        for number in range(6):
            await peers.register(url, f"late{number}")
        assert await _sessions(nodes[0]) + await _sessions(nodes[2]) == 10
    except Exception:
        sys.stderr.write((tmp_path / "haproxy.log").read_text())
        raise
    finally:
        haproxy.kill()
        await haproxy.wait()


async def _sessions(node: NodeProcess) -> int:
    match = re.search(r"^conclave_sessions (\d+)", await node.text("/metrics"), re.MULTILINE)
    assert match is not None
    return int(match[1])


def _haproxy() -> str:
    found = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None, "make deploy-tools installs it"
    return found

"""The program of `helm test`, run against a node with the settings that the chart gives it."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.support.chart import CHART, Object, render
from tests.support.nodes import NodeProcess
from tests.support.ports import free_port
from tests.support.programs import CONCLAVE

_SCRIPT = CHART / "files" / "exchange.py"
_INGRESS = {"enabled": True, "host": "chat.example", "tlsSecret": "tls"}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ingress": _INGRESS},
        {"relay": {"publicUrls": ["wss://chat.example"]}},
        {"relay": {"registration": "invite"}, "ingress": _INGRESS},
    ],
    ids=str,
)
async def test_exchange_succeeds_with_the_rendered_settings(values: Object, redis_url: str, tmp_path: Path) -> None:
    """The test pod dials the Service, whose URL must be accepted also where the public URLs are others."""
    chart = render(values)
    pod = next(item for item in chart.objects if item["kind"] == "Pod")
    asked = {entry["name"]: entry["value"] for entry in pod["spec"]["containers"][0]["env"]}
    service = asked["SERVER"].removeprefix("ws://")
    here = f"127.0.0.1:{free_port()}"  # stands for the Service, wherever the chart names that
    settings = {name: value.replace(service, here) for name, value in chart["ConfigMap"]["data"].items()}
    node = NodeProcess(
        "--redis-url", redis_url, environment={**settings, "CONCLAVE_METRICS_BIND": f"127.0.0.1:{free_port()}"}
    )
    node.address = here
    try:
        await node.start()
        code, said = await _exchange({**asked, "SERVER": f"ws://{here}", "KEYS": str(tmp_path)})
    finally:
        await node.close()
    assert code == 0, said
    assert "PASSED" in said


async def _exchange(asked: dict[str, str]) -> tuple[int, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONCLAVE_")}
    process = await asyncio.create_subprocess_exec(
        str(CONCLAVE.with_name("python")),
        str(_SCRIPT),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**clean, "PATH": f"{CONCLAVE.parent}{os.pathsep}{clean['PATH']}", **asked},
    )
    try:
        async with asyncio.timeout(120):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode()

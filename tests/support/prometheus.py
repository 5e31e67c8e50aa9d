"""A real Prometheus that scrapes nodes of a test by the configuration of deploy/."""

import asyncio
import math
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.support.nodes import NodeProcess
from tests.support.ports import free_port
from tests.support.promtool import RULES
from tests.support.waiting import wait_until


class Prometheus:
    """The HTTP API of a running one."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def is_ready(self) -> bool:
        try:
            async with self._http.get(f"{self._url}/-/ready") as response:
                return response.status == HTTPStatus.OK
        except aiohttp.ClientConnectionError:
            return False

    async def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer. Raises: AssertionError if it is an error."""
        async with self._http.get(f"{self._url}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def query(self, expr: str) -> list[float]:
        """Return the values of an expression now; values that are no numbers are left out."""
        data = await self.get("query", query=expr)
        values = [float(sample["value"][1]) for sample in data["result"]]
        return [value for value in values if not math.isnan(value)]


@asynccontextmanager
async def prometheus(nodes: list[NodeProcess], directory: Path) -> AsyncIterator[Prometheus]:
    """Run the configuration of compose.yaml with these nodes as its targets, a second between scrapes."""
    config = yaml.safe_load((RULES.parent / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] == "conclave"]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [node.address for node in nodes]
    path = directory / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    port = free_port()
    with (directory / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={path}",
            f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession() as http:
            running = Prometheus(http, f"http://127.0.0.1:{port}")
            await wait_until(running.is_ready, timeout=30, what="Prometheus is ready")
            yield running
    finally:
        process.kill()
        await process.wait()

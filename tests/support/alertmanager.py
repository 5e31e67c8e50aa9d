"""A real Alertmanager with the configuration of deploy/."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import aiohttp

from tests.support.ports import free_port
from tests.support.promtool import RULES, alerts
from tests.support.waiting import wait_until

CONFIG = RULES.parent / "alertmanager.yaml"


class Alertmanager:
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

    async def fire(self, names: Iterable[str], namespace: str) -> None:
        """Report that these alerts fire."""
        labels = [
            {"alertname": name, "namespace": namespace, "severity": alerts()[name]["labels"]["severity"]}
            for name in names
        ]
        async with self._http.post(
            f"{self._url}/api/v2/alerts", json=[{"labels": each} for each in labels]
        ) as response:
            assert response.status == HTTPStatus.OK, await response.text()

    async def pages(self) -> set[tuple[str, str]]:
        """Return namespace and name of the alerts that nothing inhibits."""
        async with self._http.get(f"{self._url}/api/v2/alerts", params={"inhibited": "false"}) as response:
            found = await response.json()
        return {(alert["labels"]["namespace"], alert["labels"]["alertname"]) for alert in found}


def program() -> str:
    """Return its path; distributions give it a longer name."""
    found = shutil.which("alertmanager") or shutil.which("prometheus-alertmanager")
    assert found is not None, "make deploy-tools installs it"
    return found


@asynccontextmanager
async def alertmanager(directory: Path) -> AsyncIterator[Alertmanager]:
    """Run the configuration of deploy/."""
    port = free_port()
    with (directory / "alertmanager.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program(),
            f"--config.file={CONFIG}",
            f"--storage.path={directory / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession() as http:
            running = Alertmanager(http, f"http://127.0.0.1:{port}")
            await wait_until(running.is_ready, timeout=30, what="Alertmanager is ready")
            yield running
    finally:
        process.kill()
        await process.wait()

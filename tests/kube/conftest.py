"""One API server for all tests, with the custom resources that the chart has objects of."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.custom_resources import DEFINITIONS, read_definition
from tests.support.kube_api import KubeApi
from tests.support.waiting import wait_until

_GROUPS = ("gateway.networking.k8s.io/v1", "monitoring.coreos.com/v1", "monitoring.coreos.com/v1alpha1")


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    server = KubeApi(tmp_path_factory.mktemp("kube"))
    try:
        server.start()
        asyncio.run(wait_until(server.is_ready, timeout=120, what="the API server is ready"))
        server.start_controllers()
        server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "chat"}})
        for name in DEFINITIONS:
            server.apply(read_definition(name))
        served = lambda: all(map(server.is_served, _GROUPS))  # noqa: E731
        asyncio.run(wait_until(served, timeout=60, what="the custom resources are served"))
        yield server
    finally:
        server.close()

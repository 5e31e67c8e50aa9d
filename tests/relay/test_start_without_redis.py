"""A node that starts before its Redis can be used."""

import asyncio
from itertools import pairwise

from structlog.testing import capture_logs

from relay.app.config import NodeConfig, RedisUrl
from relay.app.node import Node
from relay.redis import connect
from relay.services.server_admins import ServerAdmins
from tests.support.redis_server import RedisProcess
from tests.support.waiting import pause, wait_until


async def test_each_reason_of_the_wait_is_logged_once(redis_process_tcp: RedisProcess) -> None:
    """The same line twice a second would hide the one that an operator needs."""
    host, port = redis_process_tcp.address
    url = f"redis://:nobody-asked@{host}:{port}"
    node = Node(NodeConfig("127.0.0.1", 0, RedisUrl(url), ServerAdmins({})), connect.real(url))
    with capture_logs() as logged:

        def reasons() -> list[str]:
            return [event["reason"] for event in logged if event["event"] == "node.waiting"]

        running = asyncio.create_task(node.run())
        try:
            await wait_until(reasons, what="the reason is logged")
            await pause(2)  # it has tried again several times
            redis_process_tcp.kill()
            await wait_until(lambda: "ConnectionError" in reasons()[-1], what="the new reason is logged")
            await pause(2)
        finally:
            node.stop()
            await running
    found = reasons()
    assert found[0].startswith("AuthenticationError: ")
    assert found[-1].startswith("ConnectionError: ")
    assert "nobody-asked" not in "".join(found)
    assert all(one != next_one for one, next_one in pairwise(found)), found

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


async def test_why_it_waits_is_said_once_for_each_reason(redis_process_tcp: RedisProcess) -> None:
    """Twice a second the same words bury the one line that an operator needs, and the reason is in each of them."""
    host, port = redis_process_tcp.address
    url = f"redis://:nobody-asked@{host}:{port}"
    node = Node(NodeConfig("127.0.0.1", 0, RedisUrl(url), ServerAdmins({})), connect.real(url))
    with capture_logs() as logged:

        def reasons() -> list[str]:
            return [event["reason"] for event in logged if event["event"] == "node.waiting"]

        running = asyncio.create_task(node.run())
        try:
            await wait_until(reasons, what="it says why it waits")
            await pause(2)  # it has tried again several times
            redis_process_tcp.kill()
            await wait_until(lambda: "ConnectionError" in reasons()[-1], what="it says what is the matter now")
            await pause(2)
        finally:
            node.stop()
            await running
    found = reasons()
    assert found[0].startswith("AuthenticationError: ")
    assert found[-1].startswith("ConnectionError: ")
    assert "nobody-asked" not in "".join(found)
    assert all(one != next_one for one, next_one in pairwise(found)), found

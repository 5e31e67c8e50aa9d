"""The client of a Redis Cluster, where no Cluster is needed to see what it does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from relay.model.errors import StoreUnavailable
from relay.observability.metrics import Metrics
from relay.redis import connect, scripts
from relay.redis.sharding.client import ClusterClient
from relay.redis.store_url import parse_several

OLD = b"redis_version:6.2.14"


@asynccontextmanager
async def old_member() -> AsyncIterator[str]:
    """Serve what a member of a Cluster of version 6.2 replies; yields its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in (b"+OK\r\n+OK\r\n", b"*0\r\n$%d\r\n%s\r\n" % (len(OLD), OLD)):
            await reader.read(65536)
            writer.write(reply)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"redis+cluster://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_servers_without_sharded_pubsub_need_the_classic_kind() -> None:
    """A node that chose by itself would not hear the nodes that started before the upgrade."""
    async with old_member() as url:
        assert await reason(url) == ("the Cluster has no sharded publish/subscribe: add `?pubsub=classic` to its URL")
        assert await reason(f"{url}?pubsub=classic") == "the Cluster has no slots yet"


async def reason(url: str) -> str:
    """Return the reason for which a command fails."""
    members = connect.Members(parse_several(url))
    client = ClusterClient(members, timeout=5.0, metrics=Metrics(scripts.NAMES), needed=tuple)
    serving = asyncio.create_task(client.serve())
    with pytest.raises(StoreUnavailable) as raised:
        await client.call("GET", "x")
    assert not client.is_up
    serving.cancel()
    await asyncio.wait([serving])
    with pytest.raises(StoreUnavailable, match="try again"):
        await client.call("GET", "x")
    return raised.value.why


def test_scripts_that_publish_do_it_within_the_shard() -> None:
    """The others are the same text in a Cluster."""
    publishing = {script.name for script in scripts.ALL if script.sharded.text != script.text}
    assert {"post", "announce", "erase"} <= publishing
    for script in scripts.ALL:
        assert "PUBLISH" not in script.sharded.text.replace("'SPUBLISH'", ""), script.name
        assert (script.sharded.sha == script.sha) == (script.name not in publishing)

"""The balancer of a local cluster: which node a connection goes to, and that nothing of it is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from relay.launch.balancer import Address, Balancer
from tests.support.ports import accepts, free_port
from tests.support.waiting import wait_until

ANSWER = b"HTTP/1.1 %d x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

GOODBYE = b"goodbye"
CUT = (ConnectionResetError, asyncio.IncompleteReadError)


class Backend:
    """A backend with a readiness, which sends its name to every client before it echoes their bytes."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.status = 200
        self.asked = 0
        self.server: asyncio.Server

    @property
    def address(self) -> Address:
        host, port = self.server.sockets[0].getsockname()
        return host, port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(64 * 1024)
        if first.startswith(b"GET /ready "):
            self.asked += 1
            writer.write(ANSWER % self.status)
        else:
            writer.write(self.name)
            while first:
                writer.write(first)
                await writer.drain()
                first = await reader.read(64 * 1024)
            writer.write(GOODBYE)
        writer.close()


@asynccontextmanager
async def backends(count: int) -> AsyncIterator[list[Backend]]:
    async with AsyncExitStack() as stack:
        running = [Backend(name) for name in "abcdefgh"[:count]]
        for backend in running:
            backend.server = await asyncio.start_server(backend.serve, "127.0.0.1", 0)
            stack.callback(backend.server.close)
        yield running


@asynccontextmanager
async def balancing(nodes: list[Address], ready: int) -> AsyncIterator[Balancer]:
    async with Balancer(nodes, period=0.01) as balancer:
        await balancer.listen("127.0.0.1", 0)
        await wait_until(lambda: len(balancer.ready) == ready, what=f"{ready} are ready")
        yield balancer


class Client:
    """A connection through the balancer that has learned which node it is at."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.node = ""

    async def read(self, count: int) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readexactly(count)

    async def repeats(self, text: bytes) -> bool:
        self.writer.write(text)
        return await self.read(len(text)) == text


class Clients:
    """Closed at the end of the test."""

    def __init__(self) -> None:
        self._all: list[Client] = []

    async def dial(self, balancer: Balancer) -> Client:
        """Connect, and send nothing."""
        client = Client(*await asyncio.open_connection(*balancer.address))
        self._all.append(client)
        return client

    async def greet(self, balancer: Balancer) -> Client:
        """Connect, and learn which node it is."""
        client = await self.dial(balancer)
        client.writer.write(b"!")
        client.node = (await client.read(2))[:1].decode()
        return client

    async def close(self) -> None:
        for client in self._all:
            client.writer.close()
            with suppress(ConnectionError):
                await client.writer.wait_closed()


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    everybody = Clients()
    try:
        yield everybody
    finally:
        await everybody.close()


async def test_connections_are_spread_evenly(clients: Clients) -> None:
    """A session lives long: a new node must get the new connections until it has as many."""
    async with backends(3) as nodes, balancing([node.address for node in nodes], 3) as balancer:
        six = [await clients.greet(balancer) for _ in range(6)]
        assert sorted(client.node for client in six) == ["a", "a", "b", "b", "c", "c"]
        for client in six:
            if client.node == "b":
                client.writer.close()
        await wait_until(lambda: balancer.backends[1].connections == 0, what="those have gone")
        assert [(await clients.greet(balancer)).node for _ in range(2)] == ["b", "b"]


async def test_a_node_that_is_not_ready_keeps_its_connections_and_gets_no_new_ones(clients: Clients) -> None:
    """A rolling update moves sessions when their node closes them; while Redis is away no session is moved."""
    async with backends(2) as nodes, balancing([node.address for node in nodes], 2) as balancer:
        before = [await clients.greet(balancer) for _ in range(2)]
        (mine,) = (client for client in before if client.node == "a")
        nodes[0].status = 503
        await wait_until(lambda: len(balancer.ready) == 1, what="the balancer has noticed")
        assert {(await clients.greet(balancer)).node for _ in range(5)} == {"b"}
        assert await mine.repeats(b"still here")
        nodes[0].status = 200
        await wait_until(lambda: len(balancer.ready) == 2, what="the balancer has noticed again")
        assert (await clients.greet(balancer)).node == "a"


async def test_a_node_that_refuses_is_passed_over_at_once(clients: Clients) -> None:
    """A killed node was ready at its last check; no client should notice the time until the next one."""
    async with backends(2) as nodes, Balancer([node.address for node in nodes], period=3600) as balancer:
        await balancer.listen("127.0.0.1", 0)
        await wait_until(lambda: len(balancer.ready) == 2, what="both are ready")
        nodes[0].server.close()
        assert {(await clients.greet(balancer)).node for _ in range(4)} == {"b"}
        assert balancer.ready == [nodes[1].address]


async def test_while_no_node_is_ready_one_is_asked_all_the_same(clients: Clients) -> None:
    """Its answer has the reason in it; a balancer that hangs up has none."""
    async with backends(1) as nodes:
        nodes[0].status = 503
        async with balancing([nodes[0].address], 0) as balancer:
            await wait_until(lambda: nodes[0].asked, what="it was asked")
            assert (await clients.greet(balancer)).node == "a"


async def test_where_no_node_is_the_connection_is_cut(clients: Clients) -> None:
    """A client that is left hanging does not try again."""
    async with balancing([("127.0.0.1", free_port())], 0) as balancer:
        client = await clients.dial(balancer)
        with pytest.raises(CUT):
            await client.read(1)


async def test_all_bytes_arrive_after_one_side_has_ended(clients: Clients) -> None:
    """A node closes after its last message; a client may have ended its own half before the reply is complete."""
    async with backends(1) as nodes, balancing([nodes[0].address], 1) as balancer:
        client = await clients.greet(balancer)
        text = bytes(range(256)) * 16384
        sending = asyncio.create_task(_send_and_end(client.writer, text))
        assert await client.read(len(text)) == text
        async with asyncio.timeout(10):
            assert await client.reader.read() == GOODBYE, "the node has heard the end, and ended too"
        await sending
        await wait_until(lambda: balancer.backends[0].connections == 0, what="it is forgotten")


async def _send_and_end(writer: asyncio.StreamWriter, text: bytes) -> None:
    writer.write(text)
    writer.write_eof()
    await writer.drain()


async def test_leaving_cuts_what_is_connected_and_closes_the_door(clients: Clients) -> None:
    """Nothing outlives the block: no task, no socket."""
    async with backends(1) as nodes:
        async with balancing([nodes[0].address], 1) as balancer:
            client = await clients.greet(balancer)
        with pytest.raises(CUT):
            await client.read(1)
        assert not await accepts(balancer.address[1])

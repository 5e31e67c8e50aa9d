"""The proxy fails as networks do: each fault does what its name says, and no data follows data that was lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.support.proxy import Proxy, Way
from tests.support.waiting import pause, wait_until

SOON_SECONDS = 5.0


class Echo:
    """A server that answers every line with the same line, and notes what it has received."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            self.received.append(line)
            writer.write(line)
        self.received.append(b"")
        writer.close()


class Client:
    """A connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def close(self) -> None:
        self._writer.transport.abort()

    async def asks(self, line: bytes) -> bytes | None:
        """Send a line; returns the answer, b'' if the connection ended, and None if there is silence."""
        try:
            self._writer.write(line)
            async with asyncio.timeout(0.3):
                return await self._reader.readline()
        except TimeoutError:
            return None
        except ConnectionError:
            return b""


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    yield echo
    server.close()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    async with Proxy("127.0.0.1", echo.port) as proxy:
        yield proxy


Connect = Callable[[], Awaitable[Client]]


@pytest.fixture
async def connect(proxy: Proxy) -> AsyncIterator[Connect]:
    """Connects through the proxy."""
    clients: list[Client] = []

    async def connect() -> Client:
        clients.append(Client(*await asyncio.open_connection("127.0.0.1", proxy.port)))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()
    await pause(0)


async def test_a_cut_ends_old_and_new_connections_until_it_is_mended(proxy: Proxy, connect: Connect) -> None:
    """As a machine that is gone."""
    old = await connect()
    assert await old.asks(b"1\n") == b"1\n"
    proxy.cut()
    assert await old.asks(b"2\n") == b""
    assert await (await connect()).asks(b"3\n") == b""
    proxy.mend()
    assert await (await connect()).asks(b"4\n") == b"4\n"


async def test_a_reset_ends_old_connections_only(proxy: Proxy, connect: Connect) -> None:
    """As a load balancer that is restarted."""
    old = await connect()
    assert await old.asks(b"1\n") == b"1\n"
    proxy.reset()
    assert await old.asks(b"2\n") == b""
    assert await (await connect()).asks(b"3\n") == b"3\n"


async def test_a_black_hole_is_silent_and_its_connections_end_with_it(
    proxy: Proxy, echo: Echo, connect: Connect
) -> None:
    """New connections, too. What was lost is never followed by later data."""
    old = await connect()
    assert await old.asks(b"1\n") == b"1\n"
    proxy.black_hole()
    new = await connect()
    assert [await old.asks(b"2\n"), await new.asks(b"3\n")] == [None, None]
    proxy.mend()
    assert [await old.asks(b"4\n"), await new.asks(b"5\n")] == [b"", b""]
    assert await (await connect()).asks(b"6\n") == b"6\n"
    assert [line for line in echo.received if line] == [b"1\n", b"6\n"]


@pytest.mark.parametrize(("way", "received"), [(Way.UP, []), (Way.DOWN, [b"2\n"])])
async def test_deaf_on_one_way(proxy: Proxy, echo: Echo, way: Way, received: list[bytes], connect: Connect) -> None:
    """The server does not hear the client, or the client does not hear the server; new connections work."""
    old = await connect()
    assert await old.asks(b"1\n") == b"1\n"
    proxy.swallow(way)
    assert await old.asks(b"2\n") is None
    assert echo.received == [b"1\n", *received]
    assert await (await connect()).asks(b"3\n") == b"3\n"


async def test_half_closed_towards_the_server(proxy: Proxy, echo: Echo, connect: Connect) -> None:
    """The server reads an end, although the client has not closed."""
    client = await connect()
    assert await client.asks(b"1\n") == b"1\n"
    proxy.half_close(Way.UP)
    await wait_until(lambda: echo.received == [b"1\n", b""], timeout=SOON_SECONDS, what="the server reads an end")


async def test_half_closed_towards_the_client(proxy: Proxy, echo: Echo, connect: Connect) -> None:
    """The client reads an end, and the server still hears it."""
    client = await connect()
    assert await client.asks(b"1\n") == b"1\n"
    proxy.half_close(Way.DOWN)
    assert await client.asks(b"2\n") == b""
    await wait_until(
        lambda: echo.received == [b"1\n", b"2\n"], timeout=SOON_SECONDS, what="the server hears the client"
    )


async def test_a_stall_loses_nothing(proxy: Proxy, connect: Connect) -> None:
    """As a full buffer on the way."""
    client = await connect()
    assert await client.asks(b"1\n") == b"1\n"
    proxy.stall()
    assert await client.asks(b"2\n") is None
    proxy.mend()
    assert await client.asks(b"3\n") == b"2\n"


async def test_a_delay_is_one_of_each_way(proxy: Proxy, connect: Connect) -> None:
    """A distant region."""
    client = await connect()
    proxy.delay(0.1)
    clock = asyncio.get_running_loop().time
    began = clock()
    assert await client.asks(b"1\n") == b"1\n"
    assert clock() - began >= 0.2


async def test_it_leads_to_another_server(proxy: Proxy, echo: Echo, connect: Connect) -> None:
    """New connections only: a changed DNS record moves no connection."""
    other = Echo()
    server = await asyncio.start_server(other.serve, "127.0.0.1", 0)
    try:
        old = await connect()
        assert await old.asks(b"1\n") == b"1\n"
        proxy.lead_to("127.0.0.1", server.sockets[0].getsockname()[1])
        assert await old.asks(b"2\n") == b"2\n"
        assert await (await connect()).asks(b"3\n") == b"3\n"
        assert (echo.received, other.received) == ([b"1\n", b"2\n"], [b"3\n"])
    finally:
        proxy.cut()
        server.close()

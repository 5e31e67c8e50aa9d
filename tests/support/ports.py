"""Ports for servers that cannot choose one themselves."""

import asyncio
import random
import socket
from contextlib import ExitStack


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def accepts(port: int) -> bool:
    """Tell whether a program listens on a port of this machine."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def free_ports(count: int) -> int:
    """Return the first of so many ports in a row that are free, below those that the system hands out by itself."""
    for _ in range(100):
        first = random.randrange(10_000, 30_000)  # noqa: S311 - no secret
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError(f"no {count} free ports in a row")

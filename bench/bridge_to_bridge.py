"""Latency of a message from bridge to bridge, and of two bridges of one directory until each has its handle.

    python bench/bridge_to_bridge.py [--messages N] [--runs N]

Two nodes on a Redis of their own, a bridge at each. In turns, a message goes from a raw v1 socket at one node to a raw
v1 socket at the other, and from a `tools/call` line at one bridge to the notification line at the other: medians and
95th percentiles in milliseconds, both from the same run. Before each there is a pause, so that neither waits for what
the other one has left to do.

Then, in turns, one bridge is started and two at once in the same directory: milliseconds from there until everybody can
see them, each under a name of its own. The ratios are what counts; the machine decides the rest.
"""

import argparse
import asyncio
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from conclave.client.v1.handshake import ClientHandshake, Send
from conclave.machine.keys import MachineKey
from conclave.model import Plain, SessionPath, Visibility
from conclave.protocol.v1 import decode, encode
from conclave.protocol.v1.admin import CreateChannel
from conclave.protocol.v1.frames import Admin, ChannelMsg, Established, Frame, Join, Presence, Whisper, Who
from tests.support.bridge_process import configure_home
from tests.support.nodes import cluster
from tests.support.programs import CONCLAVE
from tests.support.redis_server import RedisProcess

SECONDS = 30
PAUSE_SECONDS = 0.03
WARM_UP = 20
NOBODY = SessionPath("x", "y", "z")
GREETING = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "0"}}


class Socket:
    """A raw v1 session."""

    def __init__(self, ws: "aiohttp.ClientWebSocketResponse[bool]") -> None:
        self._ws = ws

    @classmethod
    async def log_in(cls, http: aiohttp.ClientSession, url: str, user: str) -> Self:
        """Connect as a new user."""
        ws = await http.ws_connect(url, compress=0)
        handshake = ClientHandshake("main", MachineKey(os.urandom(32)), (user, "desk"))
        await ws.send_bytes(encode(handshake.hello()))
        while not isinstance(step := handshake.receive(decode(await ws.receive_bytes())), Established):
            if isinstance(step, Send):
                for frame in step.frames:
                    await ws.send_bytes(encode(frame))
        await ws.receive_bytes()  # ServerInfo
        return cls(ws)

    async def send(self, frame: Frame) -> None:
        await self._ws.send_bytes(encode(frame))

    async def ask(self, frame: Frame) -> Frame:
        await self.send(frame)
        return await self.reply()

    async def reply(self) -> Frame:
        """Return the next reply; what others say meanwhile is skipped."""
        while isinstance(reply := decode(await self._ws.receive_bytes()), ChannelMsg | Whisper):
            pass
        return reply

    async def hear(self, text: str) -> None:
        while True:
            frame = decode(await self._ws.receive_bytes())
            if isinstance(frame, ChannelMsg) and frame.payload == Plain(text):
                return


class Bridge:
    """A bridge and the lines that it reads and writes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("pipes were asked for")
        self._stdin, self._stdout = process.stdin, process.stdout

    @classmethod
    @asynccontextmanager
    async def running(cls, home: Path, *arguments: str) -> AsyncIterator[Self]:
        """Start a bridge in its configuration directory; it has been greeted."""
        process = await asyncio.create_subprocess_exec(
            *(str(CONCLAVE), "--config-dir", str(home), "bridge", *arguments),
            cwd=home,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        bridge = cls(process)
        try:
            await bridge.ask("initialize", GREETING)
            bridge.write({"method": "notifications/initialized"})
            yield bridge
        finally:
            bridge._stdin.close()
            await process.wait()

    def write(self, message: dict[str, Any]) -> None:
        self._stdin.write(orjson.dumps({"jsonrpc": "2.0", **message}) + b"\n")

    async def ask(self, method: str, params: dict[str, Any]) -> None:
        """Return when the answer is there."""
        self.write({"id": 1, "method": method, "params": params})
        while "id" not in (message := orjson.loads(await self._stdout.readline())):
            pass
        if message.get("result", {}).get("isError", "result" not in message):
            raise SystemExit(f"the bridge refuses {params}: {message}")

    async def call(self, tool: str, **arguments: str) -> None:
        await self.ask("tools/call", {"name": tool, "arguments": arguments})

    async def hear(self, text: str) -> None:
        while True:
            message = orjson.loads(await self._stdout.readline())
            if message.get("method") == "notifications/claude/channel" and text in message["params"]["content"]:
                return


async def between_sockets(one: Socket, two: Socket, text: str) -> float:
    await asyncio.sleep(PAUSE_SECONDS)
    began = time.perf_counter()
    await one.send(ChannelMsg("sockets", NOBODY, Plain(text)))
    await two.hear(text)
    took = (time.perf_counter() - began) * 1000
    await one.reply()
    return took


async def between_bridges(one: Bridge, two: Bridge, text: str) -> float:
    await asyncio.sleep(PAUSE_SECONDS)
    began = time.perf_counter()
    sending = asyncio.create_task(one.call("send_channel", channel="bridges", text=text))
    await two.hear(text)
    took = (time.perf_counter() - began) * 1000
    await sending
    return took


async def conversation(urls: list[str], home: Path, sockets: list[Socket], count: int) -> list[tuple[float, float]]:
    """Return the milliseconds of each message, between sockets and between bridges."""
    homes = [home / user for user in ("ann", "bob")]
    for each, url in zip(homes, urls, strict=True):
        each.mkdir()
        await configure_home(each, each.name, url)
    await sockets[0].ask(Admin(CreateChannel("sockets", Visibility.PUBLIC)))
    await sockets[0].ask(Admin(CreateChannel("bridges", Visibility.PUBLIC)))
    for socket in sockets:
        await socket.ask(Join("sockets"))
    async with Bridge.running(homes[0], "--as", "one") as one, Bridge.running(homes[1], "--as", "two") as two:
        for bridge in (one, two):
            await bridge.call("join_channel", channel="bridges", perm="converse")
        pairs = []
        for number in range(count + WARM_UP):
            async with asyncio.timeout(SECONDS):
                text = f"number {number}."
                pairs.append(
                    (await between_sockets(sockets[0], sockets[1], text), await between_bridges(one, two, text))
                )
        return pairs[WARM_UP:]


async def settling(home: Path, watcher: Socket, bridges: int) -> float:
    """Return the milliseconds until so many bridges of one directory have as many names."""
    wanted = {"cat/laptop/cat", *(f"cat/laptop/cat-{number}" for number in range(2, bridges + 1))}
    began = time.perf_counter()
    async with asyncio.timeout(SECONDS), AsyncExitStack() as stack:
        starting = [stack.enter_async_context(Bridge.running(home)) for _ in range(bridges)]
        await asyncio.gather(*starting)
        await seen(watcher, wanted)
        took = (time.perf_counter() - began) * 1000
    await seen(watcher, set())
    return took


async def seen(watcher: Socket, wanted: set[str]) -> None:
    """Wait until exactly these sessions of the user `cat` are there."""
    while True:
        reply = await watcher.ask(Who())
        if isinstance(reply, Presence) and {str(path) for path in reply.sessions if path.user == "cat"} == wanted:
            return
        await asyncio.sleep(0.002)


def line(name: str, values: list[float]) -> str:
    high = sorted(values)[math.ceil(0.95 * len(values)) - 1]
    return f"{name:<22}{statistics.median(values):>10.1f}{high:>10.1f}"


def report(title: str, names: tuple[str, str], pairs: list[tuple[float, float]]) -> str:
    first, second = ([pair[column] for pair in pairs] for column in range(2))
    ratio = statistics.median(second) / statistics.median(first)
    head = f"{title:<22}{'median ms':>10}{'p95 ms':>10}"
    return "\n".join([head, line(names[0], first), line(names[1], second), f"{'ratio':<22}{ratio:>10.2f}"])


async def run(messages: int, runs: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        redis = RedisProcess(home / "redis", durable=False)
        await redis.start()
        try:
            async with cluster(redis.url, 2) as nodes, aiohttp.ClientSession() as http:
                urls = [node.url for node in nodes]
                sockets = [await Socket.log_in(http, url, f"raw{number}") for number, url in enumerate(urls)]
                pairs = await conversation(urls, home, sockets, messages)
                sys.stdout.write(report("one message", ("between sockets", "between bridges"), pairs) + "\n\n")
                cat = home / "cat"
                cat.mkdir()
                await configure_home(cat, "cat", urls[0])
                starts = [(await settling(cat, sockets[1], 1), await settling(cat, sockets[1], 2)) for _ in range(runs)]
                sys.stdout.write(report("until seen", ("one bridge", "two, of one directory"), starts) + "\n")
        finally:
            redis.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Time messages between bridges, and bridges that share a name.")
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--runs", type=int, default=10)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.messages, arguments.runs))


if __name__ == "__main__":
    main()

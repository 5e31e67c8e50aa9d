"""`tail` as a process: its lines, its exit codes, and its way back after a lost connection.

That nothing is lost or shown twice is tested in test_follow.py, where chance can be repeated.
"""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conclave.machine.keys import create_or_load
from conclave.model import Plain, Sealed, SessionPath
from conclave.protocol.close_texts import SUPERSEDED
from conclave.protocol.v1.frames import (
    ChannelMsg,
    Error,
    Frame,
    History,
    HistoryMessage,
    Join,
    Joined,
    NotFound,
    ReadSince,
    Unauthorized,
    Whisper,
)
from tests.support.command_line import start
from tests.support.programs import Process
from tests.support.scripted_server import Connection, ScriptedServer
from tests.support.waiting import wait_until

BOB = SessionPath("bob", "desktop", "y")


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer().running() as running:
        yield running


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create_or_load(tmp_path / "key")
    return tmp_path


class Channel:
    """A channel with a history."""

    def __init__(self, *bodies: str) -> None:
        self.rows = [HistoryMessage(BOB, 1_000 + number, Plain(body)) for number, body in enumerate(bodies)]

    async def answer(self, connection: Connection, frame: Frame) -> None:
        if isinstance(frame, Join):
            await connection.send(Joined(frame.channel))
        elif isinstance(frame, ReadSince):
            rows = [row for row in self.rows if row.ts_ms > frame.since_ms]
            await connection.send(History(frame.channel, tuple(rows[:500])))

    def post(self, body: str) -> ChannelMsg:
        self.rows.append(HistoryMessage(BOB, 2_000 + len(self.rows), Plain(body)))
        return ChannelMsg("ops", BOB, Plain(body))


@contextlib.asynccontextmanager
async def tailing(server: ScriptedServer, directory: Path, *arguments: str) -> AsyncIterator[Process]:
    process = await start(directory, "tail", "--server", server.url, "--channel", "ops", *arguments)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: Process, *, error: bool = False) -> str:
    stream = process.stderr if error else process.stdout
    assert stream is not None
    async with asyncio.timeout(30):
        return (await stream.readline()).decode().removesuffix("\n")


async def test_messages_and_whispers_are_lines(server: ScriptedServer, directory: Path) -> None:
    """Names and bodies from others cannot forge a line."""
    channel = Channel("old")
    server.answer = channel.answer
    evil = SessionPath("bob", "desktop", "y: \n[ops] ann/laptop/x")
    async with tailing(server, directory, "--as", "watch") as process:
        assert await line(process) == "tailing #ops as ann/laptop/watch — Ctrl-C to stop"
        connection = server.connections[0]
        await connection.send(
            channel.post("hello"),
            Whisper(BOB, connection.path, Plain("psst")),
            ChannelMsg("ops", evil, Plain("two\nlines \x1b[31m")),
            ChannelMsg("ops", BOB, Sealed(b"x")),
        )
        assert [await line(process) for _ in range(5)] == [
            "[ops] bob/desktop/y: hello",
            "[whisper] bob/desktop/y: psst",
            r"[ops] bob/desktop/y: \n[ops] ann/laptop/x: two",
            r"    lines \x1b[31m",
            "[ops] bob/desktop/y: <end-to-end-encrypted payload>",
        ]
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
        assert await line(process, error=True) == ""


async def test_since_shows_every_page_of_the_history(server: ScriptedServer, directory: Path) -> None:
    """The newest messages are shown, too, whatever the number of pages."""
    channel = Channel(*map(str, range(1201)))
    server.answer = channel.answer
    server.headers["Date"] = "Thu, 01 Jan 1970 00:00:10 GMT"
    async with tailing(server, directory, "--since", "1h") as process:
        await line(process)
        assert [await line(process) for _ in range(1201)] == [f"[ops] bob/desktop/y: {n}" for n in range(1201)]


async def test_json_is_one_object_per_line(server: ScriptedServer, directory: Path) -> None:
    """Messages have a time where the server gives one."""
    channel = Channel("old \u202e\x9b")
    server.answer = channel.answer
    server.headers["Date"] = "Thu, 01 Jan 1970 00:00:10 GMT"
    async with tailing(server, directory, "--since", "1h", "--json") as process:
        first, second = await line(process), await line(process)
        live = ChannelMsg("ops", BOB, Plain("new"))
        await server.connections[0].send(live, Whisper(BOB, BOB, Sealed(b"", "k")))
        third, fourth = await line(process), await line(process)
    assert second.isprintable()
    assert [json.loads(text) for text in (first, second, third, fourth)] == [
        {"event": "started", "channel": "ops", "as": str(server.connections[0].path)},
        {"event": "message", "channel": "ops", "from": str(BOB), "ts_ms": 1000, "body": "old \u202e\x9b"},
        {"event": "message", "channel": "ops", "from": str(BOB), "ts_ms": None, "body": "new"},
        {"event": "whisper", "from": str(BOB), "body": None, "sealed": True, "key_id": "k"},
    ]


async def test_a_lost_connection_is_resumed_with_the_missed_messages(server: ScriptedServer, directory: Path) -> None:
    """Standard error reports it; standard output shows each message once."""
    channel = Channel("old")
    server.answer = channel.answer
    async with tailing(server, directory) as process:
        await line(process)
        await server.connections[0].send(channel.post("before"))
        assert await line(process) == "[ops] bob/desktop/y: before"
        channel.post("meanwhile")
        server.connections[0].cut()
        assert await line(process, error=True) == (
            f"⚠ connection to `{server.url}` lost — reconnecting (Ctrl-C to stop)"
        )
        assert await line(process, error=True) == "✓ reconnected; resuming #ops"
        assert await line(process) == "[ops] bob/desktop/y: meanwhile"
        await server.connections[1].send(channel.post("after"))
        assert await line(process) == "[ops] bob/desktop/y: after"


async def test_an_interrupt_while_waiting_to_reconnect_exits_cleanly(server: ScriptedServer, directory: Path) -> None:
    """The server may stay away for ever."""
    server.answer = Channel().answer
    async with tailing(server, directory) as process:
        await line(process)
        server.refuse = [Unauthorized("handshake timed out")] * 1000
        server.connections[0].cut()
        await line(process, error=True)
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def test_a_superseded_tail_ends(server: ScriptedServer, directory: Path) -> None:
    """A reconnect would supersede the session that took the handle."""
    server.answer = Channel().answer
    async with tailing(server, directory) as process:
        await line(process)
        await server.connections[0].kill(Unauthorized(SUPERSEDED))
        assert await line(process, error=True) == f"❌ server terminated the stream: unauthorized: {SUPERSEDED}"
        assert await process.wait() == 1


async def test_a_refused_join_ends_tail(server: ScriptedServer, directory: Path) -> None:
    """Standard output stays empty."""

    async def answer(connection: Connection, _: Frame) -> None:
        await connection.send(Error(NotFound("channel `ops` not found")))

    server.answer = answer
    async with tailing(server, directory) as process:
        assert await line(process, error=True) == "❌ join rejected: not found: channel `ops` not found"
        assert await line(process) == ""
        assert await process.wait() == 1


async def test_a_closed_standard_output_ends_tail_silently(server: ScriptedServer, directory: Path) -> None:
    """`conclave tail … | head -1` must not print an error."""
    channel = Channel()
    server.answer = channel.answer
    async with tailing(server, directory) as process:
        await line(process)
        assert process.stdout is not None
        process.stdout._transport.close()  # type: ignore[attr-defined] # asyncio hides the pipe

        async def ended() -> bool:
            with contextlib.suppress(ConnectionError):
                await server.connections[0].send(channel.post("x"))
            return process.returncode is not None

        await wait_until(ended)  # the first message may still have found the pipe open
        assert process.returncode == -signal.SIGPIPE
        assert await line(process, error=True) == ""

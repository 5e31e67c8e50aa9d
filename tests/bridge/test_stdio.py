"""The bridge as a process: streams of every kind, and an end that nothing can hold up."""

import asyncio
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
import tty
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from bridge.mcp.stdio import CALLS, GREETING_SECONDS
from tests.bridge.child import INITIALIZE, PROGRAM, SECONDS, Child, call, line, reading, started, text_of
from tests.support.waiting import pause, wait_until

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def descriptors() -> Any:
    """Return a place for descriptors that are closed at the end."""
    with ExitStack() as stack:
        yield stack


def pipe(stack: ExitStack) -> tuple[int, int]:
    """Make a pipe whose ends are closed at the end, if the test did not."""
    ends = os.pipe()
    for end in ends:
        stack.callback(close, end)
    return ends


def close(descriptor: int) -> None:
    with suppress(OSError):
        os.close(descriptor)


async def test_a_whole_conversation(tmp_path: Path) -> None:
    """The sequence of Claude Code: probe, initialize, list, call, and events in the order in which they were pushed."""
    async with started(tmp_path, "early") as child:
        assert (await child.ask(line("probe", "server/discover")))["error"]["code"] == -32601
        assert (await child.ask(line(0, **INITIALIZE)))["result"]["instructions"] == "Say something with echo."
        assert (await child.ask(line(1, "ping"))) == {"jsonrpc": "2.0", "id": 1, "result": {}}
        child.write(line(None, "notifications/initialized"))
        early = [(await child.read())["params"] for _ in range(3)]
        assert early == [{"content": f"early {number}", "meta": {"kind": "link"}} for number in range(3)]
        assert (await child.ask(line(2, "tools/list")))["result"]["tools"][0]["name"] == "echo"
        assert text_of(await child.ask(call(3, "echo", text="grüß dich 🐙"))) == "grüß dich 🐙"
        child.write(call(4, "push", count=2))
        assert [(await child.read())["method"] for _ in range(3)] == [
            *["notifications/claude/channel"] * 2,
            "notifications/tools/list_changed",
        ]
        assert text_of(await child.read()) == "pushed"
        child.close()
        assert await child.read() is None
        assert await child.end() == 0


async def test_malformed_input_is_answered_and_the_bridge_goes_on(tmp_path: Path) -> None:
    """The original ended at the first byte that is no UTF-8, and never answered what it did not understand."""
    async with started(tmp_path) as child:
        assert (await child.ask(b"\xff\xfe\n"))["error"]["code"] == -32700
        assert (await child.ask(b"\n\r\n[]\n"))["error"]["code"] == -32600
        assert text_of(await child.ask(call(1, "echo", text="?").replace(b"?", b"\xe9 \\ud83d"))) == "\ufffd \ufffd"
        assert (await child.ask(line(2, "tools/call")))["error"]["code"] == -32602


async def test_a_line_over_the_limit_costs_no_memory_and_one_answer(tmp_path: Path) -> None:
    """A client that forgot its line feeds must not take the machine's memory."""
    async with started(tmp_path) as child:
        await child.begin()
        before = child.most_resident_kib()
        for _ in range(96):
            child.write(b'{"method": "' + b"x" * (1 << 20))
            assert child.process.stdin is not None
            await child.process.stdin.drain()
        answer = await child.ask(b'"}\n')
        assert (answer["id"], answer["error"]["code"]) == (None, -32600)
        assert (await child.ask(line(1, "ping")))["id"] == 1
        assert child.most_resident_kib() - before < 64 * 1024, "96 MiB were sent"


async def test_a_long_line_is_read(tmp_path: Path) -> None:
    """The default of asyncio is 64 KiB; a message may have a megabyte, and more when it is escaped."""
    async with started(tmp_path) as child:
        text = "ä" * (4 << 20)
        assert text_of(await child.ask(call(1, "echo", text=text))) == text


async def test_calls_run_side_by_side_and_are_answered_once(tmp_path: Path) -> None:
    """A call that waits for a server must not keep the others waiting."""
    async with started(tmp_path) as child:
        child.write(call(1, "wait"), call(2, "echo", text="quick"))
        assert (await child.read())["id"] == 2
        child.write(line(1, "ping"))
        assert (await child.read())["error"]["code"] == -32600


async def test_a_failure_inside_a_tool_is_an_error_for_the_model(tmp_path: Path) -> None:
    """The log has the defect; the model gets an answer in any case."""
    async with started(tmp_path) as child:
        failed = await child.ask(call(1, "echo"))
        assert failed["result"] == {"content": [{"type": "text", "text": "internal error"}], "isError": True}
        gave_up = await child.ask(call(2, "give_up"))
        assert gave_up["result"]["isError"]
        assert "KeyError" in child.errors
        assert text_of(await child.ask(call(3, "echo", text="still here"))) == "still here"


async def test_a_cancelled_call_stops_without_an_answer(tmp_path: Path) -> None:
    """Also one that is cancelled in the breath in which it is made, before it ever ran."""
    async with started(tmp_path) as child:
        child.write(call(1, "wait"))
        await wait_until(lambda: "call wait" in child.errors)
        child.write(line(None, "notifications/cancelled", {"requestId": 1}))
        await wait_until(lambda: "cancelled wait" in child.errors)
        for _ in range(300):  # more than may be open
            child.write(call(2, "wait"), line(None, "notifications/cancelled", {"requestId": 2}))
        assert (await child.ask(line(3, "ping")))["id"] == 3
        child.close()
        assert await child.read_to_end() == []
        assert child.errors.count("call wait") < 300, "none was cancelled before it ran: this tested nothing"


async def test_nothing_but_mcp_reaches_stdout(tmp_path: Path) -> None:
    """A library that prints, or a child process that inherits stdout, would break every line after it."""
    async with started(tmp_path) as child:
        assert text_of(await child.ask(call(1, "print"))) == "printed; a child read 0 bytes"
        for stray in ("stray print", "stray write", "stray child"):
            assert stray in child.errors
        child.close()
        assert await child.read_to_end() == []


@pytest.mark.parametrize("last", [b"\n", b""])
async def test_files_in_and_out(tmp_path: Path, last: bytes) -> None:
    """`conclave bridge < requests.jsonl > replies.jsonl`: every request is answered, the last line feed or not."""
    requests = [line(0, **INITIALIZE), *(call(number, "echo", text=str(number)) for number in range(1, 1000))]
    (tmp_path / "requests").write_bytes(b"".join(requests).rstrip(b"\n") + last)
    with (tmp_path / "requests").open("rb") as stdin, (tmp_path / "replies").open("wb") as stdout:
        async with started(tmp_path, stdin=stdin.fileno(), stdout=stdout.fileno()) as child:
            assert await child.end() == 0
    replies = [orjson.loads(reply) for reply in (tmp_path / "replies").read_bytes().splitlines()]
    assert sorted(reply["id"] for reply in replies) == list(range(1000))
    assert all(text_of(reply) == str(reply["id"]) for reply in replies[1:])


async def test_stdin_may_be_dev_null(tmp_path: Path) -> None:
    """It can be neither polled nor connected as a pipe, and is what a service manager gives."""
    async with started(tmp_path, stdin=DEVNULL) as child:
        assert await child.end() == 0
        assert "Traceback" not in child.errors


async def test_stdin_and_stdout_may_be_one_socket(tmp_path: Path) -> None:
    """Some clients give a child a socket pair instead of pipes."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
    try:
        async with started(tmp_path, stdin=theirs.fileno(), stdout=theirs.fileno()) as child:
            theirs.close()
            writer.write(call(1, "repeat", size=300_000))
            async with asyncio.timeout(SECONDS):
                assert len(await reader.readline()) > 300_000
            writer.write_eof()
            assert await child.end() == 0
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_terminal_is_left_as_it_was(tmp_path: Path, descriptors: ExitStack) -> None:
    """A user at a terminal gets the shell back: stdin and stdout of a terminal are one description."""
    ours, theirs = pty.openpty()
    descriptors.callback(close, theirs)
    tty.setraw(theirs)
    async with started(tmp_path, stdin=theirs, stdout=theirs) as child, reading(os.dup(ours)) as reader:
        os.write(ours, line(1, "ping"))
        async with asyncio.timeout(SECONDS):
            assert orjson.loads(await reader.readline())["id"] == 1
        assert os.get_blocking(theirs)
        child.process.send_signal(signal.SIGINT)
        assert await child.end() == 0
        assert os.get_blocking(theirs)
    os.close(ours)


@pytest.mark.parametrize("blocking", [True, False])
async def test_pipes_keep_the_mode_that_they_have(tmp_path: Path, descriptors: ExitStack, blocking: bool) -> None:
    """Blocking mode belongs to the pipe, not to the process: others may hold the same pipe."""
    (stdin, requests), (replies, stdout) = pipe(descriptors), pipe(descriptors)
    os.set_blocking(stdin, blocking)
    os.set_blocking(stdout, blocking)
    async with started(tmp_path, stdin=stdin, stdout=stdout) as child, reading(os.dup(replies)) as reader:
        for number in range(2):
            os.write(requests, call(number, "repeat", size=300_000))
            async with asyncio.timeout(SECONDS):
                assert len(await reader.readline()) > 300_000
            assert (os.get_blocking(stdin), os.get_blocking(stdout)) == (blocking, blocking)
        os.close(requests)
        assert await child.end() == 0
    assert (os.get_blocking(stdin), os.get_blocking(stdout)) == (blocking, blocking)


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_ends_it_while_stdin_is_open_and_silent(tmp_path: Path, number: signal.Signals) -> None:
    """The original went on reading until the next input."""
    async with started(tmp_path) as child:
        await child.begin()
        child.write(call(1, "wait"))
        await wait_until(lambda: "call wait" in child.errors and "ready" in child.errors)
        child.process.send_signal(number)
        answer = await child.read()
        assert (answer["id"], answer["result"]["isError"]) == (1, True)
        assert "shutting down" in text_of(answer)
        assert await child.end() == 0
        assert "cancelled wait" in child.errors
        assert "ready cancelled" in child.errors


@pytest.mark.parametrize("number", [*SIGNALS, None])
async def test_it_ends_although_its_stdout_is_not_read(
    tmp_path: Path, descriptors: ExitStack, number: signal.Signals | None
) -> None:
    """The pipe is full and stays so: the write that is under way never returns. None is the end of stdin."""
    (stdin, requests), (replies, stdout) = pipe(descriptors), pipe(descriptors)
    async with started(tmp_path, stdin=stdin, stdout=stdout) as child:
        os.close(stdin)
        os.write(requests, line(1, "ping"))
        assert await asyncio.to_thread(os.read, replies, 1)
        os.write(requests, call(1, "repeat", size=1 << 20) + call(2, "wait"))
        await wait_until(lambda: "call repeat" in child.errors and "call wait" in child.errors)
        if number is None:
            os.close(requests)
        else:
            child.process.send_signal(number)
            await wait_until(lambda: "cancelled wait" in child.errors)
            os.write(requests, line(3, "ping"))  # too late to be read
        assert await child.end() == 0
        assert "rror" not in child.errors


async def test_a_call_gets_a_moment_to_finish_when_stdin_ends(tmp_path: Path) -> None:
    """`echo request | conclave bridge` should show the answer; a call that takes longer gets an error."""
    async with started(tmp_path) as child:
        child.write(call(1, "soon"), call(2, "wait"), line(3, "ping"))
        child.close()
        answers = {answer["id"]: answer for answer in await child.read_to_end()}
        assert set(answers) == {1, 2, 3}
        assert text_of(answers[1]) == "done in time"
        assert answers[2]["result"]["isError"]
        assert await child.end() == 0


async def test_more_calls_than_may_be_open_hold_nothing_up(tmp_path: Path) -> None:
    """A server hangs, and its calls with it: the bridge still reads its input, and above all its end."""
    async with started(tmp_path) as child:
        child.write(*(call(number, "wait") for number in range(CALLS + 2)))
        refused = [await child.read() for _ in range(2)]
        assert [answer["id"] for answer in refused] == [CALLS, CALLS + 1]
        assert all("256 calls are open" in text_of(answer) and answer["result"]["isError"] for answer in refused)
        assert (await child.ask(line("ping", "ping")))["id"] == "ping"
        child.write(line(None, "notifications/cancelled", {"requestId": 7}))
        await wait_until(lambda: "cancelled wait" in child.errors)
        child.write(call("again", "wait"))
        child.close()
        answers = await child.read_to_end()
        assert len(answers) == CALLS
        assert all(answer["result"]["isError"] for answer in answers)
        assert "256 calls" not in str(answers), "one was given up and made room"
        assert await child.end() == 0


@pytest.mark.parametrize("name", ["stubborn", "executor"])
async def test_calls_that_do_not_end_are_left_behind(tmp_path: Path, name: str) -> None:
    """A look-up of a name can hang in a thread for minutes; the interpreter would wait for it."""
    async with started(tmp_path) as child:
        child.write(call(1, name))
        await wait_until(lambda: f"call {name}" in child.errors)
        child.process.send_signal(signal.SIGTERM)
        assert (await child.read())["result"]["isError"]
        assert await child.end() == 0


async def test_a_slow_client_gets_everything_that_is_due(tmp_path: Path, descriptors: ExitStack) -> None:
    """The end waits for as long as something is taken: `conclave bridge < requests | less` shows it all."""
    replies, stdout = pipe(descriptors)
    async with started(tmp_path, stdout=stdout) as child:
        os.close(stdout)
        child.write(call(1, "repeat", size=300_000))
        child.close()
        await wait_until(lambda: "call repeat" in child.errors)
        received = b""
        while chunk := os.read(replies, 8192):
            received += chunk
            await pause(0.05)
        assert len(text_of(orjson.loads(received))) == 300_000
        assert await child.end() == 0


async def test_a_client_that_is_gone_ends_it_quietly(tmp_path: Path) -> None:
    """A session that was closed is no error, and no traceback for the next one to wonder about."""
    replies, stdout = os.pipe()
    async with started(tmp_path, stdout=stdout) as child:
        os.close(stdout)
        os.close(replies)
        child.write(line(1, "ping"))
        assert await child.end() == 0
        assert child.errors == "orderly end\n"


async def test_a_full_disk_is_an_error(tmp_path: Path, descriptors: ExitStack) -> None:
    """Answers that could not be written must not look like success."""
    full = os.open("/dev/full", os.O_WRONLY)
    descriptors.callback(close, full)
    async with started(tmp_path, stdout=full) as child:
        child.write(line(1, "ping"))
        assert await child.end() == 1
        assert child.errors == "cannot write to the client: No space left on device\norderly end\n"


async def test_a_stdin_that_cannot_be_read_is_an_error(tmp_path: Path, descriptors: ExitStack) -> None:
    """A bridge that ends at once needs a reason on stderr."""
    write_only = os.open("/dev/null", os.O_WRONLY)
    descriptors.callback(close, write_only)
    async with started(tmp_path, stdin=write_only) as child:
        assert await child.end() == 1
        assert child.errors == "cannot read from the client: Bad file descriptor\norderly end\n"


async def test_a_socket_that_is_reset_is_the_end_of_the_client(tmp_path: Path) -> None:
    """Closing a socket with something unread resets it; that is how a killed client ends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with started(tmp_path, stdin=theirs.fileno(), stdout=theirs.fileno()) as child:
            theirs.close()
            ours.sendall(call(1, "wait") + line(2, "ping"))
            await wait_until(lambda: select.select([ours], [], [], 0)[0])
            ours.close()
            assert await child.end() == 0
            assert "cannot" not in child.errors


async def test_answers_that_are_not_read_are_bounded(tmp_path: Path, descriptors: ExitStack) -> None:
    """Reading waits for the client to take what it asked for; then every request is answered all the same."""
    replies, stdout = pipe(descriptors)
    async with started(tmp_path, stdout=stdout) as child:
        os.close(stdout)
        child.write(*(call(number, "repeat", size=200_000) for number in range(700)))
        await wait_until(lambda: "call repeat" in child.errors)
        async with asyncio.timeout(SECONDS * 2), reading(os.dup(replies)) as reader:
            ids = [orjson.loads(await reader.readline())["id"] for _ in range(700)]
        assert sorted(ids) == list(range(700))
        assert child.most_resident_kib() < 110 * 1024, "140 MB were asked for"


async def test_events_that_are_not_read_are_bounded(tmp_path: Path, descriptors: ExitStack) -> None:
    """A busy channel must not fill the memory of a machine whose session hangs; a notice counts the missing ones."""
    replies, stdout = pipe(descriptors)
    async with started(tmp_path, stdout=stdout) as child:
        os.close(stdout)
        child.write(line(0, **INITIALIZE), line(None, "notifications/initialized"))
        child.write(*(call(number, "push", count=100, size=10_000) for number in range(1, 101)))
        await wait_until(lambda: child.errors.count("call push") == 100)
        child.close()
        async with asyncio.timeout(SECONDS), reading(os.dup(replies)) as reader:
            received = [orjson.loads(reply) for reply in (await reader.read()).splitlines()]
        contents = [message["params"]["content"] for message in received if "params" in message]
        dropped = [int(content.split()[0]) for content in contents if "dropped here" in content]
        assert dropped
        assert len(contents) - len(dropped) + sum(dropped) == 10_000
        assert [message["id"] for message in received if "id" in message] == list(range(101))


async def test_the_rest_begins_when_initialize_was_answered(tmp_path: Path, descriptors: ExitStack) -> None:
    """Further imports take longer than the answer to `initialize`, for which the client waits."""
    replies, stdout = pipe(descriptors)
    os.set_blocking(stdout, False)
    while _fill(stdout):
        pass
    began = time.monotonic()
    async with started(tmp_path, stdout=stdout) as child:
        child.write(line(1, "ping"), line(0, **INITIALIZE))
        child.write(call(2, "wait"))
        await wait_until(lambda: "call wait" in child.errors)
        assert "ready" not in child.errors or time.monotonic() - began > GREETING_SECONDS
        await asyncio.to_thread(os.read, replies, 1 << 20)
        await wait_until(lambda: "ready" in child.errors)


async def test_the_rest_begins_without_a_greeting_too_but_later(tmp_path: Path) -> None:
    """A client that waits for something first must not keep the links from being made."""
    began = time.monotonic()
    async with started(tmp_path) as child:
        assert (await child.ask(line(1, "ping")))["id"] == 1
        assert text_of(await child.ask(call(2, "echo", text="x"))) == "x"
        assert "ready" not in child.errors or time.monotonic() - began > GREETING_SECONDS
        await wait_until(lambda: "ready" in child.errors)


@pytest.mark.parametrize(
    ("mode", "log"), [("refuses", "no known server\n"), ("fails", "the bridge cannot go on\nTraceback")]
)
async def test_a_failure_is_reported_after_all_waiting_output(tmp_path: Path, mode: str, log: str) -> None:
    """The client shows stderr; a reason is a sentence, a bug a traceback."""
    async with started(tmp_path, mode) as child:
        child.write(line(0, **INITIALIZE), call(1, "wait"))
        answers = await child.read_to_end()
        assert [answer["id"] for answer in answers] == [0, 1]
        assert answers[1]["result"]["isError"]
        assert await child.end() == 1
        assert log in child.errors


@pytest.mark.parametrize(
    ("closed", "code", "says"),
    [("2>&-", 0, ""), ("<&-", 1, "MCP needs both stdin and stdout"), (">&-", 1, "MCP needs both stdin and stdout")],
)
async def test_a_stream_that_is_closed_from_the_start(tmp_path: Path, closed: str, code: int, says: str) -> None:
    """Without stderr it works; without the others there is a sentence instead of a wrong file being written."""
    script = f'"{sys.executable}" "{PROGRAM}" {closed}'
    finished = await asyncio.to_thread(
        subprocess.run,
        ["/bin/sh", "-c", script],
        input=call(1, "repeat", size=1),
        capture_output=True,
        check=False,
        timeout=SECONDS,
        cwd=tmp_path,
    )
    assert finished.returncode == code
    assert says in finished.stderr.decode()
    if not code:
        assert text_of(orjson.loads(finished.stdout)) == "x"


async def test_it_answers_before_the_late_imports() -> None:
    """Every open session of a machine has a bridge, and waits for it to begin."""
    script = "import sys, bridge.mcp.stdio; print(*sorted(name.partition('.')[0] for name in sys.modules))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=PIPE)
    imported, _ = await process.communicate()
    assert {"asyncio", "orjson", "bridge"} <= set(imported.decode().split())
    assert not {"aiohttp", "click", "msgspec", "nacl", "pydantic", "structlog"} & set(imported.decode().split())


async def test_it_ends_in_order(tmp_path: Path) -> None:
    """Nothing had to be left behind, and no task was forgotten (which would be a line on stderr), however it ends."""
    for ending in ("stdin", *SIGNALS):
        async with started(tmp_path) as child:
            await child.begin()
            child.write(call(1, "wait"))
            await wait_until(lambda child=child: "ready" in child.errors and "call wait" in child.errors)  # type: ignore[misc]
            _end(child, ending)
            assert await child.end() == 0
            assert sorted(child.errors.split("\n")) == [
                *("", "call wait", "cancelled wait", "orderly end", "ready", "ready cancelled")
            ]


def _end(child: Child, ending: object) -> None:
    if isinstance(ending, signal.Signals):
        child.process.send_signal(ending)
    else:
        child.close()


def _fill(descriptor: int) -> bool:
    try:
        return os.write(descriptor, b"\n") > 0
    except BlockingIOError:
        return False

"""`conclave` as a process: forked from a server that has imported it, or started as it is installed."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from tests.support.fork_server import NUMBER, Request, send_request

ROOT = Path(__file__).parents[2]
CONCLAVE = Path(sys.executable).with_name("conclave")
"""The command as it is installed."""
PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL

_INTERPRETER = {"PYTHONUTF8": "1"}
"""The command line of the fork server's interpreter."""

Stream = int | IO[bytes] | None
"""As for subprocess: PIPE, DEVNULL, a descriptor or file, or None for this process's own."""


class Forked:
    """A forked `conclave`, with the interface of `asyncio.subprocess.Process`."""

    def __init__(self, status: socket.socket, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._ended = asyncio.Event()
        self._status = status
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(status, self._read_status)

    def _read_status(self) -> None:
        told = self._status.recv(NUMBER.size)
        self.returncode = NUMBER.unpack(told)[0] if told else -signal.SIGKILL
        self._loop.remove_reader(self._status)
        self._status.close()
        self._ended.set()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it is known to have ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for its end; return its exit code, negative for a signal."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """Close its standard input, and return its output until its end."""
        if self.stdin is not None:
            self.stdin.close()
        out, err, _ = await asyncio.gather(_all(self.stdout), _all(self.stderr), self.wait())
        return out, err


Process = Forked | asyncio.subprocess.Process


async def _all(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()


async def launch(
    *arguments: str, program: Sequence[str] = (str(CONCLAVE),), **settings: Any
) -> asyncio.subprocess.Process:
    """Start the installed `conclave`, or another program; the rest as for `create_subprocess_exec`."""
    return await asyncio.create_subprocess_exec(*program, *arguments, **settings)


async def fork(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    start_new_session: bool = False,
    limit: int = 64 * 1024,
) -> Forked:
    """Run `conclave` with these arguments in a forked process; the rest as for `create_subprocess_exec`."""
    environment = dict(os.environ if env is None else env)
    for name, value in environment.items():
        known = {os.environ.get(name), _INTERPRETER.get(name)}
        assert not name.startswith("PYTHON") or value in known, f"{name} needs an interpreter of its own"
    request = Request(list(arguments), environment, str(cwd or Path.cwd()), start_new_session)
    with ExitStack() as stack:
        told, tells = socket.socketpair()
        stack.callback(tells.close)
        ours: list[int | None] = []
        theirs = [tells.fileno()]
        for number, stream in enumerate((stdin, stdout, stderr)):
            our_end, their_end = _stream(stack, stream, number)
            ours.append(our_end)
            theirs.append(their_end)
        send_request(_channel(), request, theirs)
    told.setblocking(False)
    pid = await asyncio.get_running_loop().sock_recv(told, NUMBER.size)
    assert pid, "the fork server has ended"
    process = Forked(told, NUMBER.unpack(pid)[0])
    if ours[0] is not None:
        process.stdin = await _writer(ours[0])
    if ours[1] is not None:
        process.stdout = await _reader(ours[1], limit)
    if ours[2] is not None:
        process.stderr = await _reader(ours[2], limit)
    return process


def _stream(stack: ExitStack, stream: Stream, number: int) -> tuple[int | None, int]:
    """Return our end and the child's end, which is closed with the stack if it was opened here."""
    if stream == PIPE:
        read, write = os.pipe()
        ours, theirs = (write, read) if number == 0 else (read, write)
        stack.callback(os.close, theirs)
        return ours, theirs
    if stream == DEVNULL:
        null = os.open(os.devnull, os.O_RDWR)
        stack.callback(os.close, null)
        return None, null
    if stream is None:
        return None, number
    return None, stream if isinstance(stream, int) else stream.fileno()


async def _reader(descriptor: int, limit: int) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0))
    return reader


async def _writer(descriptor: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(descriptor, "wb", 0)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


class _Server:
    """The fork server of this test process; started when it is first needed."""

    process: "subprocess.Popen[bytes] | None" = None
    channel: socket.socket | None = None


def _channel() -> socket.socket:
    if _Server.channel is None:
        _Server.channel, theirs = socket.socketpair()
        with theirs:
            _Server.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=DEVNULL,
                start_new_session=True,
                env={**os.environ, **_INTERPRETER},
            )
    return _Server.channel


def end_fork_server() -> None:
    """End the server, if it was started, and the processes that it has forked."""
    if _Server.channel is not None and _Server.process is not None:
        _Server.channel.close()
        _Server.process.wait(timeout=60)
        _Server.channel = _Server.process = None

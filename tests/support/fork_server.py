"""A process that has imported the whole program, and forks a child for each command line that it is asked for.

Importing a node takes over a second of CPU, and forking one some milliseconds. A child is a process like one of the
installed command: its own id, session, environment, streams, signals, exit code and interpreter's end. It differs in
what only a new interpreter does, such as reading PYTHON* variables or finding that a module is missing.

The server's only argument is the number of a Unix socket. Each request on it is a length, JSON, and file descriptors:
a socket on which the child's id and later its exit code are told, and its three standard streams. When the socket
ends, so do the server and all its children.
"""

import atexit
import gc
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from typing import NamedTuple, NoReturn

PACKAGES = ("conclave", "relay", "bridge", "cli")
LENGTH = struct.Struct("!I")
NUMBER = struct.Struct("!i")
"""The report on a child: its id, then its exit code, negative for a signal."""
DESCRIPTORS = 4


class Request(NamedTuple):
    """A command line, and the process that is to run it."""

    arguments: list[str]
    environment: dict[str, str]
    directory: str | None
    new_session: bool


def send_request(channel: socket.socket, request: Request, descriptors: list[int]) -> None:
    """Ask for a child. The descriptors are those of the module's description, and stay the caller's to close."""
    body = json.dumps(request).encode()
    socket.send_fds(channel, [LENGTH.pack(len(body))], descriptors)
    channel.sendall(body)


class Server:
    """Forks, and reports the end of each child."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._children: dict[int, socket.socket] = {}

    def run(self) -> Request | None:
        """Serve until the channel ends. Returns a request in each child, and None in the server."""
        ended, tell_end = socket.socketpair()
        ended.setblocking(False)
        tell_end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(tell_end.fileno())
        while True:
            readable, _, _ = select.select([self._channel, ended], [], [])
            if ended in readable:
                ended.recv(4096)
                self._report_ended()
            if self._channel in readable:
                header, descriptors, _, _ = socket.recv_fds(self._channel, LENGTH.size, DESCRIPTORS)
                if not header:
                    self._kill_all()
                    return None
                request = Request(*json.loads(_receive(self._channel, *LENGTH.unpack(header))))
                if self._fork(descriptors) == 0:
                    return request

    def _fork(self, descriptors: list[int]) -> int:
        child = os.fork()
        if child == 0:
            _take_over(descriptors[1:])
            return 0
        status = socket.socket(fileno=descriptors[0])
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        self._children[child] = status
        _tell(status, child)
        return child

    def _report_ended(self) -> None:
        while self._children:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                return
            with self._children.pop(child) as told:
                _tell(told, os.waitstatus_to_exitcode(status))

    def _kill_all(self) -> None:
        for child in self._children:
            os.kill(child, signal.SIGKILL)


def _tell(whom: socket.socket, number: int) -> None:
    try:
        whom.sendall(NUMBER.pack(number))
    except OSError:  # a test that has failed and gone
        return


def _receive(channel: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += channel.recv(size - len(received))
    return received


def _take_over(streams: list[int]) -> None:
    """In a child: close the server's descriptors, and take these as standard streams."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in a shell's background ignores it
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(3, max(int(name) for name in os.listdir("/dev/fd")) + 1)  # noqa: PTH208 - names only
    # New objects, because a stream decides when it is opened whether it is a terminal's.
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc] # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # type: ignore[misc] # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # type: ignore[misc] # noqa: SIM115
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


def become(request: Request) -> None:
    """In a child: have the session, directory, environment and arguments that were asked for."""
    if request.new_session:
        os.setsid()
    if request.directory is not None:
        os.chdir(request.directory)
    os.environ.clear()
    os.environ.update(request.environment)
    time.tzset()
    sys.argv = ["conclave", *request.arguments]


def import_program() -> None:
    """Import every module of the program that is not itself one to run."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
            if not module.name.endswith(("__main__", ".child")):
                import_module(module.name)
    import_module("tests.support.forked_workers")


def _measure_coverage() -> None:
    """If the server is measured, measure each child from its fork on, in a file of its own."""
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        from coverage.control import _after_fork_in_child  # noqa: PLC0415 - as its own `patch = fork` does

        os.register_at_fork(after_in_child=_after_fork_in_child)


def run(request: Request) -> NoReturn:
    """In a child: run the command line, and end with its exit code."""
    become(request)
    from cli.main import main as command_line  # noqa: PLC0415 - what the server itself needs nothing of
    from tests.support.forked_workers import fork_workers  # noqa: PLC0415 - as above

    fork_workers()

    code: object
    try:
        code = command_line()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 - as at the end of every interpreter
        sys.excepthook(*sys.exc_info())
        code = 1
    end_child(code)


def end_child(code: object) -> NoReturn:
    """In a child: end as an interpreter does, but without taking every object apart.

    That would copy all the memory that the child shares with the server, which costs more than most commands do.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)


def main() -> None:
    """Serve; in a child, run its command line."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    import_program()
    _measure_coverage()
    gc.collect()
    gc.freeze()  # a child's collector leaves alone, and so shares, what is there by now
    request = Server(channel).run()
    if request is not None:
        run(request)


if __name__ == "__main__":
    main()

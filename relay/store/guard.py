"""A guard between a node and its server: it ends the server when the node is gone, for whatever reason.

A program of its own, started by path: `python -I guard.py LOCK_FD GRACE_SECONDS PROGRAM ARGUMENT...`. Its standard
input is a pipe whose other end only the node holds. The end of that pipe means "stop the server": the node closed it,
or the node died, kill -9 included. On Linux, the server also ends when the guard is killed.

The guard ignores the signals of terminals and service managers, because a draining node still needs its server.
LOCK_FD is a locked file that the server inherits: the kernel keeps it locked for as long as the server lives.
"""

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys

PR_SET_PDEATHSIG = 1
NOT_STARTED = 127
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Return the server's own exit status, or 128 plus the number of the signal that ended it."""
    lock, grace, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    child_changed = _readable_on(signal.SIGCHLD)
    os.umask(0o077)
    try:
        server = subprocess.Popen(  # noqa: S603 - the node chose the program
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=(lock,),
            preexec_fn=lambda: _prepare_server(lock),  # noqa: PLW1509 - this program has one thread
        )
    except (OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"cannot run {command[0]}: {error}\n")
        return NOT_STARTED
    os.close(lock)
    _wait_for_either(server, child_changed)
    code = _end(server, grace)
    return code if code >= 0 else 128 - code


def _readable_on(number: signal.Signals) -> socket.socket:
    """Return a socket that becomes readable when the signal arrives."""
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.detach())
    signal.signal(number, lambda *_: None)
    return woken


def _prepare_server(lock: int) -> None:
    """In the child, before it becomes the server: write its pid to the lock file, and tie its life to the guard's.

    The default signal handlers are restored: a SIGTERM that arrives before the server has its own must end it.
    """
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    end_with_parent()


def end_with_parent() -> None:
    """Have the kernel send this process SIGTERM when the thread that started it ends; survives exec. Linux only."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the kernel knew
            os._exit(NOT_STARTED)


def _wait_for_either(server: "subprocess.Popen[bytes]", child_changed: socket.socket) -> None:
    """Wait until the server has ended or the node has closed the pipe. A stopped server (SIGSTOP) has not ended."""
    node = sys.stdin.fileno()
    while server.poll() is None:
        ready, _, _ = select.select([node, child_changed], [], [])
        if node in ready:
            return
        child_changed.recv(4096)


def _end(server: "subprocess.Popen[bytes]", grace: float) -> int:
    if server.poll() is None:
        server.terminate()
    try:
        return server.wait(grace)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()


if __name__ == "__main__":
    sys.exit(main())

"""A command ends at its deadlines, even if a system call still hangs."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from cli.run_async import run
from tests.support.command_line import Finished

STUCK = """
import signal, socket, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts in the background
def never(*_, **__):
    print("looking up", flush=True)
    time.sleep(600)
socket.getaddrinfo = never
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in a shell's background ignores it
"""
"""A name server that does not answer: nothing can interrupt the lookup."""


async def python(program: str, *, interrupt: bool = False) -> Finished:
    """Run a program; with `interrupt`, send SIGINT after its first line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            first = await process.stdout.readline()
            if interrupt:
                process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Finished(process.returncode or 0, (first + out).decode(), err.decode())


async def test_the_deadline_holds_while_a_name_lookup_hangs() -> None:
    """A thread that hangs in the system must not extend the deadline of the command."""
    finished = await python(
        f"{STUCK}\n"
        "import asyncio\n"
        "from cli.run_async import run\n"
        "async def ask():\n"
        "    async with asyncio.timeout(0.1):\n"
        "        await asyncio.get_running_loop().getaddrinfo('chat.example', 443)\n"
        "try: run(ask())\n"
        "except TimeoutError: print('given up')\n"
    )
    assert (finished.code, finished.out) == (0, "looking up\ngiven up\n"), finished


async def test_a_verb_can_be_interrupted_during_a_name_lookup(tmp_path: Path) -> None:
    """Ctrl-C ends a command immediately."""
    finished = await python(
        f"{STUCK}\n"
        "from cli.main import run\n"
        "from conclave.machine.keys import create_or_load\n"
        "from pathlib import Path\n"
        f"home = Path({str(tmp_path)!r})\n"
        "create_or_load(home / 'key')\n"
        "sys.exit(run(['--config-dir', str(home), 'who', '--server', 'ws://chat.example']))\n",
        interrupt=True,
    )
    assert finished.code == 130, finished


def test_results_and_exceptions_of_threads_arrive() -> None:
    """In every other respect the executor is an ordinary one."""

    async def both() -> object:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(lambda: "done")

    assert run(both()) == "done"

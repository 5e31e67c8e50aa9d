"""A private server: one per directory, never orphaned, nothing acknowledged lost. Against the real program."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from conclave.errors import ConfigError
from relay.model.errors import NodeFailure
from relay.store import PrivateServer, Timing
from relay.store.binary import find_server
from relay.store.data_directory import SOCKET_PATH_BYTES, DataDirectory
from relay.store.server_process import ServerProcess, arguments
from tests.support.waiting import wait_until

NODE = Path(__file__).with_name("node.py")
ROOT = Path(__file__).parents[3]
IMPATIENT = Timing(grace=1.0, leftover=1.0, backoff=0.01, longest_backoff=0.01, quick_deaths=2)


def is_dead(pid: int) -> bool:
    """A process that has ended but was not collected yet counts as dead."""
    shown = subprocess.run(["/bin/ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()[:1] in {"", "Z"}


def guard_of(server: PrivateServer) -> int:
    assert server.guard_pid is not None
    return server.guard_pid


def pid_of(server: PrivateServer) -> int:
    assert server.pid is not None
    return server.pid


@asynccontextmanager
async def client_of(server: PrivateServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url, decode_responses=True) as client:
        yield client


@asynccontextmanager
async def running(directory: Path, timing: Timing | None = None) -> AsyncIterator[PrivateServer]:
    """A supervised server, as a node runs it."""
    server = await PrivateServer.start(directory, timing=timing)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.supervise())
            yield server
            await server.stop()
    finally:
        await server.stop()


class Node:
    """A node in a process of its own (`node.py`), in a session and process group of its own like a shell's job."""

    def __init__(self, process: asyncio.subprocess.Process, guard: int, server: int) -> None:
        self.process, self.guard, self.server = process, guard, server
        self.acknowledged: list[str] = []

    async def read_acknowledged(self, count: int) -> None:
        assert self.process.stdout is not None
        while len(self.acknowledged) < count:
            self.acknowledged.append((await self.process.stdout.readline()).decode().strip())

    async def ended(self) -> int:
        """Its exit status, after all it has printed is read."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            *whole, _cut = (await self.process.stdout.read()).decode().split("\n")
            self.acknowledged += whole
            return await self.process.wait()


@pytest.fixture
async def start_node() -> AsyncIterator[Callable[[Path], Awaitable[Node]]]:
    """Starts nodes; whatever a test leaves behind is killed by its own pid."""
    nodes: list[Node] = []

    async def start(directory: Path) -> Node:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, NODE, directory),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdout is not None
        words = b""
        while not words.startswith(b"ready "):  # logs come first
            words = await process.stdout.readline()
            assert words, "the node did not start"
        _ready, guard, server = words.split()
        nodes.append(Node(process, int(guard), int(server)))
        return nodes[-1]

    yield start
    for node in nodes:
        if node.process.returncode is None:
            node.process.kill()
            await node.ended()
        await wait_until(partial(is_dead, node.server), timeout=20, what="the node's server ends")


async def test_started_server_takes_commands_and_keeps_them_over_a_stop(tmp_path: Path) -> None:
    """The point of a data directory."""
    directory = tmp_path / "new" / "data"
    async with running(directory) as server, client_of(server) as client:
        first = pid_of(server)
        await client.set("kept", "yes")
    assert is_dead(first)
    async with running(directory) as server, client_of(server) as client:
        assert await client.get("kept") == "yes"


async def test_directory_and_its_files_are_the_owners_alone(tmp_path: Path) -> None:
    """The files hold messages in plain text, and access to the socket is full access to the server."""
    async with running(tmp_path / "data"):
        inside = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
        assert len(inside) > 4
        assert [p for p in inside if stat.S_IMODE(p.lstat().st_mode) & 0o077] == []


async def test_server_listens_on_no_port_and_syncs_every_write(tmp_path: Path) -> None:
    """No TCP: no other user of the machine can connect. `always`: an acknowledged message is on disk."""
    async with running(tmp_path) as server, client_of(server) as client:
        settings = await client.config_get("port", "appendonly", "appendfsync", "save", "maxmemory-policy")
    assert settings == {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
    }


@pytest.mark.parametrize("name", ["a b", "50%", "q?x=1#y", "--dir", 'quote"s', "gr\u00fc\u00df"])
async def test_any_directory_name_works(tmp_path: Path, name: str) -> None:
    """The name travels through a command line, the server's own parser and a URL."""
    async with running(tmp_path / name) as server, client_of(server) as client:
        assert await client.ping()
        assert (await client.config_get("dir"))["dir"] == str(tmp_path / name)


async def test_path_too_long_for_a_socket_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes about a hundred bytes; home directories on macOS and in CI come close."""
    short = Path("/tmp") / f"alias-{os.getpid()}"  # noqa: S108 - a plain place with a short name
    short.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(short))
    directory = tmp_path / ("long" * 40)
    try:
        async with running(directory) as server, client_of(server) as client:
            assert len(server.url) < SOCKET_PATH_BYTES + len("unix://")
            assert await client.ping()
            assert (directory / "valkey.sock").is_socket()
            (alias,) = short.iterdir()
            assert stat.S_IMODE(alias.stat().st_mode) == 0o700
        assert list(short.iterdir()) == []
    finally:
        short.rmdir()


async def test_second_opener_is_refused_at_once(tmp_path: Path) -> None:
    """Two nodes on one directory would be two servers on one file."""
    async with running(tmp_path) as server, client_of(server) as client:
        with pytest.raises(ConfigError) as refusal:
            await PrivateServer.start(tmp_path)
        expected = f"the data directory `{tmp_path}` is in use by another relay (process {os.getpid()})"
        assert str(refusal.value) == expected
        assert await client.ping()


async def test_unusable_directory_is_a_clear_error(tmp_path: Path) -> None:
    """A file in the way is the usual slip."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"the data directory `.*file` cannot be used: File exists"):
        await PrivateServer.start(tmp_path / "file")


async def test_killed_node_leaves_no_server_and_loses_nothing(
    tmp_path: Path, start_node: Callable[[Path], Awaitable[Node]]
) -> None:
    """Kill -9 of the single node: afterwards everything acknowledged is there, in order, and nothing runs on."""
    for rounds in (1, 2):
        node = await start_node(tmp_path)
        await node.read_acknowledged(50 * rounds)
        node.process.kill()
        await node.ended()
        await wait_until(partial(is_dead, node.server), timeout=30, what="the server follows its node")
        async with running(tmp_path) as server, client_of(server) as client:
            written = await client.lrange("written", 0, -1)
        assert written == [str(n) for n in range(len(written))]
        assert int(node.acknowledged[-1]) < len(written)


async def test_restart_right_after_a_kill_waits_for_the_old_server(
    tmp_path: Path, start_node: Callable[[Path], Awaitable[Node]]
) -> None:
    """A service manager restarts within milliseconds, while the old server still writes."""
    node = await start_node(tmp_path)
    await node.read_acknowledged(20)
    node.process.kill()
    await wait_until(partial(is_dead, node.process.pid), what="the node is dead")
    async with running(tmp_path) as server, client_of(server) as client:
        assert is_dead(node.server)
        await node.ended()
        assert await client.llen("written") > int(node.acknowledged[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
async def test_server_ends_even_if_node_and_guard_are_killed(
    tmp_path: Path, start_node: Callable[[Path], Awaitable[Node]]
) -> None:
    """`killall -9 python` hits both at once."""
    node = await start_node(tmp_path)
    os.kill(node.guard, signal.SIGKILL)
    node.process.kill()
    await node.ended()
    await wait_until(lambda: is_dead(node.server), timeout=30, what="the server ends")


async def test_after_an_interrupt_of_the_whole_group_the_node_ends_first(
    tmp_path: Path, start_node: Callable[[Path], Awaitable[Node]]
) -> None:
    """Ctrl-C goes to every process of the terminal's group; the node needs its server while it drains."""
    node = await start_node(tmp_path)
    await node.read_acknowledged(5)
    os.killpg(node.process.pid, signal.SIGINT)
    assert await node.ended() == 0
    assert is_dead(node.server)


async def test_guard_ignores_what_is_meant_for_the_node(tmp_path: Path) -> None:
    """A service manager signals every process of the service; a closed terminal does as well."""
    async with running(tmp_path) as server, client_of(server) as client:
        before, guard = pid_of(server), guard_of(server)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(guard, number)
        os.kill(before, signal.SIGSTOP)  # a paused child is not an ended one
        os.kill(before, signal.SIGCONT)
        assert await client.ping()
        assert not is_dead(guard)
        assert pid_of(server) == before


async def test_leftover_server_is_shut_down_first(tmp_path: Path) -> None:
    """Without a guard (its own death, another platform) the next node ends the server properly: no write is lost."""
    leftover, address = start_leftover(tmp_path)
    try:
        async with Redis(unix_socket_path=address, decode_responses=True) as client:
            await wait_until(lambda: Path(address).is_socket(), what="the remaining server listens")
            await client.set("kept", "yes")
        with capture_logs() as logs:
            async with running(tmp_path) as server, client_of(server) as client:
                assert leftover.wait(5) == 0
                assert await client.get("kept") == "yes"
        assert {"store.leftover_found", "store.leftover_ended"} <= {entry["event"] for entry in logs}
    finally:
        leftover.kill()
        leftover.wait()


async def test_leftover_that_does_not_stop_is_refused_not_joined(tmp_path: Path) -> None:
    """Two servers on one file would destroy it; a kill by an old process id could hit any process."""
    leftover, _address = start_leftover(tmp_path)
    try:
        leftover.send_signal(signal.SIGSTOP)
        with pytest.raises(NodeFailure, match=r"still uses .* end that process and start again"):
            await PrivateServer.start(tmp_path, timing=IMPATIENT)
        assert leftover.poll() is None
    finally:
        leftover.kill()
        leftover.wait()


def start_leftover(directory: Path) -> tuple["subprocess.Popen[bytes]", str]:
    """A server with the lock of the directory, but without a guard and without a node."""
    with DataDirectory(directory) as owned:
        lock = owned.lock_for_server()
        assert lock is not None
        command = [str(find_server()), *arguments(owned)]
        process = subprocess.Popen(command, pass_fds=(lock,), stdout=subprocess.DEVNULL)
        os.close(lock)
        return process, str(owned.socket)


@pytest.mark.parametrize("victim", ["server", "guard"])
async def test_killed_server_is_restarted_with_its_data(tmp_path: Path, victim: str) -> None:
    """The out-of-memory killer picks either; sessions stay and go on when the server is back."""
    with capture_logs() as logs:
        async with running(tmp_path) as server, client_of(server) as client:
            await client.set("kept", "yes")
            before = pid_of(server)
            os.kill(before if victim == "server" else guard_of(server), signal.SIGKILL)
            await wait_until(lambda: starts(logs) == 2, what="a second start")
            assert pid_of(server) != before
            assert is_dead(before)
            assert await client.get("kept") == "yes"
    assert "store.died" in {entry["event"] for entry in logs}


def starts(logs: list[MutableMapping[str, Any]]) -> int:
    return [entry["event"] for entry in logs].count("store.started")


async def test_server_that_keeps_dying_is_given_up(tmp_path: Path) -> None:
    """A full disk does not heal by restarting; the node exits non-zero and prints the server's message."""
    server = await PrivateServer.start(tmp_path, timing=IMPATIENT)
    try:
        (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("broken\n")
        os.kill(pid_of(server), signal.SIGKILL)
        async with asyncio.timeout(20):
            with pytest.raises(NodeFailure, match=r"died 3 times in a row(.|\n)*AOF manifest"):
                await server.supervise()
    finally:
        await server.stop()


async def test_stop_during_a_restart_ends_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is stopped while its server is down must not wait for it, nor leave a new one behind."""
    spawned: list[ServerProcess] = []
    spawn = ServerProcess.spawn

    async def spawn_then_stop(*args: object, **kwargs: object) -> ServerProcess:
        process = await spawn(*args, **kwargs)  # type: ignore[arg-type]
        spawned.append(process)
        await server.stop()
        return process

    timing = replace(IMPATIENT, grace=30)
    server = await PrivateServer.start(tmp_path, timing=timing)
    monkeypatch.setattr(ServerProcess, "spawn", spawn_then_stop)
    os.kill(pid_of(server), signal.SIGKILL)
    async with asyncio.timeout(timing.grace / 2):  # the new server is told, not waited for until it is killed
        await server.supervise()
    assert [process.ended for process in spawned] == [True]


async def test_failed_start_shows_the_servers_own_message(tmp_path: Path) -> None:
    """Only the server knows the reason; a user who runs one command looks nowhere else."""
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / "appendonly.aof.manifest").write_text("broken\n")
    with pytest.raises(NodeFailure, match=r"ended with status 1(.|\n)*AOF manifest"):
        await PrivateServer.start(tmp_path)
    with DataDirectory(tmp_path) as freed:
        lock = freed.lock_for_server()
        assert lock is not None
        os.close(lock)


async def test_program_that_cannot_run_is_a_clear_error(tmp_path: Path) -> None:
    """A file system mounted noexec, or a build for another machine."""
    program = tmp_path / "valkey-server"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    with pytest.raises(NodeFailure, match=r"cannot run .*valkey-server: .*Exec format error"):
        await PrivateServer.start(tmp_path / "data", program=program)


async def test_mute_program_is_given_up_and_killed(tmp_path: Path) -> None:
    """It neither answers nor heeds SIGTERM; the start still ends, and the process does too."""
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\ntrap '' TERM\necho mute $$\nwhile :; do /bin/sleep 0.1; done\n")
    program.chmod(0o755)
    with pytest.raises(NodeFailure, match=r"no answer in \d+ s:\nmute \d+") as failure:
        await PrivateServer.start(tmp_path / "data", program=program, timing=Timing(answer=0.3, grace=0.3))
    assert is_dead(int(str(failure.value).split()[-1]))


async def test_missing_program_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the directory is not touched for it."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="conclave-cli"):
        await PrivateServer.start(tmp_path / "data")
    assert not (tmp_path / "data").exists()


async def test_file_cut_short_by_a_crash_does_not_block_the_start(tmp_path: Path) -> None:
    """A power cut during a write leaves half a command, which was not acknowledged."""
    async with running(tmp_path) as server, client_of(server) as client:
        await client.set("kept", "yes")
    (written,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    with written.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\nlo")
    async with running(tmp_path) as server, client_of(server) as client:
        assert await client.get("kept") == "yes"
        await client.set("after", "yes")
    async with running(tmp_path) as server, client_of(server) as client:
        assert await client.get("after") == "yes"


async def test_loading_gets_more_time_than_an_answer(tmp_path: Path) -> None:
    """Seven days of messages take a while to read; a server that is loading is not dead."""
    async with running(tmp_path) as server, client_of(server) as client:
        await client.config_set("appendfsync", "no")
        async with client.pipeline(transaction=False) as pipe:
            for number in range(20_000):
                pipe.rpush("list", number)
            await pipe.execute()
    program = tmp_path / "slow-server"
    slow = "--key-load-delay 100 --loading-process-events-interval-bytes 1024"
    program.write_text(f'#!/bin/sh\nexec "{find_server()}" "$@" {slow}\n')
    program.chmod(0o755)
    timing = Timing(answer=1.5, progress=0.1, grace=5.0)
    with capture_logs() as logs:
        server = await PrivateServer.start(tmp_path, program=program, timing=timing)
        try:
            async with client_of(server) as client:
                assert await client.llen("list") == 20_000
        finally:
            await server.stop()
    assert [e for e in logs if e["event"] == "store.waiting" and e["loading"]] != []


def test_it_runs_under_uvloop(tmp_path: Path) -> None:
    """The node's loop has its own way of starting and watching processes."""
    import uvloop  # noqa: PLC0415 - not on every platform

    async def scenario() -> None:
        with capture_logs() as logs:
            async with running(tmp_path) as server, client_of(server) as client:
                await client.set("kept", "yes")
                os.kill(pid_of(server), signal.SIGKILL)
                await wait_until(lambda: starts(logs) == 2, what="a second start")
                assert await client.get("kept") == "yes"
                last = pid_of(server)
        assert is_dead(last)

    uvloop.run(scenario())

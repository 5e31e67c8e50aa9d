"""A private server for one relay on one machine: started, supervised, restarted and stopped with it."""

import asyncio
import enum
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError

from conclave.backoff import Backoff
from relay.model.errors import NodeFailure
from relay.processes.restart_policy import RestartPolicy
from relay.store.binary import find_server
from relay.store.data_directory import DataDirectory
from relay.store.diagnosis import explain
from relay.store.server_process import ServerProcess

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Timing:
    """Deadlines and waits, in seconds."""

    answer: float = 15.0  # from the start to the first answer
    load: float = 900.0  # the same while the server answers LOADING
    progress: float = 5.0  # between two log lines about that
    grace: float = 10.0  # from SIGTERM to SIGKILL
    leftover: float = 30.0  # for the end of a server that an earlier relay left behind
    steady: float = 60.0  # a server that lived this long did not die quickly
    backoff: float = 0.1  # before the first restart; doubles with every quick death
    longest_backoff: float = 5.0
    quick_deaths: int = 5  # in a row; with one more the relay gives up
    poll: float = 0.02


class PrivateServer:
    """The private server of one data directory, from `start` to `stop`.

    Every write that it acknowledged survives a kill -9 of node and server and a loss of power. Run `supervise` for as
    long as it is needed.
    """

    def __init__(self, directory: DataDirectory, program: Path, timing: Timing) -> None:
        self._directory = directory
        self._program = program
        self._timing = timing
        self._stopping = asyncio.Event()
        self._process: ServerProcess | None = None

    @classmethod
    async def start(cls, data_dir: Path, *, program: Path | None = None, timing: Timing | None = None) -> Self:
        """Lock the directory, end a server that an earlier relay left in it, and start one that answers.

        Raises:
            ConfigError: the directory is in use or unusable, or there is no server program.
            NodeFailure: the server does not start; the text carries its last lines.
        """
        program = program or find_server()
        directory = DataDirectory(data_dir)
        server = cls(directory, program, timing or Timing())
        try:
            await server._launch(await server._lock_for_server())
        except BaseException:
            await server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        """For a Redis client: `unix:///...`, with the path percent-encoded where it needs to be."""
        return f"unix://{quote(os.fsencode(self._directory.socket))}"

    @property
    def pid(self) -> int | None:
        """The server's process (not the guard's)."""
        return self._directory.server_pid()

    @property
    def guard_pid(self) -> int | None:
        """The process that ends the server when this one is gone."""
        return self._process.pid if self._process is not None else None

    async def supervise(self) -> None:
        """Restart the server whenever it ends without being told to; returns after `stop`.

        Raises:
            NodeFailure: it died quickly so often in a row that a further restart is hopeless.
        """
        timing = self._timing
        backoff = Backoff(timing.backoff, timing.longest_backoff)
        restarts = RestartPolicy(backoff, steady_seconds=timing.steady, give_up_after=timing.quick_deaths)
        while (death := await self._wait_for_death()) is not None:
            wait = restarts.died(death.lived)
            reason = self._explain(death.last_lines)
            log.error("store.died", code=death.code, lived=round(death.lived, 3), deaths=restarts.deaths, reason=reason)
            if wait is None:
                raise NodeFailure(
                    f"the private server died {restarts.deaths} times in a row{_because(reason, death.last_lines)}"
                )
            if await self._stopped_within(wait):
                return
            lock = await self._lock_for_server()
            try:
                await self._launch(lock)
            except NodeFailure as error:  # the next iteration counts it as a death
                log.error("store.restart_failed", reason=str(error))  # noqa: TRY400 - no trace needed

    async def stop(self) -> None:
        """End the server and unlock the directory. May be called again."""
        self._stopping.set()
        try:
            if self._process is not None:
                await self._process.stop()
                log.info("store.stopped")
        finally:
            self._process = None
            self._directory.close()

    async def _launch(self, lock: int) -> None:
        """Start the server and wait until it answers. On failure, and after `stop`, no process is left."""
        process = await ServerProcess.spawn(self._program, self._directory, lock, grace=self._timing.grace)
        self._process = process
        if self._stopping.is_set():
            await process.stop()
            return
        try:
            await self._wait_until_ready(process)
        except NodeFailure:
            await process.stop()
            if self._stopping.is_set():
                return
            raise
        log.info("store.started", pid=self.pid, program=str(self._program), directory=str(self._directory.path))

    async def _wait_for_death(self) -> "_Death | None":
        """Wait for the running server's end; None if `stop` caused it."""
        process = self._process
        if process is None:
            return None
        code = await process.wait()
        if self._stopping.is_set():
            return None
        return _Death(code, asyncio.get_running_loop().time() - process.started_at, process.last_lines)

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._stopping.wait()
        except TimeoutError:
            return False

    async def _wait_until_ready(self, process: ServerProcess) -> None:
        """Wait until PING is answered. A server that answers LOADING reads a large file, and gets more time."""
        loop = asyncio.get_running_loop()
        loading = False
        next_notice = loop.time() + self._timing.progress
        async with self._client() as client:
            while (answer := await _ping(client)) is not _Answer.READY:
                loading = loading or answer is _Answer.LOADING
                waited = loop.time() - process.started_at
                if process.ended:
                    code = await process.wait()
                    why = _because(self._explain(process.last_lines), process.last_lines)
                    raise NodeFailure(f"the private server ended with status {code}{why}")
                if waited > (self._timing.load if loading else self._timing.answer):
                    raise NodeFailure(f"the private server gave no answer in {waited:.0f} s:\n{process.last_lines}")
                if loop.time() >= next_notice:
                    log.info("store.waiting", seconds=round(waited), loading=loading)
                    next_notice += self._timing.progress
                await asyncio.sleep(self._timing.poll)

    def _explain(self, lines: str) -> str:
        return explain(lines, self._directory.path, self._program)

    async def _lock_for_server(self) -> int:
        """Return the server's lock once no earlier server holds it: two servers never write to one file.

        After a kill -9 of the node, its guard is usually ending the server already; a SHUTDOWN command as well does no
        harm. A process that obeys neither is not killed, because the pid file may be out of date.
        """
        deadline = asyncio.get_running_loop().time() + self._timing.leftover
        announced = False
        while (lock := self._directory.lock_for_server()) is None:
            if not announced:
                log.warning("store.leftover_found", pid=self.pid)
                announced = True
            if asyncio.get_running_loop().time() > deadline:
                raise NodeFailure(
                    f"a server of an earlier relay (process {self.pid}) still uses `{self._directory.path}` "
                    "and does not stop: end that process and start again"
                )
            async with self._client() as client:
                await _ask_to_stop(client)
            await asyncio.sleep(self._timing.poll)
        if announced:
            log.info("store.leftover_ended")
        return lock

    def _client(self) -> Redis:
        return Redis(
            unix_socket_path=str(self._directory.socket),
            retry=Retry(NoBackoff(), 0),
            socket_timeout=2,
            socket_connect_timeout=2,
        )


def _because(reason: str, lines: str) -> str:
    """Return the reason and the line that gives it, or all last lines if nothing is known of them."""
    return f": {reason}; its last line:\n{lines.rpartition(chr(10))[2]}" if reason else f"; its last lines:\n{lines}"


@dataclass(frozen=True, slots=True)
class _Death:
    code: int
    lived: float
    last_lines: str


class _Answer(enum.Enum):
    READY = "ready"
    LOADING = "loading"
    NONE = "none"


async def _ping(client: Redis) -> _Answer:
    try:
        await client.ping()
    except BusyLoadingError:
        return _Answer.LOADING
    except (RedisError, OSError):
        return _Answer.NONE
    return _Answer.READY


async def _ask_to_stop(client: Redis) -> None:
    try:
        await client.shutdown()
    except (RedisError, OSError):
        return  # the connection ends with the server; its lock tells whether it did

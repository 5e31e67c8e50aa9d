"""The functions and files of ours that an operation passes inside a node, and the Redis round trips that it waits for.

    python bench/traced_calls.py [--runs N] [--functions | --json]

A node runs in a thread of this process on an in-process store; a client in another thread carries out each operation
several times. A function counts if a line of it runs, each time. So a coroutine that merely awaits another one does not
count, nor does the heartbeat, which comes by chance, nor the client. Round trips are those that follow each other
between a request and its reply: commands that travel together are one, and what is done after the reply, or in the
background, is none.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).parents[1]))

from bench.load.programs import Store
from bench.trees import load, load_module, make_node
from conclave.model import Plain, Visibility

SECONDS = 10
QUIET_SECONDS = 0.1
"""A relay that is idle writes at the end of the tick, and gathers frames for a few milliseconds when it is busy."""


class Tracer:
    """Collects the functions of the project that one thread passes while it is on."""

    def __init__(self, root: Path) -> None:
        self._folders = tuple(f"{root / name}/" for name in ("relay", "conclave"))
        self._root = root
        self._on = False
        self._seen: set[tuple[str, str]] = set()

    def install(self) -> None:
        """Trace the calling thread from now on."""
        sys.settrace(self._enter)

    def _enter(self, frame: FrameType, _: str, __: Any) -> Callable[[FrameType, str, Any], Any] | None:
        code = frame.f_code
        ours = self._on and code.co_filename.startswith(self._folders) and code.co_name[0] != "<"
        return self._note if ours else None

    def _note(self, frame: FrameType, event: str, _: Any) -> Callable[[FrameType, str, Any], Any]:
        if self._on and event == "line":
            self._seen.add((frame.f_code.co_filename, frame.f_code.co_qualname))
        return self._note

    def start(self) -> None:
        self._seen = set()
        self._on = True

    def stop(self) -> set[tuple[str, str]]:
        """Return (file, function) of everything that was passed."""
        self._on = False
        return {(str(Path(file).relative_to(self._root)), function) for file, function in self._seen}


class RoundTrips:
    """The round trips of one connection until its next reply."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._done = 0
        self.at_reply: int | None = None

    def follow(self, reply: "asyncio.Future[Any]") -> None:
        """Count a command: it belongs to the round trip after those that have ended."""
        number = self._done + 1

        def ended(_: "asyncio.Future[Any]") -> None:
            self._done = max(self._done, number)

        reply.add_done_callback(ended)

    def replied(self) -> None:
        if self.at_reply is None:
            self.at_reply = self._done


_current: ContextVar[RoundTrips | None] = ContextVar("round_trips", default=None)
_connections: list[RoundTrips] = []


def count_round_trips() -> None:
    """Have every connection's commands and replies counted, in whichever tree this is."""
    connections = load("relay.transport.connection:Connections", "relay.connection:Connections")
    outbox = load("relay.sessions.outbox:Outbox", "relay.transport.outbox:Outbox", "relay.outbox:Outbox")
    client = load("relay.redis.client:RedisClient")
    serve, submit = connections.serve, client._submit  # noqa: SLF001

    async def counted_serve(self: Any, *args: Any) -> Any:
        _connections.append(trips := RoundTrips())
        _current.set(trips)
        return await serve(self, *args)

    def counted_submit(self: Any, command: Any, script: Any) -> Any:
        reply = submit(self, command, script)
        if (trips := _current.get()) is not None:
            trips.follow(reply)
        return reply

    def noting(write: Callable[..., None]) -> Callable[..., None]:
        def noted(self: Any, *frames: bytes) -> None:
            if (trips := _current.get()) is not None:
                trips.replied()
            write(self, *frames)

        return noted

    def in_context(method: Callable[..., None]) -> Callable[..., None]:
        """Have what a pipeline does outside of the connection's task count as its connection's."""

        def counted(self: Any, *args: Any) -> None:
            token = _current.set(self._fields.get(_current))
            try:
                method(self, *args)
            finally:
                _current.reset(token)

        return counted

    with contextlib.suppress(ImportError):  # an older tree answers every request in the connection's task
        pipeline = load("relay.transport.requests:RequestPipeline")
        pipeline._begin, pipeline._settle_post = in_context(pipeline._begin), in_context(pipeline._settle_post)  # noqa: SLF001
    connections.serve, client._submit = counted_serve, counted_submit  # noqa: SLF001
    outbox.send, outbox.open = noting(outbox.send), noting(outbox.open)


_SELDOM = {
    "relay.redis.inbox": {"_BLOCK_MS": 5_000, "_CURRENT_SECONDS": 3_600.0},
    "relay.cluster.janitor": {"_LOOK_SECONDS": 5.0},
}
"""Intervals of what a node does by itself several times a second: it is not to be taken for a part of an operation."""


def look_seldom() -> None:
    """Have a node do seldom what it does by itself, in a tree that has these intervals."""
    for name, intervals in _SELDOM.items():
        with contextlib.suppress(ImportError):
            vars(load_module(name)).update(intervals)


class NodeThread:
    """A node in a thread of its own."""

    def __init__(self, tracer: Tracer, redis_url: str) -> None:
        self._tracer = tracer
        self._redis_url = redis_url
        self._node: Any = None
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> str:
        """Start, and return the URL."""
        self._thread.start()
        if not self._ready.wait(SECONDS):
            raise AssertionError("the node did not start")
        return f"ws://{self._node.address}/"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._node.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        sys.settrace(None)
        self._loop.close()

    async def _serve(self) -> None:
        self._node = make_node(self._redis_url)
        running = asyncio.create_task(self._node.run())
        await self._node.ready.wait()
        self._tracer.install()
        self._ready.set()
        await running


class Run(NamedTuple):
    """(file, function) of everything that was passed, and the round trips before the reply."""

    functions: set[tuple[str, str]]
    round_trips: int

    @property
    def files(self) -> set[str]:
        return {file for file, _ in self.functions}


class Scene:
    """Ann and bob in a channel of ann's."""

    def __init__(self, url: str, tracer: Tracer) -> None:
        self.ask = load_module("conclave.protocol.requests", "conclave.requests")
        self._url = url
        self._tracer = tracer
        self._connect = load("conclave.client.link:connect", "conclave.link:connect")
        new_key = load("conclave.machine.keys:MachineKey", "conclave.keys:MachineKey")
        self._keys = {user: new_key(os.urandom(32)) for user in ("ann", "bob")}
        self.ann: Any = None
        self.bob: Any = None
        self.runs: list[Run] = []

    async def set_up(self) -> None:
        self.ann, self.bob = [await self.connect(user, register=(user, "laptop")) for user in self._keys]
        await self.ann.request(self.ask.ChannelCreate("ops", Visibility.PUBLIC))
        await self.ann.request(self.ask.Join("ops"))
        await self.bob.request(self.ask.Join("ops"))

    async def close(self) -> None:
        await self.ann.close()
        await self.bob.close()

    async def connect(self, user: str, session: str = "main", **registration: Any) -> Any:
        return await self._connect(self._url, self._keys[user], session, **registration)

    async def say(self) -> str:
        """Post a message as ann. Returns its id."""
        sent = await self.ann.request(self.ask.Send("ops", Plain("hello")))
        return str(sent.id)

    async def event(self, name: str) -> None:
        """Wait until bob has got an event of this type."""
        async with asyncio.timeout(SECONDS):
            while type(await self.bob.next_event()).__name__ != name:
                pass

    @asynccontextmanager
    async def traced(self) -> AsyncIterator[None]:
        """Have what the node does meanwhile be one run."""
        await asyncio.sleep(QUIET_SECONDS)
        for trips in _connections:
            trips.restart()
        self._tracer.start()
        yield
        await asyncio.sleep(QUIET_SECONDS)
        functions = self._tracer.stop()
        self.runs.append(Run(functions, max(trips.at_reply or 0 for trips in _connections)))


async def send(scene: Scene) -> None:
    """Ann posts, and bob receives it."""
    async with scene.traced():
        await scene.say()
        await scene.event("Message")


async def login(scene: Scene) -> None:
    """Bob logs in with a second session."""
    async with scene.traced():
        link = await scene.connect("bob", "second")
    await link.close()


async def join_with_since(scene: Scene) -> None:
    """Bob joins again and receives what he has missed."""
    position = await scene.say()
    await scene.event("Message")
    await scene.bob.request(scene.ask.Leave("ops"))
    await scene.say()
    async with scene.traced():
        await scene.bob.request(scene.ask.Join("ops", since=position))
        await scene.event("Message")


async def kick(scene: Scene) -> None:
    """Ann kicks bob, who is told."""
    async with scene.traced():
        await scene.ann.request(scene.ask.Kick("ops", "bob"))
        await scene.event("Left")
    await scene.bob.request(scene.ask.Join("ops"))


async def supersede(scene: Scene) -> None:
    """Bob logs in under the path of his session, which ends."""
    async with scene.traced():
        former, scene.bob = scene.bob, await scene.connect("bob")
        with contextlib.suppress(load("conclave.errors:LinkLost", "conclave.link:LinkLost")):
            async with asyncio.timeout(SECONDS):
                while True:
                    await former.next_event()
    await former.close()
    await scene.bob.request(scene.ask.Join("ops"))


OPERATIONS: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "send": send,
    "login": login,
    "join with since": join_with_since,
    "kick": kick,
    "supersede": supersede,
}


async def trace_all(url: str, tracer: Tracer, runs: int) -> dict[str, Run]:
    """Carry out each operation once unmeasured and then several times."""
    scene = Scene(url, tracer)
    await scene.set_up()
    results = {}
    for name, operation in OPERATIONS.items():
        scene.runs = []
        for _ in range(runs + 1):
            await operation(scene)
        measured = scene.runs[1:]
        functions = set.intersection(*(run.functions for run in measured))
        results[name] = Run(functions, max(run.round_trips for run in measured))
    await scene.close()
    return results


def show(results: dict[str, Run], *, functions: bool) -> None:
    sys.stdout.write(f"{'':16} {'functions':>9} {'files':>6} {'round trips':>12}\n")
    for name, run in results.items():
        sys.stdout.write(f"{name:16} {len(run.functions):9} {len(run.files):6} {run.round_trips:12}\n")
    for name, run in results.items() if functions else ():
        by_file = defaultdict(list)
        for file, function in sorted(run.functions):
            by_file[file].append(function)
        sys.stdout.write(f"\n{name}\n")
        sys.stdout.writelines(f"  {file}: {', '.join(names)}\n" for file, names in by_file.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="of each operation")
    parser.add_argument("--functions", action="store_true", help="list them, by file")
    parser.add_argument("--json", action="store_true", help="figures only, for programs")
    options = parser.parse_args()
    os.environ.setdefault("CONCLAVE_LOG", "warn")
    count_round_trips()
    look_seldom()
    tracer = Tracer(Path(load("relay:__file__")).parents[1])
    with tempfile.TemporaryDirectory() as folder:
        store = Store(os.sched_getaffinity(0), Path(folder))
        store.wait()
        node = NodeThread(tracer, f"redis://127.0.0.1:{store.port}")
        url = node.start()
        try:
            results = asyncio.run(trace_all(url, tracer, options.runs))
        finally:
            node.stop()
            store.end()
            store.wait_for_end()
    if options.json:
        figures = {
            name: {"functions": len(run.functions), "files": len(run.files), "round_trips": run.round_trips}
            for name, run in results.items()
        }
        sys.stdout.write(f"{json.dumps(figures)}\n")
    else:
        show(results, functions=options.functions)


if __name__ == "__main__":
    main()

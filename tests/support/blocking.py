"""Control of the order of events: commands of a node, subscriptions or signals are blocked until a test goes on."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from relay.app.node import Node
from relay.redis.scripts import Script
from relay.redis.signals import Signal
from tests.support.nodes import client_of


class BlockedCommand:
    """Holds a node's calls of one script or command, or their replies, until it is released. Nothing else is held."""

    def __init__(self, node: Node, what: Script | str, *, answers: bool = False) -> None:
        """With `answers`, the script runs, and its reply is held."""
        self.reached = asyncio.Event()
        """Set as soon as a command, or an answer, is held."""
        self._client = client_of(node)
        self._what = what
        self._answers = answers
        self._released = asyncio.Event()
        client = client_of(node)
        self._submit = client._submit
        client._submit = self._hold  # type: ignore[method-assign]

    def release(self) -> None:
        """Let the held calls go on, and hold no more."""
        self._client._submit = self._submit  # type: ignore[method-assign]
        self._released.set()

    def _hold(self, command: Any, script: Script | None) -> "asyncio.Future[Any]":
        if (command[0] if script is None else script) != self._what:
            return self._submit(command, script)
        running = self._submit(command, script) if self._answers else None
        if running is None:
            self.reached.set()
        else:
            running.add_done_callback(lambda _: self.reached.set())
        return asyncio.ensure_future(self._wait(running, command, script))

    async def _wait(self, running: "asyncio.Future[Any] | None", command: Any, script: Script | None) -> Any:
        await self._released.wait()
        return await (running or self._submit(command, script))


@contextmanager
def subscriptions_blocked(redis_url: str) -> Iterator[Redis]:
    """Cut every subscriber connection and refuse new ones: nodes get no live messages."""
    with Redis.from_url(redis_url) as store:
        store.execute_command("ACL", "SETUSER", "default", "-subscribe")
        try:
            assert store.client_kill_filter(_type="pubsub")
            yield store
        finally:
            store.execute_command("ACL", "SETUSER", "default", "+subscribe")


@contextmanager
def signals_held(node: Node) -> Iterator[None]:
    """Have a node act on no signal, as if they were still on their way; it does so afterwards, in their order."""
    inbox, held = node.parts.inbox, list[Signal]()
    handle = inbox._handle

    def hold(signal: Signal) -> bool:
        held.append(signal)
        return True

    inbox._handle = hold
    try:
        yield
    finally:
        inbox._handle = handle
        for signal in held:
            handle(signal)

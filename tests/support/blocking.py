"""Ways to make things happen in one certain order: holding a node's commands back, and letting nodes go deaf."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from relay.app.node import Node
from relay.redis.scripts import Script


class Gate:
    """Holds what a node asks of one script or command, or the answers, until it is opened. Everything else goes on."""

    def __init__(self, node: Node, what: Script | str, *, answers: bool = False) -> None:
        """With `answers` the script is run, and the node has to wait for what came of it."""
        self.reached = asyncio.Event()
        """Set as soon as a command, or an answer, is held."""
        self._client = node.parts.client
        self._what = what
        self._answers = answers
        self._opened = asyncio.Event()
        self._submit = node.parts.client._submit
        node.parts.client._submit = self._hold  # type: ignore[method-assign]

    def open(self) -> None:
        """Let go of what is held and hold nothing more."""
        self._client._submit = self._submit  # type: ignore[method-assign]
        self._opened.set()

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
        await self._opened.wait()
        return await (running or self._submit(command, script))


@contextmanager
def nodes_that_hear_no_messages(redis_url: str) -> Iterator[Redis]:
    """Cut every subscriber and let none come back, while everything else goes on."""
    with Redis.from_url(redis_url) as store:
        store.execute_command("ACL", "SETUSER", "default", "-subscribe")
        try:
            assert store.client_kill_filter(_type="pubsub")
            yield store
        finally:
            store.execute_command("ACL", "SETUSER", "default", "+subscribe")


@contextmanager
def nodes_that_hear_no_signals(redis_url: str) -> Iterator[Redis]:
    """Let no node read its inbox, while everything else goes on: what a broken connection is until it is noticed."""
    with Redis.from_url(redis_url) as store:
        store.execute_command("ACL", "SETUSER", "default", "-xread")
        try:
            store.client_kill_filter(_type="normal", skipme=True)
            yield store
        finally:
            store.execute_command("ACL", "SETUSER", "default", "+xread")

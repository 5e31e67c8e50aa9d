"""Round trips of requests: the sequential waits for Redis, which are their cost where Redis is a millisecond away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from nacl.signing import SigningKey

from conclave import base64url
from conclave.protocol import requests
from relay.app.node import Node
from relay.protocol import operations
from relay.protocol.message_requests import Post
from relay.redis import scripts
from relay.redis.scripts import Script
from relay.services.messages import Messages, PendingPost
from relay.transport.login import Logins
from tests.support.nodes import client_of, node_object, running_node
from tests.support.v2_peer import V2Peer, V2Peers

NOT_AWAITED = {scripts.SETTLED.name}
"""What is sent for a request, and its reply does not wait for."""


class Waits:
    """The waits of one request. Commands that are sent before a reply to one of them arrives are one wait."""

    def __init__(self) -> None:
        self.commands: list[tuple[int, str]] = []
        """Each with the number of its wait."""
        self._answered = 0

    @property
    def count(self) -> int:
        return max((wait for wait, name in self.commands if name not in NOT_AWAITED), default=0)

    def note(self, name: str, reply: "asyncio.Future[Any]") -> None:
        wait = self._answered + 1
        self.commands.append((wait, name))

        def answered(_: object) -> None:
            self._answered = max(self._answered, wait)

        reply.add_done_callback(answered)


_current: ContextVar[Waits | None] = ContextVar("waits", default=None)


class Measured:
    """A node whose requests and logins are counted, by the type of what was asked; "login" for a login."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = f"ws://{node.address}/"
        self.waits: dict[object, Waits] = {}
        client = client_of(node)
        submit, answer, log_in = client._submit, operations.OPERATIONS, Logins.log_in

        def noting(command: Any, script: Script | None) -> "asyncio.Future[Any]":
            reply = submit(command, script)
            waits = _current.get()
            if waits is not None:
                waits.note(str(command[0]) if script is None else script.name, reply)
            return reply

        monkeypatch.setattr(client, "_submit", noting)
        for asked, handler in list(answer.items()):
            monkeypatch.setitem(answer, asked, self._counted(asked, handler))
        monkeypatch.setattr(Logins, "log_in", self._counted("login", log_in))
        begin_post = Messages.begin_post

        def counted_post(*args: Any, **options: Any) -> PendingPost | None:
            with self._counting(Post):
                return begin_post(*args, **options)

        monkeypatch.setattr(Messages, "begin_post", counted_post)

    def _counted(self, name: object, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(*args: Any, **kwargs: Any) -> Any:
            with self._counting(name):
                return await call(*args, **kwargs)

        return counted

    @contextmanager
    def _counting(self, name: object) -> Iterator[None]:
        token = _current.set(Waits())
        waits = _current.get()
        assert waits is not None
        self.waits[name] = waits
        try:
            yield
        finally:
            _current.reset(token)


@pytest.fixture
async def measured(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Measured]:
    async with node_object(redis_url) as node:
        yield Measured(node, monkeypatch)


async def test_requests_wait_for_redis_as_rarely_as_they_can(
    redis_url: str, measured: Measured, v2_peers: V2Peers
) -> None:
    """A post is one wait: that is what its sender feels. Each of the others is as many as it has dependent steps."""
    key = SigningKey.generate()
    ann = await v2_peers.register(measured.url, "ann")
    bob = await V2Peer.login(measured.url, key, register=("bob", "laptop"))
    await ann.create("ops")
    await ann.join("ops")
    await bob.join("ops")
    first = await ann.post("ops", "hello")
    await bob.close()
    bob = await V2Peer.login(measured.url, key)
    await bob.join("ops", since=first)
    await ann.ask("ping")
    await bob.close()
    found = dict(measured.waits)
    async with running_node(redis_url) as other:  # whose logins and joins are not counted
        cid = await v2_peers.register(other, "cid")
        await cid.join("ops")
        await ann.ask("kick", channel="ops", target="cid")
        await ann.ask("ban", channel="ops", user="cid")
        thief = SigningKey.generate()
        await ann.ask("machine.add", machine="stolen", pubkey=base64url.encode(bytes(thief.verify_key)))
        stolen = await V2Peer.login(other, thief)
        await stolen.join("ops")
        await ann.ask("machine.remove", machine="stolen")
        await stolen.close()
        found |= {asked: measured.waits[asked] for asked in (requests.Kick, requests.Ban, requests.MachineRemove)}
        await v2_peers.close()
    most = {requests.Ping: 0, Post: 1, "login": 2, requests.Join: 2, requests.Kick: 3, requests.Ban: 3}
    most |= {requests.MachineRemove: 3}
    counted = {asked: found[asked].count for asked in most}
    assert counted == most, {asked: found[asked].commands for asked in most}

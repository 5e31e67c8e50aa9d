"""Sessions that come and go in every way, for a long time: nothing of them stays in a node, nor in Redis."""

import asyncio
import contextlib
import gc
import itertools
import sys
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple, Self

import pytest
from nacl.signing import SigningKey
from redis.asyncio import Redis

import relay
from relay.app.node import Node
from relay.channels.replayed_frames import ReplayedFrames
from tests.support.nodes import NodeProcess, node_object
from tests.support.peer import Peer, Peers, Refused
from tests.support.trials import by_form
from tests.support.v2_peer import V2Closed, V2Peer, V2Peers, origin_of
from tests.support.waiting import wait_until

AT_ONCE = 4
WARM_UP = by_form(5, 25, 1_000)
CYCLES = by_form(15, 150, 5_000)
"""The number of cycles after the warm-up."""
MISSED = "x" * 2_000
"""The text of a missed message: the frames that replays share reach their bound within the warm-up of the full form."""
BYTES_PER_CYCLE = 512
"""The permitted growth of a node's resident memory. A session has several thousand bytes, a cycle seven sessions."""
SPARE_BYTES = by_form(16, 16, 2) * 1024 * 1024
"""The growth that does not come from the number of cycles: caches that are not full yet, and fragmented memory."""

BOUNDED = (ReplayedFrames, type(lru_cache(print)))
"""Caches with a bound of their own, which a short run does not reach."""
FOREIGN = (type, ModuleType, asyncio.AbstractEventLoop, float)
"""What is not followed or counted. The first figure of each metric is a float that was not there before."""
KNOWN = (b":audit",)
"""Parts of keys that may grow: the audit trail has a bound."""


class Company(NamedTuple):
    """The users of one of the loops that run at the same time."""

    ann: SigningKey
    bob: SigningKey

    @classmethod
    async def register(cls, url: str, number: int) -> Self:
        keys = cls(SigningKey.generate(), SigningKey.generate())
        for name, key in zip(("ann", "bob"), keys, strict=True):
            await (await V2Peer.login(url, key, register=(f"{name}{number}", "laptop"))).close()
        return keys


async def cycle(url: str, company: Company, channel: str) -> None:
    """Do once what a session may do and suffer, in a channel that is deleted at the end."""
    async with V2Peers() as peers, Peers() as others:
        ann, bob = [await peers.login(url, key) for key in company]
        await ann.create(channel)
        for peer in (ann, bob):
            await peer.join(channel)
        heard = [await ann.post(channel, "x" * 200, key=f"{channel}{at}") for at in range(3)]
        await wait_until(lambda: bob.ids(channel) == heard)
        await bob.cut()
        missed = [await ann.post(channel, MISSED) for _ in range(2)]
        back = await peers.login(url, company.bob)
        await back.join(channel, since=heard[-1])
        await wait_until(lambda: back.ids(channel) == missed)
        await ann.ask("whisper", to=back.path, body={"text": "x"})
        await wait_until(lambda: back.of("whisper"))
        await ann.refusal("whisper", to="nobody/laptop/main", body={"text": "x"})
        await ann.ask("history", channel=channel, limit=2)
        await ann.ask("who", channel=channel)
        old = others.keep(await Peer.login(url, company.ann, "old"))
        await old.join(channel)
        await old.post(channel, "x")
        assert await old.history(channel)
        await ann.ask("kick", channel=channel, target=back.path)
        await wait_until(lambda: back.of("left"))
        await others.login(url, company.ann, "old")
        await old.wait_closed()
        await ann.ask("leave", channel=channel)
        await refused_logins(url, company)
        await broken_frames(url, company)
        await ann.ask("channel.delete", channel=channel)


async def refused_logins(url: str, company: Company) -> None:
    """An unknown key in both versions, a wrong signature, a first message that is none, and a client that leaves."""
    stranger = SigningKey.generate()
    with pytest.raises(V2Closed):
        await V2Peer.login(url, stranger)
    with pytest.raises(Refused):
        await Peer.login(url, stranger)
    liar = await V2Peer.dial(url)
    await liar.hello("main", origin_of(url))
    with pytest.raises(V2Closed):
        await liar.prove(company.ann, "ws://elsewhere")
    await liar.close()
    for first in ("{", '{"op": "ping", "id": 1}'):
        peer = await V2Peer.dial(url)
        await peer.ws.send_str(first)
        with pytest.raises(V2Closed):
            await peer.read()
        await peer.close()
    leaving = await V2Peer.dial(url)
    await leaving.hello("main", origin_of(url))
    await leaving.cut()


async def broken_frames(url: str, company: Company) -> None:
    """A request that is none, which is answered; then what ends a session: no JSON, and a frame without a mask."""
    peer = await V2Peer.login(url, company.bob, "broken")
    assert "error" in await peer.raw('{"id": 1, "op": "dance"}', 1)
    await peer.ws.send_str("{")
    await peer.wait_closed()
    await peer.close()
    peer = await V2Peer.login(url, company.bob, "broken")
    peer._transport().write(b"\x81\x02{}")
    await peer.wait_closed()
    await peer.close()


async def cycles(url: str, companies: Iterable[Company], numbers: Iterable[int]) -> None:
    """Run cycles, one after the other for each company, and all companies at once."""
    left = iter(numbers)

    async def run(company: Company) -> None:
        for number in left:
            await cycle(url, company, f"c{number}")

    await asyncio.gather(*(run(company) for company in companies))


# --- What is there ---


def held_by(node: Node) -> Counter[str]:
    """Count what a node of this process holds, by type: all that is reachable from it, its modules and its tasks."""
    gc.collect()
    ours = [vars(module) for name, module in sys.modules.items() if name.partition(".")[0] in ("relay", "conclave")]
    seen = {id(vars(module)) for module in sys.modules.values()} - set(map(id, ours))
    found: Counter[str] = Counter()
    following: list[Any] = [node, *ours, *filter(_is_ours, asyncio.all_tasks())]
    while following:
        each = following.pop()
        if id(each) in seen or isinstance(each, FOREIGN + BOUNDED):
            continue
        seen.add(id(each))
        found[type(each).__name__] += 1
        following += (each.__closure__ or ()) if isinstance(each, FunctionType) else gc.get_referents(each)
    return found


def _is_ours(task: "asyncio.Task[Any]") -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and Path(code.co_filename).is_relative_to(Path(relay.__file__ or "").parent)


async def held_in(store: "Redis") -> Counter[str]:
    """Count what is in Redis for good: keys, and by their names up to the last colon elements (1 for a string)."""
    sizes: dict[Any, Any] = {
        b"hash": store.hlen,
        b"set": store.scard,
        b"zset": store.zcard,
        b"list": store.llen,
        b"stream": store.xlen,
    }
    found: Counter[str] = Counter()
    async for key in store.scan_iter():
        if await store.ttl(key) == -1 and not any(each in key for each in KNOWN):
            size = sizes.get(await store.type(key))
            found["keys"] += 1
            found[key.decode().rpartition(":")[0]] += 1 if size is None else await size(key)
    return found


def growth(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    """Return what has become more by half of the cycles at least: one of it has stayed of each, or of every other."""
    return {name: count - before[name] for name, count in after.items() if count - before[name] >= CYCLES / 2}


async def test_a_node_and_redis_hold_nothing_of_sessions_that_have_gone(redis_url: str) -> None:
    """What stays of each session, one object or one element, is an outage after some weeks."""
    async with node_object(redis_url) as node, Redis.from_url(redis_url) as store:
        url, numbers = f"ws://{node.address}/", itertools.count()
        companies = [await Company.register(url, number) for number in range(AT_ONCE)]
        await cycles(url, companies, itertools.islice(numbers, WARM_UP))
        held, kept = held_by(node), await held_in(store)
        await cycles(url, companies, itertools.islice(numbers, CYCLES))

        async def grown() -> dict[str, int]:
            return growth(held, held_by(node)) | growth(kept, await held_in(store))

        async def has_settled() -> bool:
            return not await grown()

        with contextlib.suppress(AssertionError):  # the assertion below says what has grown
            await wait_until(has_settled)
        assert not await grown()


@pytest.mark.long
async def test_the_memory_of_a_node_does_not_grow_with_cycles(redis_url: str) -> None:
    """Memory that no object accounts for counts, too."""
    node = NodeProcess("--redis-url", redis_url)
    await node.start()
    try:
        numbers = itertools.count()
        companies = [await Company.register(node.url, number) for number in range(AT_ONCE)]
        await cycles(node.url, companies, itertools.islice(numbers, WARM_UP))
        before = node.resident_bytes()
        await cycles(node.url, companies, itertools.islice(numbers, CYCLES))
        grown = node.resident_bytes() - before
        assert grown < SPARE_BYTES + CYCLES * BYTES_PER_CYCLE, f"{grown / CYCLES:.0f} bytes per cycle"
    finally:
        await node.close()

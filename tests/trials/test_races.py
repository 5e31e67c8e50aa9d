"""Many requests for the same thing at the same moment, on three nodes: one succeeds, and all get true replies."""

import asyncio
import secrets
from collections.abc import Awaitable, Iterable

import pytest
from nacl.signing import SigningKey

from conclave.model import SessionPath, Visibility
from conclave.protocol.v1 import frames
from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers, Refused
from tests.support.redis_server import RedisProcess
from tests.support.trials import by_form
from tests.support.waiting import wait_until

LOGINS = by_form(20, 50, 200)
SUPERSEDED = "unauthorized: session superseded by a newer connection for the same session path"


async def outcomes(attempts: Iterable[Awaitable[Peer]], peers: Peers) -> tuple[list[Peer], list[str]]:
    """Run all attempts at once; returns the sessions, and the refusals of the others."""
    results = await asyncio.gather(*attempts, return_exceptions=True)
    refusals = []
    for result in results:
        if isinstance(result, Refused):
            refusals.append(str(result))
        elif isinstance(result, BaseException):
            raise result
    return [peers.keep(result) for result in results if isinstance(result, Peer)], refusals


async def answers(peer: Peer) -> bool:
    """Tell if the relay still serves this connection."""
    try:
        return isinstance(await peer.ask(frames.Ping(), frames.Pong), frames.Pong)
    except (Refused, ConnectionError):
        return False


async def one_survives(nodes: list[NodeProcess], peers: Peers, observer: Peer, key: SigningKey) -> Peer:
    """Race logins on one path; returns the survivor, once it is certain that the others are out."""
    racers, refusals = await outcomes((Peer.login(nodes[i % 3].url, key, "den") for i in range(LOGINS)), peers)
    path = str(racers[0].path)
    await wait_until(lambda: sum(not racer.is_closed for racer in racers) == 1, what="one connection is left")
    serving = [racer for racer in racers if await answers(racer)]
    assert len(serving) == 1
    told = [racer.close_text for racer in racers if racer.is_closed]
    assert told + refusals == [SUPERSEDED] * (LOGINS - 1)
    for node in nodes:
        witness = await peers.register(node.url, f"witness-{secrets.token_hex(4)}")
        assert (await witness.who()).count(path) == 1
        await witness.close()
    await observer.whisper(serving[0].path, "still there?")
    await wait_until(lambda: serving[0].whispers, what="the survivor gets a whisper")
    return serving[0]


async def test_of_many_racing_logins_one_survives(nodes: list[NodeProcess], peers: Peers) -> None:
    """A path is one session. Two would both answer for it, and each message would be answered twice."""
    key = SigningKey.generate()
    first = peers.keep(await Peer.login(nodes[0].url, key, "den", register=("ann", "laptop")))
    observer = await peers.register(nodes[1].url, "observer")
    await observer.create("ops")
    survivor = await one_survives(nodes, peers, observer, key)
    assert await first.wait_closed() == SUPERSEDED
    await survivor.join("ops")
    assert await observer.who("ops") == [str(survivor.path)], "the survivor can be somewhere"
    await survivor.close()
    await wait_until(lambda: _sees(observer, survivor.path, times=0), what="the survivor has left without a trace")


async def test_racing_logins_on_nodes_that_start_cold(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess
) -> None:
    """After Redis has forgotten the scripts, the steps of a login no longer travel together: still one survives."""
    observer = await peers.register(nodes[1].url, "observer")
    for turn in range(by_form(1, 3, 30)):
        key = SigningKey.generate()
        register = await Peer.login(nodes[0].url, key, "den", register=(f"ann{turn}", "laptop"))
        await register.close()
        redis_process.forget_scripts()
        await one_survives(nodes, peers, observer, key)


async def _sees(observer: Peer, path: SessionPath, *, times: int) -> bool:
    return (await observer.who()).count(str(path)) == times


async def test_of_20_racing_registrations_of_a_name_one_wins(nodes: list[NodeProcess], peers: Peers) -> None:
    """A name is a person. The losers must be able to take another name with the same key: nothing is half written."""
    keys = [SigningKey.generate() for _ in range(20)]
    winners, refusals = await outcomes(
        (Peer.login(nodes[i % 3].url, key, register=("ann", f"machine{i}")) for i, key in enumerate(keys)), peers
    )
    assert len(winners) == 1
    assert refusals == ["unauthorized: username `ann` is already taken"] * 19
    machines = await winners[0].ask(frames.ListMachines(), frames.MachineList)
    assert [machine.name for machine in machines.machines] == [winners[0].path.machine]
    losers = [(i, key) for i, key in enumerate(keys) if f"machine{i}" != winners[0].path.machine]
    with pytest.raises(Refused, match="unknown machine key"):
        await Peer.login(nodes[0].url, losers[0][1])
    others, refusals = await outcomes(
        (Peer.login(nodes[i % 3].url, key, register=(f"bob{i}", "laptop")) for i, key in losers), peers
    )
    assert (len(others), refusals) == (19, [])


async def test_a_key_that_races_for_two_names_gets_one(nodes: list[NodeProcess], peers: Peers) -> None:
    """A key proves the identity of one user: it must not stand for two. The other name stays free."""
    key = SigningKey.generate()
    names = [f"ann{i}" for i in range(6)]
    winners, refusals = await outcomes(
        (Peer.login(nodes[i % 3].url, key, register=(name, "laptop")) for i, name in enumerate(names)), peers
    )
    assert len(winners) == 1
    assert refusals == ["malformed frame: malformed key or signature: public key is already enrolled"] * 5
    for name in names:
        if name != winners[0].path.user:
            await peers.register(nodes[0].url, name)


async def test_a_single_use_invite_is_used_by_one_of_many(nodes: list[NodeProcess], peers: Peers) -> None:
    """An invite with one use admits one, over all nodes; later callers learn nothing about the channel."""
    host = await peers.register(nodes[0].url, "host")
    await host.create("ops", Visibility.PRIVATE)
    callers = [await peers.register(nodes[i % 3].url, f"caller{i}") for i in range(12)]
    token = await host.invite("ops", uses=1)
    results = await asyncio.gather(*(caller.join("ops", token) for caller in callers), return_exceptions=True)
    assert [str(result) for result in results if result is not None] == ["not found: channel `ops` not found"] * 11
    winner = callers[results.index(None)]
    assert await host.who("ops") == [str(winner.path)]
    await winner.join("ops")


async def test_a_channel_name_goes_to_one_of_many_creators(nodes: list[NodeProcess], peers: Peers) -> None:
    """Two channels of one name would split a conversation in two."""
    creators = [await peers.register(nodes[i % 3].url, f"creator{i}") for i in range(12)]
    results = await asyncio.gather(*(creator.create("ops") for creator in creators), return_exceptions=True)
    assert results.count(None) == 1
    told = {str(result) for result in results if result is not None}
    assert told == {"unauthorized: channel name `ops` is already taken"}
    for creator in creators:
        await creator.join("ops")
    await creators[0].post("ops", "hello")
    for creator in creators[1:]:
        await wait_until(lambda c=creator: c.bodies == ["hello"], what="all are in the same channel")  # type: ignore[misc]


async def test_two_clients_that_supersede_each_other_disturb_no_session(nodes: list[NodeProcess], peers: Peers) -> None:
    """A client that is started twice, and reconnects each time, makes a storm: it concerns only its own path."""
    key = SigningKey.generate()
    peers.keep(await Peer.login(nodes[0].url, key, "den", register=("ann", "laptop")))
    poster = await peers.register_creator(nodes[1].url, "poster", "ops")
    reader = await peers.register(nodes[2].url, "reader")
    await reader.join("ops")

    async def insist(node: NodeProcess) -> None:
        for _ in range(by_form(10, 40, 400)):
            try:
                client = peers.keep(await Peer.login(node.url, key, "den"))
                await client.join("ops")
                await client.wait_closed()
            except (Refused, ConnectionError):
                continue

    first, second = asyncio.create_task(insist(nodes[0])), asyncio.create_task(insist(nodes[2]))
    posted: list[str] = []
    while not (first.done() or second.done()):
        posted.append(f"{len(posted)}")
        await poster.post("ops", posted[-1])
    for storm in (first, second):
        storm.cancel()
    endings = await asyncio.gather(first, second, return_exceptions=True)
    assert None in endings, f"the storm broke off: {endings}"
    await wait_until(lambda: len(reader.bodies) >= len(posted), what="the reader got everything")
    assert reader.bodies == posted
    assert not poster.is_closed
    last = peers.keep(await Peer.login(nodes[1].url, key, "den"))
    await last.join("ops")
    await wait_until(lambda: _is_in(poster, [last, reader, poster]), what="the storm left no trace in the channel")
    assert (await poster.who()).count(str(last.path)) == 1


async def _is_in(observer: Peer, expected: list[Peer]) -> bool:
    return await observer.who("ops") == sorted(str(peer.path) for peer in expected)

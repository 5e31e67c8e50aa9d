"""Users and machines on two nodes that share everything."""

import asyncio
import base64

import pytest
from nacl.signing import SigningKey

from conclave.protocol.v1 import admin, frames
from tests.support.peer import Peer, Peers, Refused
from tests.support.waiting import wait_until

REVOKED = "unauthorized: machine key revoked"
BAD_NAMES = ["", "a/b", " a", "a ", "a\nb", "a\x1bb", "a\u200bb", "a\u202eb", "a\u00a0b", "e\u0301", "x" * 65]


def public(key: SigningKey) -> bytes:
    return bytes(key.verify_key)


async def add_machine(peer: Peer, name: str, key: SigningKey) -> frames.Ack:
    return await peer.ask(frames.Admin(admin.MachineAdd(name, public(key))), frames.Ack)


async def machines(peer: Peer) -> list[str]:
    return [machine.name for machine in (await peer.ask(frames.ListMachines(), frames.MachineList)).machines]


async def test_of_racing_registrations_of_one_name_one_wins_and_the_rest_read_why(
    pair: tuple[str, str], peers: Peers
) -> None:
    """The losers' keys are not enrolled anywhere: each may claim another name afterwards."""
    keys = [SigningKey.generate() for _ in range(20)]
    results = await asyncio.gather(
        *(Peer.login(pair[i % 2], key, register=("ann", "laptop")) for i, key in enumerate(keys)),
        return_exceptions=True,
    )
    winners = [peers.keep(result) for result in results if isinstance(result, Peer)]
    assert len(winners) == 1
    losers = [result for result in results if not isinstance(result, Peer)]
    assert {str(loser) for loser in losers} == {"unauthorized: username `ann` is already taken"}
    loser_key = next(key for key, result in zip(keys, results, strict=True) if not isinstance(result, Peer))
    peers.keep(await Peer.login(pair[0], loser_key, register=("bob", "laptop")))


async def test_of_racing_names_for_one_key_one_wins_and_the_others_stay_free(
    pair: tuple[str, str], peers: Peers
) -> None:
    """A name must never be left without a key: no user could ever use it again."""
    key = SigningKey.generate()
    results = await asyncio.gather(
        *(Peer.login(pair[i % 2], key, f"s{i}", register=(f"user{i}", "laptop")) for i in range(6)),
        return_exceptions=True,
    )
    winner = [i for i, result in enumerate(results) if isinstance(result, Peer)]
    assert len(winner) == 1
    for result in results:
        if isinstance(result, Peer):
            peers.keep(result)
    for i in range(6):
        if i not in winner:
            await peers.register(pair[0], f"user{i}")


async def test_a_machine_that_was_added_logs_in_on_any_node(pair: tuple[str, str], peers: Peers) -> None:
    """The list shows what a user compares with the key on the other machine's screen."""
    ann = await peers.register(pair[0], "ann", machine="laptop")
    key = SigningKey.generate()
    assert await add_machine(ann, "desktop", key) == frames.Ack("desktop")
    second = await peers.login(pair[1], key, "work")
    assert str(second.path) == "ann/desktop/work"
    listed = (await second.ask(frames.ListMachines(), frames.MachineList)).machines
    assert [machine.name for machine in listed] == ["desktop", "laptop"]
    assert listed[0].pubkey == base64.urlsafe_b64encode(public(key)).decode().rstrip("=")
    assert listed[0].added_at.endswith("+00:00")
    assert await machines(await peers.register(pair[1], "bob")) == ["laptop"]


async def test_what_cannot_be_added_is_refused_with_its_reason(url: str, peers: Peers) -> None:
    """A conflict is no internal error, and nothing of it is stored."""
    ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
    key = SigningKey.generate()
    await add_machine(bob, "desktop", key)
    enrolled = "malformed frame: malformed key or signature: public key is already enrolled"
    assert await ann.refusal(frames.Admin(admin.MachineAdd("desktop", public(key)))) == enrolled
    fresh = public(SigningKey.generate())
    taken = await ann.refusal(frames.Admin(admin.MachineAdd("laptop", fresh)))
    assert taken == "unauthorized: machine `laptop` already exists"
    for length in (0, 31, 33):
        text = await ann.refusal(frames.Admin(admin.MachineAdd("desktop", b"." * length)))
        assert "public key must be 32 bytes" in text
    for name in BAD_NAMES:
        text = await ann.refusal(frames.Admin(admin.MachineAdd(name, fresh)))
        assert text.startswith("malformed frame: invalid machine name: `")
    assert await machines(ann) == ["laptop"]


async def test_a_removed_machine_loses_its_sessions_on_every_node_and_no_others(
    pair: tuple[str, str], peers: Peers
) -> None:
    """A stolen laptop is out at once, wherever it is connected."""
    ann = await peers.register(pair[0], "ann")
    bob = await peers.register(pair[1], "bob", machine="desktop")
    key = SigningKey.generate()
    await add_machine(ann, "desktop", key)
    stolen = [await peers.login(node, key, handle) for node, handle in zip(pair, ("a", "b"), strict=True)]
    assert await ann.ask(frames.Admin(admin.MachineRemove("desktop")), frames.Ack) == frames.Ack("desktop")
    assert [await peer.wait_closed() for peer in stolen] == [REVOKED, REVOKED]
    with pytest.raises(Refused, match=r"^unauthorized: unknown machine key$"):
        await peers.login(pair[1], key)
    await wait_until(lambda: is_here(ann, ["ann/laptop/main", "bob/desktop/main"]), what="the others are here")
    await bob.ask(frames.Ping(), frames.Pong)
    peers.keep(await Peer.login(pair[0], key, register=("cid", "desktop")))


async def is_here(observer: Peer, paths: list[str]) -> bool:
    return await observer.who() == paths


async def test_removing_the_machine_one_sits_at_is_acknowledged_before_the_end(url: str, peers: Peers) -> None:
    """Ack, then the reason, then the close: a client can tell success from failure."""
    ann = await peers.register(url, "ann")
    assert await ann.ask(frames.Admin(admin.MachineRemove("laptop")), frames.Ack) == frames.Ack("laptop")
    assert await ann.wait_closed() == REVOKED


async def test_a_machine_that_is_not_there_is_removed_without_complaint(url: str, peers: Peers) -> None:
    """A removal may be repeated; another user's machine of that name is not touched."""
    ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob", machine="desktop")
    assert await ann.ask(frames.Admin(admin.MachineRemove("desktop")), frames.Ack) == frames.Ack("desktop")
    assert await machines(bob) == ["desktop"]
    await bob.ask(frames.Ping(), frames.Pong)

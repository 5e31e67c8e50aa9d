"""Requests of protocol v2 over a real socket: every code, and both versions in one channel.

`conclave-conformance` checks what a client sees of each operation; here is what needs an admin of the server, or a look
inside.
"""

import base64
from typing import Any

import pytest

from conclave.model import Sealed
from conclave.protocol import requests
from conclave.protocol.v1 import frames
from relay.protocol import v2
from relay.protocol.operations import OPERATIONS
from tests.support.moderation import ROOT
from tests.support.nodes import client_of, node_object, running_node
from tests.support.peer import Peers, text
from tests.support.v2_peer import V2Peer, V2Peers, V2Refused, b64
from tests.support.waiting import wait_until


def test_every_request_has_a_handler() -> None:
    """A request of the vocabulary that is missing in the table would crash the first session that sends it."""
    with_bodies = {requests.Send, requests.Whisper, requests.History}
    assert set(requests.Request.__subclasses__()) - set(OPERATIONS) == with_bodies <= set(v2.CONVERSIONS)


@pytest.fixture
async def people(redis_url: str, v2_peers: V2Peers) -> Any:
    """Root, ann and bob on two nodes."""
    async with running_node(redis_url, admins=ROOT) as one, running_node(redis_url, admins=ROOT) as other:
        yield (
            await v2_peers.register(one, "root"),
            await v2_peers.register(one, "ann"),
            await v2_peers.register(other, "bob"),
        )
        await v2_peers.close()


async def test_operations_of_the_servers_admins(people: tuple[V2Peer, V2Peer, V2Peer]) -> None:
    """Their replies; those of all other operations are checked by `conclave-conformance`, which is no admin."""
    root, ann, bob = people
    await ann.create("ops", "private")
    (row,) = (await root.ask("channels"))["channels"]
    assert (row["member"], row["joined"], row["admin"]) == (False, False, True)
    assert await root.ask("machine.remove", machine="laptop", user="bob") == {"machine": "laptop"}
    assert (await bob.wait_closed())[0] == 4002
    assert await root.ask("users") == {"users": ["ann", "bob", "root"]}
    assert await root.ask("user.remove", user="bob") == {"user": "bob"}
    assert set(await root.ask("server_invite.create", uses=1, expires_in=60)) == {"token"}
    trail = (await root.ask("audit", limit=3))["entries"]
    assert [entry["operation"] for entry in trail] == ["machine_remove", "user_remove", "server_invite_create"]
    assert set(trail[0]) == {"at", "actor", "operation", "target", "outcome"}
    assert len((await root.ask("audit"))["entries"]) == 4


async def test_refusals_have_the_texts_of_version_1(people: tuple[V2Peer, V2Peer, V2Peer]) -> None:
    """The same texts in both versions, and each code that a request can have."""
    _, ann, bob = people
    await ann.create("ops")
    await ann.create("secret", "private")
    for op, fields, refusal in (
        ("join", {"channel": "nowhere"}, "not_found: channel `nowhere` not found"),
        ("join", {"channel": "secret"}, "not_found: channel `secret` not found"),
        ("send", {"channel": "ops", "body": {"text": ""}}, "unauthorized: not a member of channel `ops`"),
        ("history", {"channel": "ops"}, "unauthorized: not a member of channel `ops`"),
        ("channel.create", {"channel": "ops"}, "conflict: channel name `ops` is already taken"),
        ("channel.create", {"channel": "a/b"}, "malformed: invalid channel name: `a/b` (it must not contain `/`)"),
        ("channel.delete", {"channel": "ops"}, "unauthorized: not authorized: admin role required"),
        ("users", {}, "unauthorized: not authorized: admin role required"),
        ("audit", {}, "unauthorized: not authorized: admin role required"),
        ("server_invite.create", {}, "unauthorized: not authorized: admin role required"),
        ("machine.remove", {"machine": "laptop", "user": "ann"}, "unauthorized: not authorized: admin role required"),
        ("whisper", {"to": "x/y/z", "body": {"text": ""}}, "not_found: session `x/y/z` is not online"),
        ("whisper", {"to": "bob/laptop/main", "body": {"text": ""}}, "malformed: cannot whisper to your own session"),
        ("whisper", {"to": "bob", "body": {"text": ""}}, "malformed: invalid session path: `bob`"),
        ("send", {"channel": "ops", "body": {"text": "x" * 1048577}}, "unauthorized: not a member of channel `ops`"),
        ("whisper", {"to": "x/y/z", "body": {"text": "x" * 1048577}}, "too_large: message of 1048577 bytes exceeds"),
        ("send", {"channel": "ops", "body": {"sealed": {"ciphertext": "="}}}, "malformed: invalid ciphertext"),
        ("machine.add", {"machine": "m", "pubkey": "AA"}, "malformed: malformed key or signature: public key must"),
        ("invite.create", {"channel": "ops", "uses": 0}, "malformed: an invite needs at least 1 use"),
        ("invite.create", {"channel": "ops", "uses": -1}, "malformed: an invite needs at least 1 use"),
        ("invite.create", {"channel": "ops", "uses": 2**40}, "malformed: an invite has at most 4294967295 uses"),
        ("invite.create", {"channel": "ops", "expires_in": -5}, "malformed: an invite needs a lifetime of at least"),
        ("invite.create", {"channel": "ops", "expires_in": 10**15}, "malformed: invite expiry is too far"),
        ("audit", {"limit": 0}, "malformed: a limit is at least 1"),
    ):
        assert (await bob.refusal(op, **fields)).startswith(refusal), op


async def test_a_store_that_is_away_is_reported_with_the_time_of_a_retry(redis_url: str, v2_peers: V2Peers) -> None:
    """`unavailable`, and the session stays."""
    async with node_object(redis_url) as node:
        ann = await v2_peers.register(f"ws://{node.address}/", "ann")
        client_of(node)._down_since = 1.0
        with pytest.raises(V2Refused) as refused:
            await ann.ask("who")
        client_of(node)._down_since = None
        assert (refused.value.code, refused.value.retry_after) == ("unavailable", 1)
        assert await ann.ask("ping") == {}
        await v2_peers.close()


async def test_a_defect_is_an_internal_error(
    redis_url: str, v2_peers: V2Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the end of the session."""

    async def fail(*_: object) -> Any:
        raise ZeroDivisionError

    operations: dict[Any, Any] = OPERATIONS
    monkeypatch.setitem(operations, requests.Who, fail)
    async with running_node(redis_url) as url:
        ann = await v2_peers.register(url, "ann")
        assert await ann.refusal("who") == "internal: the relay failed to carry this out"
        assert await ann.ask("ping") == {}
        await v2_peers.close()


async def test_both_versions_share_a_channel(url: str, peers: Peers, v2_peers: V2Peers) -> None:
    """The same messages in the same order, sealed bodies byte for byte, whichever version sends or listens."""
    old = await peers.register(url, "old")
    new = await v2_peers.register(url, "new")
    watch_old, watch_new = await peers.register(url, "ann"), await v2_peers.register(url, "bob")
    await old.create("ops")
    for peer in (old, watch_old, new, watch_new):
        await peer.join("ops")
    ciphertext = bytes(range(256))
    for i in range(20):
        await old.post("ops", f"old {i}\n\x00\u2028\U0001f600")
        await old.post("ops", Sealed(ciphertext[i:], None if i % 2 else f"key {i}"))
        await new.post("ops", f'new {i} "\\')
        sealed = {"ciphertext": b64(ciphertext[i:]), **({} if i % 2 else {"key_id": f"key {i}"})}
        await new.ask("send", channel="ops", body={"sealed": sealed})
    history_new = await new.history("ops")
    await wait_until(lambda: len(watch_old.messages) == 80 and len(watch_new.events) == 80, what="all has arrived")
    assert [{k: v for k, v in e.items() if k not in ("ev", "channel")} for e in watch_new.events] == history_new
    in_both = list(zip(watch_old.messages, watch_new.events, strict=True))
    for one, other in in_both:
        assert str(one.from_) == other["from"]
        if isinstance(one.payload, Sealed):
            sealed = other["body"]["sealed"]
            assert base64.urlsafe_b64decode(sealed["ciphertext"] + "==") == one.payload.ciphertext
            assert sealed.get("key_id") == one.payload.key_id
        else:
            assert other["body"] == {"text": text(one.payload)}
    assert [(str(row.from_), row.ts_ms, row.payload) for row in await old.page("ops")] == [
        (row["from"], row["ts"], message.payload) for row, message in zip(history_new, watch_old.messages, strict=True)
    ]
    assert len(in_both) == 80


async def test_whispers_cross_the_versions(url: str, peers: Peers, v2_peers: V2Peers) -> None:
    """From either to either."""
    old, new = await peers.register(url, "old"), await v2_peers.register(url, "new")
    await new.ask("whisper", to=str(old.path), body={"text": "psst"}, key="k")
    await old.ask(frames.Whisper(old.path, old.path.parse(new.path), Sealed(b"\xff", None)), frames.Ack)
    await wait_until(lambda: old.whispers and new.events, what="both have got it")
    assert text(old.whispers[0].payload) == "psst"
    assert new.events[0]["body"] == {"sealed": {"ciphertext": "_w"}}
    assert new.events[0]["id"]
    assert isinstance(new.events[0]["ts"], int)

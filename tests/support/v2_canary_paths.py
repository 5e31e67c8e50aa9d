"""Every path of protocol v2 by which a secret comes into a node."""

import contextlib
import json
from typing import Any

import pytest
from nacl.signing import SigningKey

from conclave.protocol import requests
from tests.support.canaries import Canaries
from tests.support.canary_paths import server_invite
from tests.support.nodes import NodeProcess
from tests.support.peer import Peer
from tests.support.v2_peer import V2Closed, V2Peer, V2Peers, V2Refused, b64, origin_of
from tests.support.waiting import wait_until

OPERATIONS = {str(request.__struct_config__.tag) for request in requests.Request.__subclasses__()}


async def registrations(node: NodeProcess, canaries: Canaries, peers: V2Peers, root: Peer) -> tuple[V2Peer, V2Peer]:
    """Register two users with a server invite each, and try others without a valid one."""
    people = []
    for name in ("dan", "eve"):
        token = canaries.token(await server_invite(root))
        key = canaries.key()
        login = await V2Peer.login(node.url, key, register=(name, "laptop"), invite=token)
        await login.close()
        people.append(await peers.login(node.url, key))
        for used in (token, canaries.text("server-token")):
            with pytest.raises(V2Closed, match="needs a valid invite"):
                await V2Peer.login(node.url, canaries.key(), register=("stranger", "laptop"), invite=used)
    return people[0], people[1]


async def bad_logins(node: NodeProcess, canaries: Canaries, known: SigningKey) -> None:
    """Try first and second messages with every kind of error, each with a secret in it."""
    for first in (
        {"op": canaries.text("op"), "protocol": 2},
        {"op": "hello", "protocol": canaries.text("protocol")},
        {"op": "hello", "protocol": 2, "session": {canaries.text("session"): 1}, "origin": "ws://x"},
        {"op": "hello", "protocol": 2, "session": "main", "origin": f"ws://ann:{canaries.text('password')}@x"},
        {"op": "hello", "protocol": 2, "session": "main", "origin": canaries.text("origin")},
        {canaries.text("field"): canaries.text("value")},
    ):
        await _turned_away(node, json.dumps(first), None)
    await _turned_away(node, canaries.text("no-json"), None)
    for second in (
        {"op": canaries.text("op")},
        {"op": "auth", "pubkey": canaries.text("pubkey"), "signature": canaries.text("signature")},
        {"op": "auth", "pubkey": "`" + canaries.text("pubkey") + "'", "signature": "'" + canaries.text("signature")},
        {"op": "auth", "pubkey": canaries.text("short")[:43], "signature": b64(b"x" * 64)},
        {"op": "auth", "pubkey": [canaries.text("pubkey")], "signature": 7},
        {"op": "auth", "pubkey": b64(bytes(known.verify_key)), "signature": canaries.text("signature")},
        {"op": "auth", "pubkey": b64(bytes(known.verify_key)), "signature": b64(b"x" * 64)},
        {"op": "register", "user": {"a": canaries.text("user")}, "machine": "m", "pubkey": "", "signature": ""},
    ):
        await _turned_away(node, None, json.dumps(second))
    await _turned_away(node, None, canaries.text("no-json"))
    with pytest.raises(V2Closed):
        await V2Peer.login(node.url, canaries.key())
    with pytest.raises(V2Closed):
        await V2Peer.login(node.url, canaries.key(), register=("a\nb", "laptop"), invite=canaries.text("invite"))


async def _turned_away(node: NodeProcess, first: str | None, second: str | None) -> None:
    peer = await V2Peer.dial(node.url)
    if first is not None:
        await peer.ws.send_str(first)
    if second is not None:
        await peer.hello("main", origin_of(node.url))
        await peer.ws.send_str(second)
    with pytest.raises(V2Closed):
        await peer.read()
    await peer.close()


async def every_request(canaries: Canaries, root: V2Peer, ann: V2Peer, bob: V2Peer) -> None:
    """All that a session can ask for, granted and refused; then all of it once more with fields of another type."""
    await ann.create("den2", "private")
    await ann.join("den2")
    tokens = [canaries.token((await ann.ask("invite.create", channel="den2"))["token"]) for _ in range(2)]
    with contextlib.suppress(V2Refused):
        await bob.join("den2", token=canaries.text("token"))
    await bob.join("den2", token=tokens[0])
    first = await _send_all(canaries, ann, bob)
    key = canaries.key()
    fields: dict[str, Any] = {
        "token": tokens[1],
        "user": "eve",
        "target": "eve",
        "to": "den2",
        "machine": "desktop",
        "visibility": "private",
        "pubkey": b64(bytes(key.verify_key)),
        "key": canaries.text("idempotency-key"),
        "since": first,
    }
    for operation in sorted(OPERATIONS - {"send", "whisper", "channel.delete", "user.remove", "machine.remove"}):
        for peer in (bob, ann, root):
            reply = await _any_answer(peer, operation, channel="den2", **fields)
            if "token" in reply:
                canaries.token(reply["token"])
    for operation in ("send", "whisper", "channel.delete", "machine.remove", "user.remove"):
        await _any_answer(bob, operation, channel="den2", **{**fields, "user": "nobody"}, body=canaries.text("body"))
    for operation in sorted(OPERATIONS):
        for wrong in (canaries.text("value"), {canaries.text("name"): canaries.text("value")}, [canaries.text("row")]):
            names = ("body", "key", "uses", "limit", "after_ts", "since", "visibility", "pubkey", "token", "expires_in")
            await _raw(ann, {"op": operation, "channel": "nowhere", **dict.fromkeys(names, wrong)})
            await _raw(ann, {"op": operation, "channel": {canaries.text("name"): 1}})
    with contextlib.suppress(V2Refused):
        await ann.ask("machine.add", machine="third", pubkey=canaries.text("pubkey"))
    with contextlib.suppress(V2Refused):
        await ann.ask("invite.revoke", token=canaries.text("token"))


async def _send_all(canaries: Canaries, ann: V2Peer, bob: V2Peer) -> str:
    """Texts and sealed bodies, with and without keys, to the channel and to one session; history in both directions."""
    first = ""
    for body in ({"text": canaries.text("body")}, canaries.sealed_object()):
        for peer in (ann, bob):
            key = canaries.text("idempotency-key")
            sent = [await peer.ask("send", channel="den2", body=body, key=key) for _ in range(2)]
            first = first or sent[0]["id"]
            await ann.ask("whisper", to=bob.path, body=body, key=canaries.text("whisper-key"))
            for wrong in ("nobody/x/y", ann.path, canaries.text("path")):
                assert await ann.refusal("whisper", to=wrong, body=body)
            assert await ann.refusal("send", channel="elsewhere", body=body)
    long = {"text": canaries.text("long") + "x" * 1024 * 1024}
    assert "too_large" in await ann.refusal("send", channel="den2", body=long)
    await wait_until(lambda: len(bob.messages_in("den2")) == 2, what="bob gets both messages")
    assert len(await bob.history("den2")) == 4
    await bob.ask("leave", channel="den2")
    assert (await bob.join("den2", since=first))["recovered"]
    await bob.ask("history", channel="den2", before=first)
    assert await bob.refusal("history", channel="den2", after=canaries.text("position"))
    return first


async def _any_answer(peer: V2Peer, operation: str, **fields: Any) -> dict[str, Any]:
    try:
        return await peer.ask(operation, **fields)
    except V2Refused:
        return {}


async def _raw(peer: V2Peer, request: dict[str, Any]) -> dict[str, Any]:
    return await peer.raw(json.dumps({"id": 2**40, **request}), 2**40)


async def garbage(node: NodeProcess, canaries: Canaries, key: SigningKey, ann: V2Peer) -> None:
    """Send invalid messages; the last of each connection ends it."""
    for text, number in (
        (f'{{"id": 77, "op": "{canaries.text("op")}"}}', 77),
        (f'{{"op": "send", "{canaries.text("field")}": 1}}', None),
        (f'{{"id": 78, "op": "send", "body": {{"text": "{canaries.text("half")}\\ud800"}}}}', 78),
        (f'{{"id": 79, "op": "send", "body": {{"{canaries.text("kind")}": 1}}}}', 79),
    ):
        assert "error" in await ann.raw(text, number)
    for last in (canaries.text("no-json"), f'["{canaries.text("list")}"]', f'{{"id": 1, "{canaries.text("cut")}'):
        peer = await V2Peer.login(node.url, key, "garbage")
        await peer.ws.send_str(last)
        await peer.wait_closed()
        await peer.close()
    peer = await V2Peer.login(node.url, key, "garbage")
    await peer.ws.send_bytes(canaries.text("binary").encode())
    await peer.wait_closed()
    await peer.close()

"""Logging in with protocol v2 over a real socket: refusals have codes, a close says why."""

import asyncio

import aiohttp
import pytest
from nacl.signing import SigningKey
from structlog.testing import capture_logs

from relay.protocol.v2 import V2Codec
from relay.redis.scripts import LEASE_TAKE
from relay.services.accounts import Accounts
from tests.support.blocking import BlockedCommand
from tests.support.metrics import scrape
from tests.support.moderation import ROOT
from tests.support.nodes import client_of, node_object, running_node
from tests.support.peer import Peer, Peers, Refused
from tests.support.v2_peer import V2Closed, V2Peer, V2Peers, origin_of, proof_of
from tests.support.waiting import wait_until

KEY = SigningKey(b"k" * 32)


async def closed(peer: V2Peer) -> tuple[int | None, str, str]:
    """Read until the close: its code, and reason and error of the closing event before it."""
    with pytest.raises(V2Closed) as caught:
        await peer.read()
    await peer.close()
    event = caught.value.event
    assert event["ev"] == "closing"
    assert event["code"] == caught.value.code
    assert event["reason"].startswith(caught.value.reason or "")
    return caught.value.code, event["reason"], event["error"]


async def test_the_role_and_the_limits_are_the_nodes(redis_url: str, v2_peers: V2Peers) -> None:
    """`ready` carries the operator's settings."""
    async with running_node(redis_url, admins=ROOT, max_message_bytes=2048, idle_seconds=9.0) as url:
        root = await v2_peers.register(url, "root")
        assert (root.ready["admin"], root.ready["heartbeat"]) == (True, 3)
        assert root.ready["limits"] == {"message_bytes": 2048}
        await v2_peers.close()


async def test_a_user_has_one_name_in_both_versions(url: str, peers: Peers, v2_peers: V2Peers) -> None:
    """One key, one account: a user who registered with one version logs in with the other, and supersedes it."""
    ann = await v2_peers.login(url, KEY, register=("ann", "laptop"))
    old = await peers.login(url, KEY)
    assert str(old.path) == ann.path
    code, last = await ann.wait_closed()
    assert code == 4001
    assert last["reason"] == "session superseded by a newer connection for the same session path"
    new = await v2_peers.login(url, KEY)
    assert await old.wait_closed() == (
        "unauthorized: session superseded by a newer connection for the same session path"
    )
    assert await new.ask("who") == {"sessions": ["ann/laptop/main"]}


async def test_a_refused_login_has_its_reason_and_code(url: str, v2_peers: V2Peers) -> None:
    """The code is for the program, the text for its user; both are in the event and in the close itself."""
    with pytest.raises(V2Closed) as unknown:
        await V2Peer.login(url, KEY)
    assert (unknown.value.code, unknown.value.reason) == (4006, "unknown machine key")
    assert unknown.value.event == {
        "ev": "closing",
        "code": 4006,
        "reason": "unknown machine key",
        "error": "unauthorized",
    }
    await v2_peers.register(url, "ann")
    with pytest.raises(V2Closed) as taken:
        await V2Peer.register(url, "ann")
    assert (taken.value.code, taken.value.event["error"]) == (4006, "conflict")
    assert taken.value.reason == "username `ann` is already taken"


async def test_a_relay_that_knows_its_address_refuses_another(redis_url: str, v2_peers: V2Peers) -> None:
    """A rogue relay cannot lie about the cluster either: the client signs the address that it has dialled."""
    origins = frozenset({"wss://chat.example", "ws://10.0.0.1:4390"})
    async with running_node(redis_url, origins=origins) as url:
        for i, origin in enumerate(("wss://chat.example", "wss://Chat.example:443", "ws://10.0.0.1:4390")):
            await v2_peers.login(url, SigningKey.generate(), register=(f"ann{i}", "laptop"), origin=origin)
        with pytest.raises(V2Closed) as refused:
            await V2Peer.login(url, KEY, origin="wss://rogue.example")
        assert (refused.value.code, refused.value.reason) == (
            4006,
            "this relay is reached as `ws://10.0.0.1:4390`, `wss://chat.example`, not as `wss://rogue.example`",
        )
        await v2_peers.close()


async def test_a_login_for_another_address_is_counted_and_logged_with_the_setting(redis_url: str) -> None:
    """A wrong public URL refuses every login: its operator sees the setting, and not what the client has sent."""
    async with running_node(redis_url, origins=frozenset({"wss://chat.example"})) as url:
        with capture_logs() as logs, pytest.raises(V2Closed):
            await V2Peer.login(url, KEY, origin="wss://rogue.example")
        seen = await scrape(url)
    [refused] = [entry for entry in logs if entry["event"] == "login.refused"]
    assert refused["public_urls"] == ["wss://chat.example"]
    assert "rogue" not in str(refused)
    assert {labels["outcome"]: count for labels, count in seen.series("logins_total") if count} == {"wrong_url": 1}


async def test_a_login_while_redis_is_away_is_told_when_to_retry(redis_url: str) -> None:
    """1013 with `retry_after`: the client waits instead of giving up."""
    async with node_object(redis_url) as node:
        url = f"ws://{node.address}/"
        peer = await V2Peer.dial(url)
        challenge = await peer.hello("main", origin_of(url))
        client_of(node)._down_since = 1.0
        await peer.send({"op": "auth", **proof_of(KEY, "auth", origin_of(url), challenge)})
        with pytest.raises(V2Closed) as refused:
            await peer.read()
        client_of(node)._down_since = None
        await peer.close()
        assert refused.value.code == 1013
        assert refused.value.event == {
            "ev": "closing",
            "code": 1013,
            "retry_after": 1,
            "error": "unavailable",
            "reason": "the relay cannot reach its store; try again in a few seconds",
        }


async def test_a_login_on_a_node_that_shuts_down_is_sent_elsewhere(redis_url: str) -> None:
    """1012: the client reconnects at once, to another node."""
    async with node_object(redis_url) as node:
        url = f"ws://{node.address}/"
        peer = await V2Peer.dial(url)
        await peer.hello("main", origin_of(url))
        node.stop()
        code, reason, _ = await closed(peer)
        assert (code, reason) == (1012, "the relay is shutting down; reconnect")


async def test_a_login_that_is_overtaken_is_superseded(redis_url: str, v2_peers: V2Peers) -> None:
    """Not `handshake failed`: the client must not reconnect under this path."""
    async with node_object(redis_url) as node, running_node(redis_url) as other:
        url = f"ws://{node.address}/"
        await (await V2Peer.login(url, KEY, register=("ann", "laptop"))).close()
        blocked = BlockedCommand(node, LEASE_TAKE, answers=True)
        slow = asyncio.create_task(V2Peer.login(url, KEY))
        await blocked.reached.wait()
        await v2_peers.login(other, KEY)
        await wait_until(lambda: any(s.close_reason for s in node.parts.sessions), what="the first one is superseded")
        blocked.release()
        with pytest.raises(V2Closed) as refused:
            await slow
        assert refused.value.code == 4001
        await v2_peers.close()


async def test_each_version_has_its_own_form_of_a_refusal(url: str, peers: Peers) -> None:
    """A v1 client is never sent JSON, not even when it is refused."""
    peer = peers.keep(await Peer.dial(url))
    await peer.ws.send_bytes(b"\xff")
    message = await peer.ws.receive(timeout=10)
    assert message.type is aiohttp.WSMsgType.BINARY
    assert not message.data.startswith(b"{")


@pytest.mark.parametrize("register", [True, False])
async def test_a_defect_during_a_login_is_answered_and_counted(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, register: bool
) -> None:
    """The connection does not just break: a client of either version is told, and the operator's metrics count it."""
    async with node_object(redis_url) as node:
        url = f"ws://{node.address}/"

        async def fail(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(Accounts, "enroll" if register else "authenticate", fail)
        with pytest.raises(V2Closed) as caught:
            await V2Peer.login(url, KEY, register=("ann", "laptop") if register else None)
        assert (caught.value.code, caught.value.event["error"]) == (1011, "internal")
        with pytest.raises(Refused, match=r"^internal error: the relay failed to carry this out$"):
            await Peer.login(url, KEY, register=("ann", "laptop") if register else None)
        assert (await scrape(url))("logins_total", outcome="internal") == 2
        assert not len(node.parts.sessions)


async def test_a_defect_after_a_login_ends_the_session(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a code after which the client reconnects, and without remains of the session."""
    async with node_object(redis_url) as node:
        ann = await V2Peer.login(f"ws://{node.address}/", KEY, register=("ann", "laptop"))

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(V2Codec, "decode_request", fail)
        with pytest.raises(ConnectionResetError):
            await ann.ask("ping")
        assert ann.ws.close_code == 1011
        await wait_until(lambda: not len(node.parts.sessions), what="the session is gone")
        assert (await scrape(f"ws://{node.address}/"))("session_closes_total", reason="lost") == 1
        await ann.close()

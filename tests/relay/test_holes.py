"""A failover that loses messages: each loss is told to everyone whom it concerns, and to nobody else."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiohttp
import pytest
from redis import Redis

from relay.model.message import order
from relay.redis.scripts import ENTER, HOLE, PAGE, POST, Script
from tests.support.blocking import BlockedCommand
from tests.support.failover import FailoverStore, failover_store
from tests.support.nodes import node_object, running_node
from tests.support.v2_peer import Json, V2Closed, V2Peer, V2Peers, V2Refused
from tests.support.waiting import wait_until

AHEAD_MS = 30_000


class Case:
    """Ann and cid on node 0, bob on node 1, all in `ops`. Messages 1 to 5 are in both servers."""

    def __init__(self, store: FailoverStore, urls: list[str], peers: V2Peers) -> None:
        self.store = store
        self.urls = urls
        self._peers = peers
        self.ids: list[str] = []
        """Every id that was acknowledged."""

    async def begin(self) -> None:
        self.ann, self.cid = [await self.session(0, name) for name in ("ann", "cid")]
        await self.ann.create("ops")
        self.bob = await self.session(1, "bob")
        for each in (self.ann, self.cid, self.bob):
            await each.join("ops")
        await self.post(5)
        await self.received(self.cid, self.bob)
        await self.store.stop_replication()

    async def session(self, node: int, user: str) -> V2Peer:
        return await self._peers.register(self.urls[node], user)

    async def post(self, count: int = 1, peer: V2Peer | None = None) -> list[str]:
        """Post messages, each until it is acknowledged. Returns their ids."""
        new = [await self._post_one(peer or self.ann) for _ in range(count)]
        self.ids += new
        return new

    async def _post_one(self, peer: V2Peer) -> str:
        ids: list[str] = []

        async def is_posted() -> bool:
            try:
                ids.append(await peer.post("ops", f"message {len(self.ids)}"))
            except V2Refused as refused:
                if refused.code != "unavailable":
                    raise
            return bool(ids)

        await wait_until(is_posted, what="the message is acknowledged")
        return ids[0]

    async def received(self, *peers: V2Peer) -> None:
        for peer in peers:
            await wait_until(lambda peer=peer: peer.ids("ops")[-1:] == self.ids[-1:], what="the last message arrived")  # type: ignore[misc]

    async def lose(self, *, ahead: bool = False) -> list[str]:
        """Post 6 to 8 to all, and 9 and 10 without bob: the replica has none of them. Returns their ids."""
        if ahead:
            self._set_clock_ahead()
        lost = await self.post(3)
        await self.received(self.cid, self.bob)
        self.store.cut_off(1)
        lost += await self.post(2)
        await self.received(self.cid)
        return lost

    def _set_clock_ahead(self) -> None:
        """Have the primary's ids be those of a clock that is ahead of the replica's."""
        with Redis.from_url(self.store.primary_url, decode_responses=True) as store:
            (head,) = store.scan_iter("*:head")
            seconds, _ = store.time()
            store.hset(head, mapping={"tip": f"{int(seconds) * 1000 + AHEAD_MS}-0", "weight": 10**15})

    async def events_since(self, position: str, node: int = 0) -> tuple[bool, list[str]]:
        """Join as a new session with `since`. Returns `recovered`, and the events up to the last message."""
        dan = await self.newcomer(node)
        joined = await dan.join("ops", since=position)
        if position != self.ids[-1]:
            await self.received(dan)
        return joined["recovered"], story(dan)

    async def newcomer(self, node: int = 0) -> V2Peer:
        """Log in a new user, as soon as the node is ready."""
        arrived: list[V2Peer] = []

        async def is_here() -> bool:
            with suppress(aiohttp.WSServerHandshakeError, V2Closed):
                arrived.append(await self.session(node, f"u{secrets.token_hex(4)}"))
            return bool(arrived)

        await wait_until(is_here, what="the node is ready")
        return arrived[0]


def story(peer: V2Peer, after: int = 0) -> list[str]:
    """Return what a session was sent, in order: the ids of messages, and `gap ID`."""
    return [_word(event) for event in peer.events[after:] if event["ev"] in ("message", "gap")]


def _word(event: Json) -> str:
    return str(event["id"]) if event["ev"] == "message" else f"gap {event['after']}"


@pytest.fixture
async def case(tmp_path: Path, v2_peers: V2Peers) -> AsyncIterator[Case]:
    async with failover_store(tmp_path, nodes=2) as store, AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(running_node(store.url(node))) for node in range(2)]
        case = Case(store, urls, v2_peers)
        await case.begin()
        yield case
        await v2_peers.close()


@pytest.mark.parametrize("ahead", [False, True])
async def test_a_loss_is_told_to_those_whom_it_concerns(case: Case, ahead: bool) -> None:
    """Cid has received all that is lost, bob has not, and who left before the failover knows nothing of it."""
    lost = await case.lose(ahead=ahead)
    case.store.fail_over()
    (new,) = await case.post()
    await case.received(case.cid, case.bob)
    first, last = case.ids[:5], case.ids[9]
    assert order(new) > order(last), "an id that was delivered is not used again"
    assert story(case.cid) == case.ids, "cid has lost nothing"
    assert story(case.bob) == [*first, *lost[:3], f"gap {lost[2]}", new]
    assert await case.events_since(first[2]) == (False, [*first[3:], f"gap {first[4]}", new])
    assert await case.events_since(first[4]) == (False, [f"gap {first[4]}", new])
    assert await case.events_since(lost[2]) == (False, [f"gap {lost[2]}", new])
    assert await case.events_since(last) == (True, [new])
    assert await case.events_since(new) == (True, [])


async def test_a_loss_that_is_found_late_is_told_late(case: Case) -> None:
    """Bob's node is back first and goes on behind message 8. That 9 and 10 are lost, only cid's node can tell."""
    lost = await case.lose()
    case.store.fail_over(without=[0])
    (new,) = await case.post(peer=case.bob)
    dan = await case.newcomer(1)
    await dan.join("ops", since=case.ids[2])
    await case.received(dan)
    case.store.let_back(0)
    await case.received(case.cid)
    late = f"gap {case.ids[4]}"
    await wait_until(lambda: story(case.bob)[-1] == late, what="bob is told")
    (newer,) = await case.post()
    await case.received(case.cid, case.bob, dan)
    assert story(case.cid) == case.ids
    assert story(case.bob) == [*case.ids[:8], late, newer], "his own message is not sent to him"
    assert story(dan)[:3] == [*case.ids[3:5], f"gap {case.ids[4]}"]
    assert await case.events_since(case.ids[2]) == (False, [*case.ids[3:5], late, new, newer])
    assert await case.events_since(lost[-1]) == (True, [new, newer])


async def test_a_node_that_knows_of_no_loss_is_told_of_it(case: Case) -> None:
    """It starts after the failover, and its sessions post before the nodes are back that know what is lost."""
    lost = await case.lose()
    case.store.fail_over(without=[0, 1])
    async with running_node(case.store.primary_url) as fresh:
        case.urls.append(fresh)
        eve, fay = await case.newcomer(2), await case.newcomer(2)
        assert (await eve.join("ops", since=case.ids[2]))["recovered"] is True, "nobody knows better yet"
        await fay.join("ops")
        (new,) = await case.post(peer=fay)
        await case.received(eve)
        case.store.let_back(0)
        await case.received(case.cid)
        case.store.let_back(1)
        await case.received(case.bob)
        late = f"gap {case.ids[4]}"
        await wait_until(lambda: story(eve)[-1] == late, what="eve is told")
        assert story(eve) == [*case.ids[3:5], new, late]
        assert story(case.cid) == case.ids
        assert story(case.bob) == [*case.ids[:8], f"gap {lost[2]}", new]
        assert await case.events_since(case.ids[2]) == (False, [*case.ids[3:5], late, new])
        assert await case.events_since(lost[-1]) == (True, [new])


@pytest.mark.parametrize("after", ["id", "time"])
async def test_history_tells_of_a_loss(case: Case, after: str) -> None:
    """Forwards, a page ends at the loss, and the next one says so; backwards, the page names its place."""
    await case.lose()
    case.store.fail_over()
    new = await case.post(3)
    await case.received(case.bob)
    first = case.ids[:5]

    async def page(**where: object) -> tuple[list[str], bool, bool, list[str]]:
        answer = await case.ann.ask("history", channel="ops", **where)
        ids = [row["id"] for row in answer["messages"]]
        return ids, answer["more"], answer.get("lost", False), answer.get("gaps", [])

    def position(message_id: str) -> dict[str, object]:
        return {"after": message_id} if after == "id" else {"after_ts": int(message_id.partition("-")[0])}

    assert await page(**position(first[2])) == (first[3:], True, False, [])
    assert await page(**position(first[4])) == (new, False, True, [])
    assert await page(**position(case.ids[7])) == (new, False, True, [])
    assert await page(**position(new[0])) == (new[1:], False, False, [])
    assert await page(before=new[2]) == ([*first, *new[:2]], False, False, [first[4]])
    assert await page(before=new[2], limit=3) == ([first[4], *new[:2]], True, False, [first[4]])
    assert await page(before=new[2], limit=2) == (new[:2], True, False, [])
    assert await page(before=new[0], limit=2) == (first[3:], True, False, [first[4]])
    assert await page(before=first[4], limit=2) == (first[2:4], True, False, [])


async def test_a_loss_at_the_end_is_told_without_a_further_message(case: Case) -> None:
    """Nobody may post for hours."""
    lost = await case.lose()
    case.store.fail_over()
    await wait_until(lambda: case.bob.of("gap"), what="bob is told")
    assert story(case.bob) == [*case.ids[:8], f"gap {lost[2]}"]
    dan = await case.newcomer()
    assert await dan.join("ops", since=case.ids[3]) == {
        "channel": "ops",
        "position": lost[-1],
        "recovered": False,
        "admin": False,
    }
    await wait_until(lambda: dan.of("gap"), what="dan is told")
    assert story(dan) == [case.ids[4], f"gap {case.ids[4]}"]
    answer = await dan.ask("history", channel="ops", after=case.ids[4])
    assert (answer["messages"], answer["more"], answer["lost"]) == ([], False, True)
    assert case.cid.of("gap") == []


async def test_a_message_of_which_only_the_poster_knows_is_a_loss(case: Case) -> None:
    """It was acknowledged, and the primary died before the message reached any node."""
    with Redis.from_url(case.store.primary_url) as store:
        store.execute_command("ACL", "SETUSER", "default", "-subscribe")
        store.client_kill_filter(_type="pubsub")
        await case.post()
    case.store.fail_over()
    first, lost = case.ids[:5], case.ids[5]
    for peer in (case.cid, case.bob):
        await wait_until(lambda peer=peer: peer.of("gap"), what="the loss is told")  # type: ignore[misc]
    (new,) = await case.post()
    await case.received(case.cid, case.bob)
    assert story(case.cid) == story(case.bob) == [*first, f"gap {first[4]}", new]
    assert await case.events_since(first[2]) == (False, [*first[3:], f"gap {first[4]}", new])
    assert await case.events_since(lost) == (True, [new])


@pytest.mark.parametrize("script", [POST, ENTER])
async def test_a_post_or_a_join_is_not_earlier_than_what_its_node_has_seen(
    tmp_path: Path, v2_peers: V2Peers, script: Script
) -> None:
    """It may reach the new primary before the node has read the log there."""
    async with failover_store(tmp_path, nodes=2) as store, node_object(store.url(0)) as node:
        case = Case(store, [f"ws://{node.address}/"] * 2, v2_peers)
        await case.begin()
        lost = await case.post(2)
        await case.received(case.cid)
        blocked = [BlockedCommand(node, each) for each in (PAGE, HOLE)]
        store.fail_over()
        if script is POST:
            (new,) = await case.post()
            assert order(new) > order(lost[-1])
        dan = await case.newcomer()
        joined = await dan.join("ops", since=lost[-1])
        assert (joined["position"], joined["recovered"]) == (case.ids[-1], True)
        for each in reversed(blocked):
            each.release()
        await case.post()
        await case.received(case.cid, case.bob)
        assert story(case.cid) == story(case.bob) == case.ids
        await wait_until(lambda: story(dan) == case.ids[7:], what="dan has received what follows")
        await v2_peers.close()

"""The metrics of a node: each has a scenario here with an expected value."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from nacl.signing import SigningKey
from redis import Redis

from conclave import __version__
from conclave.protocol.v1 import admin, frames
from relay.app.node import Node
from relay.observability.metrics import Metrics
from relay.observability.metrics.reference import rows, written_into
from relay.redis import scripts
from relay.redis.clock import RedisClock
from relay.redis.keys import Keys
from relay.redis.node_registry import BEAT_SECONDS
from tests.support.blocking import BlockedCommand, subscriptions_blocked
from tests.support.metrics import Scrape, scrape
from tests.support.moderation import PRIVATE, PUBLIC, ROOT, a_post, administer, invites, refused, users
from tests.support.nodes import node_object, running_node
from tests.support.peer import Peer, Peers, Refused
from tests.support.redis_server import RedisProcess
from tests.support.v2_peer import V2Peers
from tests.support.waiting import wait_until

KEYS = Keys("conclave")
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    """One node of which root is an admin, to look inside."""
    async with node_object(redis_url, admins=ROOT) as node:
        yield node


@pytest.fixture
def frequent_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that send heartbeats and probes, and look for dead nodes, twenty times as often. Comes before the nodes."""
    for room in ("membership", "janitor"):
        monkeypatch.setattr(f"relay.cluster.{room}.BEAT_SECONDS", BEAT_SECONDS / 20)


def url_of(node: Node) -> str:
    return f"ws://{node.address}/"


async def test_a_conversation_is_counted_where_it_happens(pair: tuple[str, str], peers: Peers) -> None:
    """Posts on the sender's node, deliveries on the receivers', and nothing twice."""
    ann, bob, cid = [
        await peers.register(url, name)
        for url, name in zip((pair[0], pair[1], pair[1]), ("ann", "bob", "cid"), strict=True)
    ]
    await ann.create("ops")
    for peer in (ann, bob, cid):
        await peer.join("ops")
    for body in ("one", "two", "three"):
        await ann.post("ops", body)
    await wait_until(lambda: len(bob.bodies) == len(cid.bodies) == 3, what="both have got everything")
    one, other = await scrape(pair[0]), await scrape(pair[1])
    assert (one("posts_total"), other("posts_total")) == (3, 0)
    assert (one("publish_seconds_count"), other("publish_seconds_count")) == (3, 0)
    assert (one("script_seconds_count", script="post"), other("script_seconds_count", script="post")) == (3, 0)
    assert (one("deliveries_total"), other("deliveries_total")) == (0, 6)
    for what in ("fanout_size", "fanout_seconds", "delivery_seconds"):
        assert (one(f"{what}_count"), other(f"{what}_count")) == (0, 3)
    assert other("fanout_size_sum") == 6
    assert other("fanout_size_bucket", le="1.0") == 0
    assert other("fanout_size_bucket", le="2.0") == 3
    assert 0 < other("fanout_seconds_sum") < 1
    assert 0 <= other("delivery_seconds_sum") < 60, "the age of a message, not a difference between clocks"
    assert [(each("sessions"), each("channels"), each("subscriptions")) for each in (one, other)] == [
        (1, 1, 1),
        (2, 1, 2),
    ]
    assert [(each("ready"), each("redis_up"), each("draining")) for each in (one, other)] == [(1, 1, 0), (1, 1, 0)]
    assert one("refusals_total") == one("session_closes_total") == one("gaps_total") == one("redis_errors_total") == 0
    await ann.close()
    assert await wait_for(pair[0], "session_closes_total", reason="left") == 1


async def test_bytes_are_those_of_the_messages(url: str, peers: Peers) -> None:
    """In both directions, replies and pushes alike."""
    ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
    await ann.create("ops")
    for peer in (ann, bob):
        await peer.join("ops")
    before = await scrape(url)
    assert before("received_bytes_total") > 0
    assert before("sent_bytes_total") > 0
    await ann.post("ops", "x" * 10_000)
    await wait_until(lambda: bob.bodies, what="bob has got it")
    after = await scrape(url)
    assert 10_000 < after("received_bytes_total") - before("received_bytes_total") < 10_200
    assert 10_000 < after("sent_bytes_total") - before("sent_bytes_total") < 10_200


async def test_logins_are_counted_by_how_they_end(url: str, peers: Peers) -> None:
    """A refused login, a connection that is closed, and two with the same name."""
    key = SigningKey.generate()
    old = peers.keep(await Peer.login(url, key, register=("ann", "laptop")))
    with pytest.raises(Refused):
        await Peer.login(url, SigningKey.generate())
    with pytest.raises(Refused):
        await Peer.register(url, "ann")
    await (await Peer.dial(url)).close()
    peers.keep(await Peer.login(url, key))
    await old.wait_closed()
    assert await wait_for(url, "logins_total", outcome="gone") == 1
    assert await wait_for(url, "session_closes_total", reason="superseded") == 1
    seen = await scrape(url)
    outcomes = {labels["outcome"]: value for labels, value in seen.series("logins_total") if value}
    assert outcomes == {"ok": 2, "unauthorized": 1, "conflict": 1, "gone": 1}
    assert seen("login_seconds_count") == 2


async def test_whispers_and_refusals_are_counted_by_their_code(url: str, peers: Peers) -> None:
    """An alert on refusals asks whether it was the client's fault or ours."""
    ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
    await ann.whisper(bob.path, "psst")
    await ann.refusal(frames.Whisper(ann.path, ann.path, a_post("x").payload))
    await bob.close()
    assert await wait_for(url, "sessions") == 1
    await ann.refusal(frames.Whisper(ann.path, bob.path, a_post("x").payload))
    await ann.refusal(a_post("nowhere"))
    seen = await scrape(url)
    assert {labels["outcome"]: value for labels, value in seen.series("whispers_total") if value} == {
        "ok": 1,
        "malformed": 1,
        "not_found": 1,
    }
    assert {labels["code"]: value for labels, value in seen.series("refusals_total") if value} == {
        "malformed": 1,
        "not_found": 1,
        "unauthorized": 1,
    }


async def test_every_operation_of_admins_has_its_name_and_its_verdict(pair: tuple[str, str], peers: Peers) -> None:
    """One that the closed set did not have would hide behind `other`."""
    root, ann = await peers.register(pair[0], "root"), await peers.register(pair[0], "ann")
    key = bytes(SigningKey.generate().verify_key)
    await root.create("ops", PRIVATE)
    assert await refused(ann, admin.CreateChannel("ops", PUBLIC))
    token = await root.invite("ops")
    for operation in (
        admin.RenameChannel("ops", "dev"),
        admin.SetVisibility("dev", PUBLIC),
        admin.AclAdd("dev", "ann"),
        admin.AclPromote("dev", "ann"),
        admin.AclDemote("dev", "ann"),
        admin.AclRemove("dev", "ann"),
        admin.Kick("dev", "ann"),
        admin.Ban("dev", "ann"),
        admin.Unban("dev", "ann"),
        admin.InviteRevoke(token),
        admin.MachineAdd("tower", key),
    ):
        await administer(root, operation)
    assert await invites(root, "dev") == {}
    assert await users(root, admin.BanList("dev")) == []
    assert await users(root, admin.AclList("dev")) == ["root"]
    assert await refused(root, admin.MachineAdd("tower", bytes(SigningKey.generate().verify_key)))
    assert await refused(root, admin.MachineAdd("other", key))
    await root.ask(frames.Admin(admin.ServerInviteCreate()), frames.InviteToken)
    for removal in (admin.MachineRemove("tower"), admin.DeleteChannel("dev"), admin.UserRemove("bob")):
        await administer(root, removal)
    assert await refused(root, admin.Ban("gone", "ann"))
    assert await refused(ann, admin.UserRemove("root"))
    seen = await scrape(pair[0])
    counted = {
        (labels["operation"], labels["outcome"]): value for labels, value in seen.series("admin_operations_total")
    }
    known = next(row for row in rows() if row.name == "conclave_admin_operations_total").labels
    expected = {(operation, "ok"): 1 for operation in (*known["operation"], *scripts.CHANNEL_OPERATIONS)} | {
        ("create_channel", "taken"): 1,
        ("machine_add", "named"): 1,
        ("machine_add", "enrolled"): 1,
        ("ban", "missing"): 1,
        ("user_remove", "denied"): 1,
    }
    assert counted == expected


async def test_a_gap_is_counted_once_and_so_is_what_fills_it(
    pair: tuple[str, str], redis_url: str, peers: Peers
) -> None:
    """After a subscriber connection was lost; probes without a reply show it meanwhile."""
    ann, bob = await conversation(pair, peers)
    with subscriptions_blocked(redis_url):
        for n in range(5):
            await ann.post("ops", str(n))
        assert await wait_for(pair[1], "pubsub_probes_missed_total") >= 1
    await wait_until(lambda: len(bob.bodies) == 6, what="the gap was filled")
    seen = await scrape(pair[1])
    assert (seen("gaps_total"), seen("messages_refilled_total"), seen("history_lost_total")) == (1, 5, 0)
    assert seen("redis_errors_total") >= 1
    assert seen("redis_reconnects_total") >= 1
    assert seen("delivery_seconds_bucket", le="0.5") == 1, "what had to wait is late"
    assert seen("delivery_seconds_count") == 6
    before = seen("pubsub_lag_seconds_count")
    assert await wait_for(pair[1], "pubsub_lag_seconds_count", more_than=before)


async def test_a_message_that_was_not_published_is_a_gap(pair: tuple[str, str], redis_url: str, peers: Peers) -> None:
    """The next one names a predecessor that this node has not seen, on a connection that looks sound."""
    ann, bob = await conversation(pair, peers)
    with Redis.from_url(redis_url, decode_responses=True) as store:
        (log,) = store.keys("*:log")
        unpublished = store.xadd(log, {"f": "ann/laptop/main", "p": "\x00\x06silent"})
        store.hset(log.removesuffix("log") + "head", "tip", str(unpublished))
    await ann.post("ops", "after")
    await wait_until(lambda: "after" in bob.bodies, what="delivery goes on")
    assert bob.bodies == ["before", "silent", "after"]
    seen = await scrape(pair[1])
    assert (seen("gaps_total"), seen("history_lost_total")) == (1, 0)
    assert seen("messages_refilled_total") >= 1
    assert (await scrape(pair[0]))("gaps_total") == 1, "ann's node has missed it as well"


async def test_what_the_log_does_not_have_any_more_is_lost(pair: tuple[str, str], redis_url: str, peers: Peers) -> None:
    """A gap, and one that nothing fills."""
    ann, _ = await conversation(pair, peers)
    with subscriptions_blocked(redis_url) as store:
        await ann.post("ops", "gone")
        store.delete(*store.keys("*:log"))
    assert await wait_for(pair[1], "history_lost_total") == 1
    assert (await scrape(pair[1]))("gaps_total") == 1


async def test_coming_in_and_changes_of_membership_are_no_gaps(pair: tuple[str, str], peers: Peers) -> None:
    """They read the log as well, and an alert on gaps must not know of them."""
    ann, bob = await conversation(pair, peers)
    for operation in (admin.AclAdd("ops", "cid"), admin.Kick("ops", "cid"), admin.Ban("ops", "dan")):
        await administer(ann, operation)
        await ann.post("ops", "between")
    await wait_until(lambda: len(bob.bodies) == 4, what="bob has got everything")
    assert [(await scrape(url))("gaps_total") for url in pair] == [0, 0]


async def test_an_overload_is_counted_and_is_no_outage(
    node: Node, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller learns that the relay has too much to do, and nobody else is disturbed."""
    ann = await peers.register(url_of(node), "ann")
    monkeypatch.setattr("relay.redis.client._WAITING_COMMANDS", 0)
    assert await ann.refusal(frames.Who()) == (
        "internal error: the relay has too much to do; try again in a few seconds"
    )
    monkeypatch.undo()
    seen = await scrape(url_of(node))
    assert seen("redis_overloads_total") >= 1
    assert (seen("redis_up"), seen("redis_errors_total")) == (1, 0)
    assert await ann.who() == [str(ann.path)]


async def test_an_outage_of_redis_shows(redis_process: RedisProcess, peers: Peers) -> None:
    """Not ready, not up; and each of the three connections is made anew once."""
    async with running_node(redis_process.url) as url:
        ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
        redis_process.kill()
        assert await wait_for(url, "redis_errors_total") >= 1
        await bob.close()
        assert await wait_for(url, "records_pending") >= 1
        await ann.refusal(frames.Who())
        seen = await scrape(url)
        assert (seen("redis_up"), seen("ready"), seen("sessions")) == (0, 0, 1)
        assert seen("redis_masters_away") == 1
        assert seen("refusals_total", code="unavailable") == 1
        await redis_process.start()
        assert await wait_for(url, "redis_reconnects_total", more_than=2) == 3
        assert await wait_for(url, "ready") == 1
        assert (await scrape(url))("redis_up") == 1
        await peers.close()


@pytest.mark.usefixtures("frequent_beats")
async def test_a_dead_node_is_seen_and_removed(pair: tuple[str, str], redis_url: str) -> None:
    """By one of the two, and then it is not there any more."""
    with Redis.from_url(redis_url) as store:
        store.zadd(KEYS.nodes, {"ghost": -1})

    async def removed() -> bool:
        return sum([(await scrape(url))("janitor_removed_total") for url in pair]) == 1

    await wait_until(removed, what="another node has removed it")
    for url in pair:
        assert await wait_for(url, "nodes", more_than=1.5) in (2, 3)
        before = (await scrape(url))("janitor_runs_total")
        assert await wait_for(url, "janitor_runs_total", more_than=before)

    async def two() -> bool:
        return [(await scrape(url))("nodes") for url in pair] == [2, 2]

    await wait_until(two, what="both know that there are two")


async def test_what_another_version_wrote_is_seen(node: Node, redis_url: str) -> None:
    """It is skipped, so nothing else shows it."""
    with Redis.from_url(redis_url) as store:
        store.xadd(KEYS.inbox(node.name), {"s": b"of a later version"})
    assert await wait_for(url_of(node), "unreadable_total", more_than=0, where="inbox") == 1


async def test_what_waits_for_a_slow_reader_is_seen(node: Node, peers: Peers) -> None:
    """Memory that a node spends on its clients."""
    url = url_of(node)
    ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
    await ann.create("ops")
    for peer in (ann, bob):
        await peer.join("ops")
    assert (await scrape(url))("outbox_bytes") == 0
    bob.stop_reading()
    for _ in range(40):
        await ann.post("ops", "x" * 60_000)
    assert 60_000 < await wait_for(url, "outbox_bytes") < 40 * 61_000


async def test_a_busy_event_loop_shows(node: Node) -> None:
    """A blocked event loop blocks all sessions."""
    assert await wait_for(url_of(node), "event_loop_lag_seconds_count", more_than=0)
    time.sleep(1.2)  # noqa: ASYNC251 - that is the point
    assert await wait_for(url_of(node), "event_loop_lag_seconds_sum", more_than=0.5)


async def test_resumes_are_counted_by_whether_anything_was_missing(url: str, redis_url: str, v2_peers: V2Peers) -> None:
    """A channel that is joined without a position resumes nothing."""
    ann = await v2_peers.register(url, "ann")
    await ann.create("ops")
    await ann.join("ops")
    first, _ = [await ann.post("ops", body) for body in ("one", "two")]
    for _ in range(2):
        assert (await ann.join("ops", since=first))["recovered"] is True
    with Redis.from_url(redis_url) as store:
        store.delete(*store.keys("*:log"))
    assert (await ann.join("ops", since=first))["recovered"] is False
    seen = await scrape(url)
    assert (seen("resumes_total", outcome="recovered"), seen("resumes_total", outcome="gap")) == (2, 1)


async def test_what_a_session_resumes_is_not_delivered_to_it_live(node: Node, v2_peers: V2Peers) -> None:
    """Duration and age of a fan-out say nothing about a session that is reading the log."""
    url = url_of(node)
    ann, bob, cid = [await v2_peers.register(url, name) for name in ("ann", "bob", "cid")]
    await ann.create("ops")
    await ann.join("ops")
    await cid.join("ops")
    await ann.post("ops", "before")
    blocked = BlockedCommand(node, scripts.PAGE, answers=True)
    await bob.join("ops", since="0-0")
    await blocked.reached.wait()
    await ann.post("ops", "meanwhile")
    await wait_until(lambda: len(cid.ids("ops")) == 2, what="cid gets it live")
    blocked.release()
    await wait_until(lambda: len(bob.ids("ops")) == 2, what="bob has caught up")
    seen = await scrape(url)
    assert (seen("deliveries_total"), seen("fanout_size_sum")) == (2, 2)


async def test_text_is_counted_in_bytes(url: str, v2_peers: V2Peers) -> None:
    """A character of protocol v2 may be several."""
    ann = await v2_peers.register(url, "ann")
    await ann.create("ops")
    await ann.join("ops")
    before = (await scrape(url))("received_bytes_total")
    await ann.post("ops", "é" * 1000)
    assert 2000 < (await scrape(url))("received_bytes_total") - before < 2200


async def test_a_scrape_says_which_version_runs(node: Node) -> None:
    """During a roll-out there are two."""
    ((labels, value),) = (await scrape(url_of(node))).series("build_info")
    assert (labels["version"], value) == (__version__, 1)


async def test_metrics_may_have_a_port_of_their_own(redis_url: str) -> None:
    """The port for clients is open to the world."""
    async with node_object(redis_url, metrics_address=("127.0.0.1", 0)) as node:
        main = f"http://{node.address}"
        aside = f"http://{node.status_address}"
        async with aiohttp.ClientSession() as http:
            statuses = {}
            for base in (main, aside):
                for path in ("/metrics", "/health", "/ready", "/"):
                    async with http.get(base + path) as response:
                        statuses[base, path] = response.status
        assert [statuses[main, path] for path in ("/metrics", "/health", "/ready", "/")] == [404, 200, 200, 426]
        assert [statuses[aside, path] for path in ("/metrics", "/health", "/ready", "/")] == [200, 200, 200, 404]
        assert (await scrape(aside))("ready") == 1


async def test_labels_are_few_and_name_no_user(pair: tuple[str, str], peers: Peers) -> None:
    """A label that follows names or paths is a leak, and the death of the Prometheus that stores it."""
    ann, _ = await conversation(pair, peers)
    await ann.whisper(ann.path.__class__("bob", "laptop", "main"), "psst")
    seen = await scrape(pair[0])
    assert seen.labels <= {"le", "version", "outcome", "reason", "code", "operation", "script", "where", "finding"}
    allowed = {value for row in rows() for values in row.labels.values() for value in values}
    allowed |= {*scripts.NAMES, *scripts.CHANNEL_OPERATIONS}
    for label in seen.labels - {"le"}:
        assert seen.values(label) <= allowed
    assert not {"ann", "bob", "ops", "laptop"} & {word for label in seen.labels for word in seen.values(label)}


def test_an_unknown_value_is_other() -> None:
    """The number of series is bounded, and counting raises nothing."""
    metrics = Metrics(())
    for code in ("unauthorized", "made up", "made up too"):
        metrics.refusals.labels(code=code).inc()
    seen = Scrape(metrics.render().decode())
    assert seen("refusals_total", code="other") == 2
    assert seen("refusals_total", code="unauthorized") == 1


def test_series_with_few_values_exist_before_anything_happens() -> None:
    """The increase from nothing to one is none for Prometheus: the first event would never alert."""
    seen = Scrape(Metrics(()).render().decode())
    for row in rows():
        for label, values in row.labels.items():
            if label in ("outcome", "reason", "code") and len(row.labels) == 1:
                assert {labels[label] for labels, _ in seen.series(row.name.removeprefix("conclave_"))} == set(values)


def test_clocks_that_differ_do_not_make_messages_old() -> None:
    """Redis may be an hour ahead of the node: the fastest reply gives the difference."""
    clock = RedisClock()
    assert clock.age(0, 0) is None
    now = 50.0
    redis_now = 1_800_000_000.0 + 3600
    clock.record(int((redis_now - 4) * 1000), now - 5, now - 1)  # a slow answer: wrong by up to two seconds
    clock.record(int(redis_now * 1000), now - 0.001, now + 0.001)
    assert clock.age(int((redis_now - 7) * 1000), now) == pytest.approx(7, abs=0.01)
    assert clock.age(int((redis_now + 60) * 1000), now) == 0, "an id may be ahead of the clock"
    clock.forget()
    clock.record(0, now, now)
    assert clock.age(0, now) == pytest.approx(0, abs=0.01), "another Redis has another clock"


def test_the_table_of_the_documentation_is_that_of_the_code() -> None:
    """`make docs` writes it."""
    page = PAGE.read_text(encoding="utf-8")
    assert written_into(page) == page
    with pytest.raises(ValueError, match="expected one place"):
        written_into("# no markers")


def test_every_metric_has_a_scenario() -> None:
    """Here, or in the tests of several processes."""
    tests = Path(__file__).parents[1]
    text = "".join(
        (tests / name).read_text()
        for name in ("relay/test_metrics.py", "relay/test_store_checks.py", "cluster/test_workers.py")
    )
    short = [row.name.removeprefix("conclave_") for row in rows()]
    assert [name for name in short if f'"{name}' not in text and f'"{name.removesuffix("_total")}' not in text] == []


async def conversation(pair: tuple[str, str], peers: Peers) -> tuple[Peer, Peer]:
    """Ann and bob in a channel, on two nodes; bob has received `before`."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    await ann.create("ops")
    await ann.join("ops")
    await bob.join("ops")
    await ann.post("ops", "before")
    await wait_until(lambda: bob.bodies == ["before"], what="live delivery works")
    return ann, bob


async def wait_for(url: str, name: str, *, more_than: float = 0, **labels: str) -> float:
    """Wait until a metric exceeds a value, and return it."""
    last = 0.0

    async def exceeds() -> bool:
        nonlocal last
        last = (await scrape(url))(name, **labels)
        return last > more_than

    await wait_until(exceeds, what=f"{name} {labels} exceeds {more_than}")
    return last

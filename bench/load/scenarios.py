"""The scenarios: for each, how a candidate is set up, and what a round measures. One row of `SCENARIOS` is one section.

A setup returns the function that measures one round. Rounds of all candidates take turns, so what the machine does
meanwhile happens to all of them. Figures are CPU time by the scheduler, of all processes of a candidate's nodes, and of
its Redis; latencies are in milliseconds.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from bench.load.candidates import Shape
from bench.load.setup import NODE_PER_POST, Setup
from bench.load.worker import Sender
from cli.benchmark import percentile

Figures = dict[str, float]
Measure = Callable[[], Figures]

CONCLAVE = ("v2", "other-v2")
BOTH_VERSIONS = ("v2", "v1", "other-v2", "other-v1")
OTHERS = ("centrifugo", "original")

NODE_PER_DELIVERY = "node CPU per delivery, us"
POSTS = "posts a second"
_SENDERS = 32
"""The number of sessions that post at the same time, where there are many."""


class Scenario(NamedTuple):
    """A section of the page. `kinds` are the candidates, by their kind, that it is about."""

    name: str
    title: str
    set_up: Callable[[Setup], Measure]
    kinds: tuple[str, ...]
    shapes: tuple[tuple[str, Shape], ...] = (("", Shape()),)
    rounds: int = 5


# --- Posts ---


def sparse_posts(setup: Setup) -> Measure:
    channel = setup.channel(0, leading=1)
    seconds = setup.by_scale(0.25, 2.5)

    def measure() -> Figures:
        with setup.spent() as spent:
            times = setup.swarm.times(
                "paced", senders=[Sender(0, (channel,))], to=1, rate=80, seconds=seconds, listeners=1
            )
        return {
            **setup.per_post(spent, times),
            "reply p50, ms": percentile(times.replied, 0.5),
            "arrival p50, ms": percentile(times.arrived, 0.5),
            "arrival p99, ms": percentile(times.arrived, 0.99),
        }

    return measure


def pipelined_posts(setup: Setup) -> Measure:
    channel = setup.channel(0, leading=1)
    return _windows(setup, [Sender(0, (channel,))], in_flight=16, listeners=1)


def many_senders(setup: Setup) -> Measure:
    channels = [setup.name("channel") for _ in range(_SENDERS)]
    setup.swarm.open([setup.sender(channel) for channel in channels])
    senders = [Sender(number, (channel,)) for number, channel in enumerate(channels)]
    return _windows(setup, senders, in_flight=1, listeners=0)


def _windows(setup: Setup, senders: list[Sender], *, in_flight: int, listeners: int) -> Measure:
    """Return the measure of posts, so many in flight per sender: the cost of each, and their number in a second."""
    seconds = setup.by_scale(0.2, 1.5)

    def measure() -> Figures:
        with setup.spent() as spent:
            times = setup.swarm.times(
                "window", senders=senders, in_flight=in_flight, seconds=seconds, listeners=listeners
            )
        return {**setup.per_post(spent, times), POSTS: times.posts / times.seconds}

    return measure


# --- Deliveries ---


def sparse_deliveries(listeners: int) -> Callable[[Setup], Measure]:
    """Return the setup of a channel with so many listeners and one post at a time."""

    def set_up(setup: Setup) -> Measure:
        count = setup.by_scale(listeners // 10, listeners)
        channel = setup.channel(count)
        seconds = setup.by_scale(0.2, 1.5)

        def measure() -> Figures:
            with setup.spent() as spent:
                times = setup.swarm.times(
                    "one_by_one", senders=[Sender(0, (channel,))], seconds=seconds, listeners=count
                )
            return {
                NODE_PER_DELIVERY: spent.nodes / times.posts / count * 1e6,
                "arrival everywhere p50, ms": percentile(times.arrived, 0.5),
            }

        return measure

    return set_up


def burst_deliveries(setup: Setup) -> Measure:
    count = setup.by_scale(20, 200)
    channel = setup.channel(count)
    posts = _windows(setup, [Sender(0, (channel,))], in_flight=16, listeners=count)

    def measure() -> Figures:
        figures = posts()
        return {
            NODE_PER_DELIVERY: figures[NODE_PER_POST] / count,
            "deliveries a second": figures[POSTS] * count,
        }

    return measure


# --- Latency ---


def one_hop(setup: Setup) -> Measure:
    channel = setup.name("channel")
    setup.swarm.open([setup.sender(channel)])
    setup.swarm.open([setup.listener(channel, node=1)])
    seconds = setup.by_scale(0.3, 3.0)

    def measure() -> Figures:
        with setup.spent() as spent:
            times = setup.swarm.times(
                "paced", senders=[Sender(0, (channel,))], to=1, rate=50, seconds=seconds, listeners=1
            )
        return {
            "arrival p50, ms": percentile(times.arrived, 0.5),
            "arrival p99, ms": percentile(times.arrived, 0.99),
            "CPU per post of both nodes, us": spent.nodes / times.posts * 1e6,
        }

    return measure


def ping_pong(setup: Setup) -> Measure:
    here, there = setup.name("channel"), setup.name("channel")
    setup.swarm.open([setup.plan(create=(here, there))])
    setup.swarm.open([setup.plan(join=(there,), post=(here,)), setup.plan(join=(here,), post=(there,))])
    seconds = setup.by_scale(0.2, 1.0)

    def measure() -> Figures:
        pair = [Sender(1, (here,)), Sender(2, (there,))]
        one_way = setup.swarm.times("one_by_one", senders=pair[:1], seconds=seconds, listeners=1)
        both_ways = setup.swarm.times("ping_pong", pair=pair, seconds=seconds)
        return {
            "one sender, posts a second": one_way.posts / one_way.seconds,
            "two that answer each other, posts a second": both_ways.posts / both_ways.seconds,
        }

    return measure


# --- Connections ---


def idle_memory(setup: Setup) -> Measure:
    count = setup.by_scale(50, 1_000)
    channel, sessions = setup.channel(10), 11  # what the first sessions allocate is not theirs

    def measure() -> Figures:
        before = setup.installation.resident_bytes()
        setup.swarm.open([], [setup.listener(channel) for _ in range(count)])
        nonlocal sessions
        sessions += count
        memory = (setup.installation.resident_bytes() - before) / count / 1024
        with setup.spent() as spent:
            setup.swarm.everywhere("ping")
        pings = {"node CPU per ping, us": spent.nodes / sessions * 1e6} if setup.swarm.dialect.ping() else {}
        return {"memory per session, KiB": memory, **pings}

    return measure


def logins(setup: Setup) -> Measure:
    channel = setup.channel(0)
    count = setup.by_scale(10, 150)

    def measure() -> Figures:
        with setup.spent() as spent:
            alone = setup.swarm.open([setup.listener(channel) for _ in range(count)], at_once=1)
        with setup.spent() as together:
            setup.swarm.open([setup.listener(channel) for _ in range(count)])
        setup.swarm.behind(1, "close")
        return {
            "register and join, one at a time, ms": alone / count * 1e3,
            "node CPU, one at a time, us": spent.nodes / count * 1e6,
            "node CPU, 32 at once, us": together.nodes / count * 1e6,
        }

    return measure


def reconnect_storm(setup: Setup) -> Measure:
    count, missed = setup.by_scale(30, 2_000), 100
    channel = setup.channel(count)

    def measure() -> Figures:
        setup.swarm.behind(1, "leave")
        setup.swarm.times("posts", sender=Sender(0, (channel,)), count=missed)
        with setup.spent() as spent:
            seconds = max(setup.swarm.behind(1, "come_back", messages=missed))
        return {
            "until all have what they missed, s": seconds,
            "node CPU per session, us": spent.nodes / count * 1e6,
            "Redis CPU per session, us": spent.store / count * 1e6,
        }

    return measure


# --- Growth ---


def steady_load(setup: Setup) -> Measure:
    """Have a session of each channel post in turn; one listener that is timed is in all channels, nine are in each."""
    channels = tuple(setup.name("channel") for _ in range(setup.by_scale(4, 40)))
    setup.swarm.open([setup.sender(channel) for channel in channels])
    setup.swarm.open([setup.listener(*channels)])
    setup.swarm.open([], [setup.listener(channel) for channel in channels for _ in range(9)])
    senders = [Sender(number, (channel,)) for number, channel in enumerate(channels)]
    rates, seconds = setup.by_scale(((50,), 0.2), ((200, 1_000), 3.0))

    def measure() -> Figures:
        figures: Figures = {}
        for rate in rates:
            with setup.spent() as spent:
                times = setup.swarm.times(
                    "paced", senders=senders, to=len(channels), rate=rate, seconds=seconds, listeners=10
                )
            figures |= {
                f"share of a core of the node, {rate:,} posts a second, %": spent.nodes / times.seconds * 100,
                f"share of a core of Redis, {rate:,} posts a second, %": spent.store / times.seconds * 100,
                f"arrival p50, {rate:,} posts a second, ms": percentile(times.arrived, 0.5),
                f"arrival p99, {rate:,} posts a second, ms": percentile(times.arrived, 0.99),
            }
        return figures

    return measure


def many_channels(setup: Setup) -> Measure:
    sessions, each = setup.by_scale(40, 400), 10
    channels = [setup.name("channel") for _ in range(sessions)]
    parts = [tuple(channels[number::_SENDERS]) for number in range(_SENDERS)]
    setup.swarm.open([setup.sender(*part) for part in parts])
    rings = [[channels[(number + at) % sessions] for at in range(each)] for number in range(sessions)]
    setup.swarm.open([], [setup.listener(*ring) for ring in rings])
    senders = [Sender(number, part) for number, part in enumerate(parts)]
    posts = _windows(setup, senders, in_flight=1, listeners=each)

    def measure() -> Figures:
        figures = posts()
        return {NODE_PER_DELIVERY: figures[NODE_PER_POST] / each, **figures}

    return measure


def more_nodes(setup: Setup) -> Measure:
    """Have the sender at a node of its own, so that a post's own cost does not count."""
    many = setup.by_scale(10, 50)
    channels = {size: setup.name("channel") for size in ((1, 1), (1, many), (2, many), (4, many))}
    setup.swarm.open([setup.sender(channel) for channel in channels.values()])
    for (nodes, each), channel in channels.items():
        setup.swarm.open([], [setup.listener(channel, node=1 + at % nodes) for at in range(each * nodes)])
    seconds = setup.by_scale(0.2, 1.5)

    def measure() -> Figures:
        figures = {}
        for number, ((nodes, each), channel) in enumerate(channels.items()):
            count, senders = nodes * each, [Sender(number, (channel,))]
            with setup.spent(first_node=1) as spent:
                times = setup.swarm.times("one_by_one", senders=senders, seconds=seconds, listeners=count)
            what = f"{nodes} node{'s' * (nodes > 1)} with {each} listener{'s' * (each > 1)}"
            figures[f"{NODE_PER_DELIVERY}, {what}"] = spent.nodes / times.posts / count * 1e6
            figures[f"Redis CPU per post, us, {what}"] = spent.store / times.posts * 1e6
        return figures

    return measure


def idle_nodes(setup: Setup) -> Measure:
    nodes, seconds = len(setup.installation.nodes), setup.by_scale(0.2, 6.0)

    def measure() -> Figures:
        with setup.spent() as spent:
            time.sleep(seconds)
        return {
            "CPU per node, us per second": spent.nodes / nodes / seconds * 1e6,
            "Redis CPU per node, us per second": spent.store / nodes / seconds * 1e6,
        }

    return measure


def more_channels(setup: Setup) -> Measure:
    few, most, sessions = setup.by_scale((10, 40, 10), (100, 5_000, 50))
    channels = [setup.name("channel") for _ in range(most)]
    parts = [tuple(channels[number::sessions]) for number in range(sessions)]
    setup.swarm.open([setup.sender(*part) for part in parts])
    seconds = setup.by_scale(0.2, 1.5)

    def measure() -> Figures:
        figures = {}
        for count in (few, most):
            senders = [Sender(number, part[: count // sessions]) for number, part in enumerate(parts)]
            with setup.spent() as spent:
                times = setup.swarm.times("window", senders=senders, in_flight=1, seconds=seconds, listeners=0)
            figures[f"node CPU per post, {count} channels, us"] = spent.nodes / times.posts * 1e6
            figures[f"Redis CPU per post, {count} channels, us"] = spent.store / times.posts * 1e6
        return figures

    return measure


# --- Reading ---


def history_pages(setup: Setup) -> Measure:
    channel, limit = setup.channel(0), 100
    setup.swarm.times("posts", sender=Sender(0, (channel,)), count=2 * limit)
    return _questions(setup, channel, "history", limit=limit, count=setup.by_scale(10, 200), answer="page")


def presence(setup: Setup) -> Measure:
    sessions = setup.by_scale(50, 5_000)
    channel = setup.channel(sessions - 1)
    return _questions(setup, channel, "who", limit=0, count=setup.by_scale(3, 20), answer="listing")


def _questions(setup: Setup, channel: str, what: str, *, limit: int, count: int, answer: str) -> Measure:
    """Return the measure of one question that is asked so often, one at a time: the cost and the time of an answer."""

    def measure() -> Figures:
        with setup.spent() as spent:
            times = setup.swarm.times("ask", session=0, what=what, channel=channel, limit=limit, count=count)
        return {
            f"node CPU per {answer}, us": spent.nodes / count * 1e6,
            f"Redis CPU per {answer}, us": spent.store / count * 1e6,
            f"{answer} p50, ms": percentile(times.replied, 0.5),
        }

    return measure


SCENARIOS = (
    Scenario(
        "post-sparse",
        "A post: one sender, one listener, 80 posts a second",
        sparse_posts,
        (*BOTH_VERSIONS, *OTHERS, "each"),
    ),
    Scenario(
        "post-pipelined",
        "A post: one sender with 16 posts in flight, one listener",
        pipelined_posts,
        (*BOTH_VERSIONS, *OTHERS, "each"),
    ),
    Scenario(
        "post-many",
        "A post: 32 senders with one post in flight each, no listener",
        many_senders,
        (*BOTH_VERSIONS, *OTHERS, "each"),
    ),
    Scenario(
        "deliver-200",
        "A delivery: 200 listeners, one post at a time",
        sparse_deliveries(200),
        (*BOTH_VERSIONS, *OTHERS, "each"),
    ),
    Scenario(
        "deliver-1000",
        "A delivery: 1,000 listeners, one post at a time",
        sparse_deliveries(1_000),
        (*BOTH_VERSIONS, *OTHERS, "each"),
    ),
    Scenario(
        "deliver-burst",
        "A delivery: 200 listeners, 16 posts in flight",
        burst_deliveries,
        (*BOTH_VERSIONS, *OTHERS, "joined"),
    ),
    Scenario(
        "hop",
        "A hop between two nodes, 50 posts a second",
        one_hop,
        (*CONCLAVE, "centrifugo"),
        (("", Shape(nodes=2)),),
    ),
    Scenario("ping-pong", "The next post when the last one has arrived", ping_pong, (*CONCLAVE, *OTHERS, "each")),
    Scenario("memory", "An idle session in a channel", idle_memory, (*CONCLAVE, *OTHERS, "each"), rounds=3),
    Scenario("login", "Register and join (without keys at Centrifugo)", logins, (*CONCLAVE, *OTHERS), rounds=3),
    Scenario(
        "storm",
        "A reconnect storm: 2,000 sessions that have missed 100 messages each",
        reconnect_storm,
        (*CONCLAVE, "centrifugo"),
        rounds=3,
    ),
    Scenario(
        "steady",
        "Posts to 40 channels with 10 listeners each, at a steady rate",
        steady_load,
        (*CONCLAVE, *OTHERS),
        rounds=3,
    ),
    Scenario("many-channels", "400 sessions in 10 channels each", many_channels, (*CONCLAVE, *OTHERS)),
    Scenario(
        "nodes",
        "From 1 to 4 nodes with 50 listeners each, one post at a time, by a sender at another node",
        more_nodes,
        (*CONCLAVE, "centrifugo"),
        (("", Shape(nodes=5)),),
    ),
    Scenario(
        "idle-nodes",
        "Nodes without sessions",
        idle_nodes,
        ("v2", "other-v2"),
        (("1 node", Shape()), ("5 nodes", Shape(nodes=5)), ("12 nodes", Shape(nodes=12))),
        rounds=1,
    ),
    Scenario("channels", "From 100 to 5,000 channels, no listener", more_channels, (*CONCLAVE, "centrifugo")),
    Scenario("history", "A page of history: 100 messages", history_pages, (*CONCLAVE, *OTHERS)),
    Scenario("presence", "Who is there: a channel with 5,000 sessions", presence, (*CONCLAVE, *OTHERS), rounds=3),
    Scenario(
        "workers",
        "`--workers`: 200 listeners, 16 posts in flight",
        burst_deliveries,
        CONCLAVE,
        (("1 process", Shape()), ("2 processes", Shape(workers=2))),
    ),
)

"""The client's link at a real node, in both versions: what it asks is understood, and what it reads is all there is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from conclave import base64url
from conclave.client.link import Link, connect
from conclave.errors import Refusal
from conclave.machine.keys import MachineKey
from conclave.protocol import requests
from conclave.protocol.body import Body, SealedBody
from conclave.protocol.events import Event, Message, Role, Whispered
from conclave.protocol.requests import History, Row, Send
from tests.support.clock import stand_still
from tests.support.nodes import running_node
from tests.support.proxy import V1Only


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
async def links(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Link, Link]]:
    """Ann, who has created `ops`, and bob; both have joined it and taken their Role."""
    async with (
        running_node(redis_url) as node,
        in_version(request.param, node) as url,
        await connect(url, MachineKey.generate(), "x", register=("ann", "laptop")) as ann,
        await connect(url, MachineKey.generate(), "y", register=("bob", "desktop")) as bob,
    ):
        assert (ann.version, bob.version) == (request.param, request.param)
        await ann.request(requests.ChannelCreate("ops"))
        for link in (ann, bob):
            assert (await link.request(requests.Join("ops"))).channel == "ops"
            assert await link.next_event() == Role(admin=False)
        yield ann, bob


@contextlib.asynccontextmanager
async def in_version(version: int, url: str) -> AsyncIterator[str]:
    """Yield a node's URL, or that of a proxy before it that passes v1 only."""
    if version == 2:
        yield url
        return
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    async with V1Only(parts.hostname, parts.port) as proxy:
        yield f"ws://127.0.0.1:{proxy.port}/"


def without_position(event: Event) -> tuple[str, str, Body]:
    """Return a message without its position, which v1 does not have."""
    assert isinstance(event, Message)
    return event.channel, event.from_, event.body


async def test_a_message_of_one_link_arrives_at_the_other(links: tuple[Link, Link]) -> None:
    """In a channel and aside, in clear and sealed."""
    ann, bob = links
    sealed = Body(sealed=SealedBody("__79_A", "k"))
    sent = [
        await ann.request(Send("ops", Body(text="hi"))),
        await ann.request(Send("ops", sealed)),
        await ann.request(requests.Whisper(bob.path, Body(text="psst"))),
    ]
    received = [await bob.next_event() for _ in range(3)]
    messages = [without_position(event) for event in received[:2]]
    assert messages == [
        ("ops", ann.path, Body(text="hi")),
        ("ops", ann.path, sealed),
    ]
    assert isinstance(received[2], Whispered)
    assert (received[2].from_, received[2].body) == (ann.path, Body(text="psst"))
    assert [getattr(event, "id", None) for event in received] == [each.id for each in sent]
    assert (await bob.request(requests.Who("ops"))).sessions == (ann.path, bob.path)
    with pytest.raises(Refusal, match="cannot whisper to your own session"):
        await ann.request(requests.Whisper(ann.path, Body(text="me")))


async def test_clients_of_all_versions_receive_the_same(redis_url: str) -> None:
    """One channel, links of both versions and senders of both: the same messages in the same order, byte for byte."""
    async with running_node(redis_url) as two, in_version(1, two) as one:
        keys = [MachineKey.generate() for _ in range(4)]
        async with contextlib.AsyncExitStack() as stack:
            links = [
                await stack.enter_async_context(await connect(url, key, "x", register=(f"user{number}", "laptop")))
                for number, (url, key) in enumerate(zip((one, two, one, two), keys, strict=True))
            ]
            posters, listeners = links[:2], links[2:]
            assert [link.version for link in links] == [1, 2, 1, 2]
            await links[0].request(requests.ChannelCreate("ops"))
            for link in links:
                await link.request(requests.Join("ops"))
            bodies = [Body(text=f"{n} é\u2028\x1b") for n in range(20)]
            bodies += [
                Body(sealed=SealedBody(base64url.encode(bytes([n % 256, 0, 255, 10]) * n), key))
                for n, key in ((0, None), (1, "k"), (7, "clé"), (20_000, None))
            ]
            await asyncio.gather(*(poster.request(Send("ops", body)) for body in bodies for poster in posters))
            received = []
            for link in listeners:
                assert isinstance(await link.next_event(), Role)
                received.append([without_position(await link.next_event()) for _ in range(2 * len(bodies))])
            assert received[0] == received[1]
            for poster in posters:
                assert [body for _, sender, body in received[0] if sender == poster.path] == bodies
            pages = [(await link.request(History("ops", after_ts=0, limit=500))).messages for link in links]
            assert len({tuple((row.ts, row.from_, row.body) for row in page) for page in pages}) == 1
            assert [("ops", row.from_, row.body) for row in pages[0]] == received[0]


@pytest.mark.parametrize(
    "limit", [None, pytest.param(500, marks=pytest.mark.long), pytest.param(7, marks=pytest.mark.long)]
)
async def test_a_busy_history_is_read_to_its_end_and_every_row_once(
    redis_url: str, links: tuple[Link, Link], limit: int | None
) -> None:
    """Many of its rows share a millisecond, and it grows while it is read."""
    ann, bob = links
    count = 600
    stand_still(redis_url, "ops")

    async def exchange_posts() -> None:
        for start in range(0, count, 50):
            await asyncio.gather(*(ann.request(Send("ops", Body(text=str(start + n)))) for n in range(50)))

    posting = asyncio.create_task(exchange_posts())
    rows: list[Row] = []
    while True:
        complete = posting.done()
        start = History("ops", after_ts=0, limit=limit)
        page = await bob.request(History("ops", after=rows[-1].id, limit=limit) if rows else start)
        rows += page.messages
        if complete and not page.more:
            break
    await posting
    assert [row.body.text for row in rows] == [str(number) for number in range(count)]
    assert len({row.id for row in rows}) == count
    assert len({row.ts for row in rows}) < count, "no two rows share a millisecond"

"""The client's link at a real node: what it asks is understood, and what it reads is all there is."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from conclave import requests
from conclave.body import Body, SealedBody
from conclave.errors import Refusal
from conclave.events import Message, Role, Whispered
from conclave.keys import MachineKey
from conclave.link import Link, connect
from conclave.requests import History, Row, Send
from tests.support.nodes import running_node


@pytest.fixture
async def links(redis_url: str) -> AsyncIterator[tuple[Link, Link]]:
    """Ann, who has created `ops`, and bob; both have joined it and taken their Role."""
    async with (
        running_node(redis_url) as url,
        await connect(url, MachineKey.generate(), "x", register=("ann", "laptop")) as ann,
        await connect(url, MachineKey.generate(), "y", register=("bob", "desktop")) as bob,
    ):
        await ann.request(requests.ChannelCreate("ops"))
        for link in (ann, bob):
            assert await link.request(requests.Join("ops")) == requests.Joined("ops")
            assert await link.next_event() == Role(admin=False)
        yield ann, bob


async def test_what_one_says_the_other_hears(links: tuple[Link, Link]) -> None:
    """In a channel and aside, in clear and sealed."""
    ann, bob = links
    sealed = Body(sealed=SealedBody("__79_A", "k"))
    await ann.request(Send("ops", Body(text="hi")))
    await ann.request(Send("ops", sealed))
    await ann.request(requests.Whisper(bob.path, Body(text="psst")))
    assert [await bob.next_event() for _ in range(2)] == [
        Message("ops", ann.path, Body(text="hi")),
        Message("ops", ann.path, sealed),
    ]
    assert await bob.next_event() == Whispered(ann.path, Body(text="psst"))
    assert (await bob.request(requests.Who("ops"))).sessions == (ann.path, bob.path)
    with pytest.raises(Refusal, match="cannot whisper to your own session"):
        await ann.request(requests.Whisper(ann.path, Body(text="me")))


@pytest.mark.parametrize("limit", [None, 500, 7])
async def test_a_busy_history_is_read_to_its_end_and_every_row_once(
    links: tuple[Link, Link], limit: int | None
) -> None:
    """Many of its rows share a millisecond, and it grows while it is read."""
    ann, bob = links
    count = 1500

    async def talk() -> None:
        for start in range(0, count, 50):
            await asyncio.gather(*(ann.request(Send("ops", Body(text=str(start + n)))) for n in range(50)))

    talking = asyncio.create_task(talk())
    rows: list[Row] = []
    while True:
        complete = talking.done()
        start = History("ops", after_ts=0, limit=limit)
        page = await bob.request(History("ops", after=rows[-1].id, limit=limit) if rows else start)
        rows += page.messages
        if complete and not page.more:
            break
    await talking
    assert [row.body.text for row in rows] == [str(number) for number in range(count)]
    assert len({row.id for row in rows}) == count
    assert len({row.ts for row in rows}) < count, "no two rows share a millisecond"

"""Requests of a slot that is moved: their order, and those that come too late."""

import asyncio
from typing import Any

import pytest

from relay.model.errors import StoreUnavailable
from relay.redis.client import Request
from relay.redis.sharding.slot_hold import SlotHold
from relay.redis.sharding.slot_map import Redirection, parse_redirection, parse_slots
from tests.support.waiting import wait_until

ELSEWHERE = Redirection(7, ("b", 2), is_moved=True)


def request(name: str) -> Request:
    reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    return Request(name, b"", None, reply, 7)


class Hold:
    """A hold that was begun by the first of some requests on their way, and what it releases."""

    def __init__(self, *later: Request) -> None:
        self.released: list[str] | None = None
        self._hold = SlotHold(later, self._release)
        self.add_redirected = self._hold.add_redirected
        self.add = self._hold.add

    def _release(self) -> None:
        self.released = [held.name for held, _ in self._hold.requests()]

    async def is_released(self, *names: str) -> None:
        await wait_until(lambda: self.released is not None, what="the requests are released")
        assert self.released == list(names)


async def test_requests_are_released_in_the_order_of_the_calls() -> None:
    """The one that was made during the hold comes last, although the redirection of another is learned later."""
    first, second, third = map(request, ("first", "second", "third"))
    hold = Hold(second)
    hold.add_redirected(first, ELSEWHERE)
    hold.add(third)
    assert hold.released is None, "the second one is still on its way"
    hold.add_redirected(second, ELSEWHERE)
    await hold.is_released("first", "second", "third")


async def test_what_would_come_late_fails() -> None:
    """A later request of the slot was executed: the earlier one must not follow it."""
    first, second, third = map(request, ("first", "second", "third"))
    hold = Hold(second)
    hold.add_redirected(first, None)
    hold.add(third)
    second.reply.set_result(b"OK")
    await hold.is_released("third")
    with pytest.raises(StoreUnavailable):
        await first.reply


async def test_a_later_request_that_fails_changes_nothing() -> None:
    """It was not executed, as far as anybody knows."""
    first, second = map(request, ("first", "second"))
    hold = Hold(second)
    hold.add_redirected(first, ELSEWHERE)
    second.fail(StoreUnavailable("lost"))
    await hold.is_released("first")


async def test_the_replies_of_servers_that_do_not_know_their_address() -> None:
    """They leave the host out, and mean the one that was asked."""
    assert parse_redirection("MOVED 3999 127.0.0.1:6381", ("a", 1)) == Redirection(3999, ("127.0.0.1", 6381), True)
    assert parse_redirection("ASK 3999 ::1:6381", ("a", 1)) == Redirection(3999, ("::1", 6381), False)
    assert parse_redirection("MOVED 3999 :6381", ("a", 1)).address == ("a", 6381)
    assert parse_redirection("MOVED 3999 ?:6381", ("a", 1)).address == ("a", 6381)
    slots = parse_slots([[0, 1, [b"", 7000, b"id"], [b"c", 7001, b"id"]], [3, 3, [b"d", 7002, b"id", []]]], ("a", 1))
    assert slots == {0: ("a", 7000), 1: ("a", 7000), 3: ("d", 7002)}

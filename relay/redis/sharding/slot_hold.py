"""Requests whose slot is on its way to another server: they are held, and sent again in the order of the calls.

When a server redirects a request, later requests of the same slot are on their way already. Each of them is redirected
as well, or fails, or is executed. In the last case the redirected requests would come too late, and fail instead: a
request is never executed before an earlier one of its slot. Requests that are made meanwhile wait behind the others.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from relay.model.errors import StoreUnavailable
from relay.redis.client import Request
from relay.redis.sharding.slot_map import Redirection

_REST_SECONDS = 0.02
"""The time after which a slot that is still being moved is tried again."""
_WAITING_REQUESTS = 10_000


class SlotHold:
    """The held requests of one slot."""

    def __init__(self, on_its_way: Iterable[Request], release: Callable[[], None]) -> None:
        """`on_its_way` are the later requests of the slot. `release` is called once, when all can be sent again."""
        self._unanswered = set(on_its_way)
        self._release = release
        self._redirected: list[tuple[Request, Redirection | None]] = []
        self._waiting: list[Request] = []
        self._delay = 0.0
        self._timer: asyncio.TimerHandle | None = None
        for request in self._unanswered:
            request.reply.add_done_callback(partial(self._answered, request))

    def add_redirected(self, request: Request, redirection: Redirection | None) -> None:
        """Hold a request that a server has redirected; None if the server asked to try again."""
        if request.redirects or redirection is None:
            self._delay = _REST_SECONDS
        request.redirects += 1
        self._redirected.append((request, redirection))
        self._unanswered.discard(request)
        self._release_if_due()

    def add(self, request: Request) -> None:
        """Have a new request wait behind the held ones."""
        if len(self._waiting) < _WAITING_REQUESTS:
            self._waiting.append(request)
        else:
            request.fail(StoreUnavailable("too many commands wait for a slot that is being moved"))

    def requests(self) -> Iterator[tuple[Request, Redirection | None]]:
        """Yield the held requests in the order of the calls, with the redirections of those that have one."""
        yield from self._redirected
        yield from ((request, None) for request in self._waiting)

    def fail(self, error: StoreUnavailable) -> None:
        """Fail all held requests; they are not released."""
        if self._timer is not None:
            self._timer.cancel()
        for request, _ in self.requests():
            request.fail(error)

    def _answered(self, request: Request, reply: "asyncio.Future[object]") -> None:
        if request not in self._unanswered:
            return
        self._unanswered.discard(request)
        if not reply.cancelled() and reply.exception() is None:
            for held, _ in self._redirected:
                held.fail(StoreUnavailable("a later command was executed while the slot was moved"))
            self._redirected.clear()
        self._release_if_due()

    def _release_if_due(self) -> None:
        if not self._unanswered and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._delay, self._release)

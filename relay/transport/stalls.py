"""Clients that do not read: found by one timer for all connections of a node."""

import asyncio
from typing import Protocol

CHECK_SECONDS, CHECKS = 3.0, 10
"""A client that has read nothing at so many checks in a row, one each so many seconds, does not read."""


class BlockedClient(Protocol):
    """A connection whose client has to read before more should be written."""

    @property
    def unread_bytes(self) -> int:
        """The bytes that were written and that the kernel has not taken."""

    def progressed(self) -> None:
        """Take note that the client has read some of them."""

    def stalled(self) -> None:
        """Give the client up: it does not read."""


class Stalls:
    """The blocked clients of a node."""

    def __init__(self) -> None:
        self._blocked: dict[BlockedClient, tuple[int, int]] = {}
        """For each the bytes that it had not read at the last check, and the checks since it has read some."""
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, client: BlockedClient) -> None:
        """Check a client from now on, until `forget`, or until it has stalled."""
        self._blocked[client] = (client.unread_bytes, 0)
        self._schedule()

    def forget(self, client: BlockedClient) -> None:
        self._blocked.pop(client, None)

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(CHECK_SECONDS, self._check)

    def _check(self) -> None:
        self._timer = None
        for client, (unread_before, checks) in list(self._blocked.items()):
            unread = client.unread_bytes
            if unread < unread_before:  # more proves nothing: a replay writes meanwhile
                self._blocked[client] = (unread, 0)
                client.progressed()
            elif checks + 1 < CHECKS:
                self._blocked[client] = (unread, checks + 1)
            else:
                self.forget(client)
                client.stalled()
        if self._blocked:
            self._schedule()

"""The link that a server's requests go through, whichever connection is up at the moment."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from bridge.errors import InDoubt, NotConnected, ToolError
from bridge.session.servers import Server
from conclave.backoff import Backoff
from conclave.client.link import Link
from conclave.client.retry import in_doubt, not_before
from conclave.errors import LinkLost, Refusal, in_words
from conclave.protocol.requests import Request, Send, Whisper

PATIENCE_SECONDS = 5.0
"""The time that a request waits for a connection, and that one with an unknown outcome is repeated."""
FIRST_PAUSE_SECONDS = 0.2

R = TypeVar("R")


class CurrentLink:
    """One server's link, if there is one. `why` is the reason while there is none; `closed` is for good."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._link: Link | None = None
        self._up = asyncio.Event()
        self.why = "connecting"
        self.closed = False

    @property
    def up(self) -> bool:
        return self._link is not None

    def set(self, link: Link) -> None:
        self._link = link
        self._server.up = True
        self._up.set()

    def unset(self, why: str | None = None) -> None:
        """Note that the link is gone; without a reason, the last one stays."""
        self.why = self.why if why is None else why
        self._up.clear()
        self._link = None
        self._server.up = False

    def close(self, why: str) -> None:
        """Note that there will be no link any more."""
        self.closed = True
        self.unset(why)

    async def ask(self, request: Request[R], before_send: Callable[[], None]) -> R:
        """Ask the server. A request with an idempotency key is sent again if nothing tells what became of it.

        `before_send` is called immediately before the request is sent; if it raises, nothing is sent.

        Raises:
            Refusal: the server's answer instead of a result.
            NotConnected: if there is no connection within `PATIENCE_SECONDS`; nothing was sent.
            LinkLost: if the connection ends before the answer; the request may have taken effect.
            InDoubt: if the server itself does not know.
        """
        link = await self._wait()
        before_send()
        try:
            return await self._request(link, request)
        except (LinkLost, Refusal) as failure:
            key = request.key if isinstance(request, Send | Whisper) else None
            if key is None or link.version == 1 or not _is_unsure(failure):
                raise
            return await self._ask_again(request, before_send, failure)

    async def _ask_again(self, request: Request[R], before_send: Callable[[], None], unsure: LinkLost | Refusal) -> R:
        """Repeat a request that has no second effect; only its answer tells what became of the first one.

        A server that does not know is asked for `PATIENCE_SECONDS`. After two lost connections in a row it is over.
        """
        clock = asyncio.get_running_loop().time
        until, pause = clock() + PATIENCE_SECONDS, Backoff(FIRST_PAUSE_SECONDS, PATIENCE_SECONDS)
        while True:
            if isinstance(unsure, Refusal):
                seconds = max(pause.wait(), not_before(unsure))
                if clock() + seconds > until:
                    raise _in_doubt(unsure) from unsure
                await asyncio.sleep(seconds)
            try:
                link = await self._wait()
                if link.version == 1:  # v1 has no idempotency keys
                    raise _in_doubt(unsure)
                before_send()
                return await self._request(link, request)
            except (NotConnected, ToolError):
                raise _in_doubt(unsure) from None
            except (LinkLost, Refusal) as failure:
                if isinstance(failure, Refusal) and not _is_unsure(failure):
                    raise _in_doubt(unsure, f"; asked again, the server refused: {failure.message}") from failure
                if isinstance(failure, LinkLost) and isinstance(unsure, LinkLost):
                    raise
                unsure = failure

    async def _request(self, link: Link, request: Request[R]) -> R:
        try:
            return await link.request(request)
        except LinkLost as lost:
            if self._link is link:  # its reader has not noticed yet
                self.unset(str(lost))
            raise

    async def _wait(self) -> Link:
        """Wait for a connection on which the session has joined its channels. Raises: NotConnected."""
        try:
            async with asyncio.timeout(0 if self.closed else PATIENCE_SECONDS):
                while self._link is None:  # it may be gone again when this task gets to run
                    await self._up.wait()
        except TimeoutError:
            raise NotConnected(f"not connected to `{self._server.url}`: {self.why}") from None
        return self._link


def _is_unsure(failure: LinkLost | Refusal) -> bool:
    return isinstance(failure, LinkLost) or in_doubt(failure)


def _in_doubt(unsure: LinkLost | Refusal, more: str = "") -> LinkLost | InDoubt:
    """Return the error for a first attempt whose outcome stays unknown; its text gives the agent the reason."""
    return LinkLost(f"{unsure}{more}") if isinstance(unsure, LinkLost) else InDoubt(f"{in_words(unsure)}{more}")

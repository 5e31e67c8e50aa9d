"""One server's connection for as long as the bridge runs: made, lost, and made again with the session's channels."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from bridge.connection.current_link import CurrentLink
from bridge.connection.effects import run_effects
from bridge.connection.handles import Handle
from bridge.connection.status_notices import StatusNotices
from bridge.session import presentation
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from conclave.backoff import Backoff
from conclave.client.link import Link, connect
from conclave.client.retry import may_retry, not_before, superseded
from conclave.client.trust import Pins
from conclave.errors import InvalidUrl, LinkError, LinkLost, LoginRefused, NotTrusted, Refusal
from conclave.protocol.credentials import Signer

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.2, 30.0
STABLE_SECONDS = 30.0
"""The duration of a connection after which the wait before the next attempt starts small again."""
LOOKUP_SECONDS = 10.0
"""The interval at which messages without a position are looked up in the history."""

_log = logging.getLogger(__name__)


class Uplink:
    """Keeps one server connected. Its owner runs `run` in a task, and calls `close` when that has ended.

    Requests go through `current`.
    """

    def __init__(
        self,
        server: Server,
        session: BridgeSession,
        *,
        key: Signer,
        handle: Handle,
        pins: Pins,
        claim: Callable[[Server, str], None],
        changed: Callable[[], None],
    ) -> None:
        """`claim` is given the id of a cluster before the login, and may raise SameCluster.

        `changed` is called when the list of tools may be another one.
        """
        self.server = server
        self.current = CurrentLink(server)
        self._session = session
        self._key = key
        self._handle = handle
        self._pins = pins
        self._claim = claim
        self._changed = changed
        self._notices = StatusNotices(server, session, self.current)
        self._backoff = Backoff(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
        self._not_before = 0.0

    async def run(self) -> None:
        """Connect and stay connected until `stand_down`, or until another session takes the handle for good.

        Raises:
            SameCluster: if the server is one that another uplink is connected to. `run` may be called again.
        """
        self._notices.down()
        while not self.current.closed:
            await self._once()

    def stand_down(self, why: str) -> None:
        """Note that this uplink is not needed any more."""
        self.current.close(why)

    def close(self) -> None:
        """Fail requests that still wait for a connection."""
        self.current.unset(None if self.current.closed else "the bridge is ending")
        self._notices.cancel()

    # --- One connection after the other ---

    async def _once(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            link = await self._connect()
        except InvalidUrl as error:  # only the owner can correct it, and restart the bridge
            self.stand_down(str(error))
            self._notices.error(f"Not connected: {presentation.line(str(error))}")
        except LinkError as error:
            self._lost(error)
        else:
            try:
                async with link:
                    began = clock()
                    await self._serve(link)
            except LinkError as error:
                self._lost(error)
            except Refusal as refusal:  # the server cannot take the session into its channels at the moment
                self._lost(LinkLost(refusal.message, retry_after=refusal.retry_after))
            finally:
                self.current.unset()
            if clock() - began >= STABLE_SECONDS:
                self._backoff.reset()
        if not self.current.closed:
            await asyncio.sleep(max(self._backoff.wait(), self._not_before))

    async def _connect(self) -> Link:
        """Try the server's URLs in the owner's order; raise the last one's failure, InvalidUrl if all are invalid."""
        failure: LinkError | InvalidUrl | None = None
        for url in list(self.server.urls):
            try:
                return await self._dial(url)
            except InvalidUrl as error:
                failure = failure or error
            except LinkError as error:
                if isinstance(error, LoginRefused) and not may_retry(error):
                    raise
                _log.warning("server connect failed; will retry: %s: %s", url, error)
                # Of several failures, the owner has to know the one that only the owner can resolve.
                failure = failure if isinstance(failure, NotTrusted) else error
        raise failure or LinkError("no URL to connect to")

    async def _dial(self, url: str) -> Link:
        """Connect to a URL: to the cluster that is pinned for it, or else for another URL of the same server."""
        expected = next(filter(None, map(self._pins.expected, [url, *self.server.urls])), None)
        link = await connect(url, self._key, self._handle.name, check_server=self._check_server, cluster=expected)
        try:
            await self._pins.note(url, link.cluster)
        except BaseException:
            await link.close()
            raise
        return link

    def _check_server(self, server_id: str | None) -> None:
        if server_id is not None:
            self._claim(self.server, server_id)

    async def _serve(self, link: Link) -> None:
        try:
            await self._follow(link)
        except LinkError as error:  # the close takes a moment, in which nothing may be asked
            self.current.unset(str(error))
            raise

    async def _follow(self, link: Link) -> None:
        server = self.server
        server.path, server.version, server.admin, server.now_ms = link.path, link.version, link.admin, link.server_ms
        await run_effects(self._session.rejoin(server), link.request)
        self._became_ready(link)
        clock = asyncio.get_running_loop().time
        look_up_at = clock() + LOOKUP_SECONDS
        while True:
            if link.queued == 0:
                self._session.quiet(server)
                self._changed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(look_up_at):
                    event = await link.next_event()
                    had_unknown = server.has_unknown_channels
                    self._session.receive(server, event)
                    if server.has_unknown_channels and not had_unknown:
                        look_up_at = clock()
            if clock() >= look_up_at:
                await run_effects(self._session.look_up(server), link.request)
                look_up_at = clock() + LOOKUP_SECONDS

    def _became_ready(self, link: Link) -> None:
        self.current.set(link)
        self._notices.up(link.path)
        self._changed()

    def _lost(self, error: LinkError) -> None:
        self.current.unset(str(error))
        self._notices.down()
        self._not_before = min(not_before(error), LONGEST_WAIT_SECONDS)
        if isinstance(error, LinkLost | LoginRefused) and superseded(error):
            self._superseded()
        elif not may_retry(error):
            self._notices.refused(error)

    def _superseded(self) -> None:
        old, self._handle = self._handle, self._handle.superseded()
        taken = f"Another live session holds the handle `{old.name}`"
        if self._handle != old:
            text = (
                f"{taken} — reconnecting to `{self.server.url}` as `{self._handle.name}` (pass `--as` to pin a name)."
            )
            self._backoff.reset()
        else:
            text = (
                f"{taken} on `{self.server.url}`, and this one was given the same with `--as`. It stays disconnected "
                "there; start it again with a handle of its own."
            )
            self.stand_down(f"another live session holds the handle `{old.name}`; restart with a distinct `--as`")
        self._notices.notice(text)

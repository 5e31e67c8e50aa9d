"""One server's connection, for as long as the bridge runs: made, lost, made again with the session's channels in it."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from bridge.connection.effects import run_effects
from bridge.connection.handles import Handle
from bridge.session import presentation
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from bridge.tools.table import ToolError
from conclave.backoff import Backoff
from conclave.client.link import Link, connect
from conclave.client.retry import in_doubt, may_retry, not_before, superseded
from conclave.client.trust import Pins
from conclave.errors import ConclaveError, InvalidUrl, LinkError, LinkLost, LoginRefused, NotTrusted, Refusal, in_words
from conclave.protocol.credentials import Signer
from conclave.protocol.requests import Request, Send, Whisper

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.2, 30.0
STABLE_SECONDS = 30.0
"""How long a connection has to last until its loss is answered as quickly as the first one was."""
PATIENCE_SECONDS = 5.0
"""How long a request waits for a connection, and how long the connection is away before the session is told."""
SETTLE_SECONDS = 10.0
"""How often messages that came without a position are looked for in the history."""

R = TypeVar("R")

_log = logging.getLogger(__name__)


class NotConnected(ConclaveError):
    """There is no connection to ask through; nothing was sent."""


class InDoubt(ConclaveError):
    """The server cannot tell whether it has done what it was asked for."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; it may have happened: look before you retry")


class SameCluster(ConclaveError):
    """The other end is a cluster that another uplink is connected to; nothing was sent to it."""

    def __init__(self, owner: "Uplink") -> None:
        super().__init__(f"it is the same server as `{owner.server.url}`")
        self.owner = owner


class Switchboard(Protocol):
    """What the uplinks of one bridge share."""

    def claim(self, uplink: "Uplink", server_id: str) -> None:
        """Note where an uplink is about to log in. Raises: SameCluster."""

    async def merge(self, uplink: "Uplink", owner: "Uplink") -> bool:
        """Make one of two uplinks to one cluster; True if it is `uplink` that stays, with the URLs of both."""

    def changed(self) -> None:
        """Note that something may have changed that the list of tools depends on."""

    @property
    def pins(self) -> Pins:
        """Which clusters have to answer."""


class Uplink:
    """Keeps one server connected. `run` it in a task; cancelling that ends it."""

    def __init__(
        self, server: Server, session: BridgeSession, switchboard: Switchboard, key: Signer, handle: Handle
    ) -> None:
        self.server = server
        self._session = session
        self._switchboard = switchboard
        self._key = key
        self._handle = handle
        self._link: Link | None = None
        self._ready = asyncio.Event()
        self._why = "connecting"
        self._over = False
        self._was_up = False
        self._told_down = False
        self._told: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._backoff = Backoff(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
        self._not_before = 0.0

    async def ask(self, request: Request[R], departs: Callable[[], None]) -> R:
        """Ask the server, on whatever connection there is; what carries a key again, if nobody knows what became of it.

        `departs` is called when there is one, immediately before the request goes out; what it raises keeps it here.

        Raises:
            Refusal: what the server answers instead.
            NotConnected: if there is no connection within `PATIENCE_SECONDS`; nothing was sent.
            LinkLost: if the connection ends before the answer; the request may have taken effect.
            InDoubt: if the server itself does not know.
        """
        link = await self._connected()
        departs()
        try:
            return await self._request(link, request)
        except (LinkLost, Refusal) as failure:
            key = request.key if isinstance(request, Send | Whisper) else None
            if key is None or link.version == 1 or not _is_unsure(failure):
                raise
            return await self._ask_again(request, departs, failure)

    async def _ask_again(self, request: Request[R], departs: Callable[[], None], unsure: LinkLost | Refusal) -> R:
        """Ask what has no second effect; only an answer tells now what became of the first one.

        A server that does not know is asked for `PATIENCE_SECONDS`, a connection that is lost twice in a row not again.
        """
        clock = asyncio.get_running_loop().time
        until, pause = clock() + PATIENCE_SECONDS, Backoff(FIRST_WAIT_SECONDS, PATIENCE_SECONDS)
        while True:
            if isinstance(unsure, Refusal):
                seconds = max(pause.wait(), not_before(unsure))
                if clock() + seconds > until:
                    raise _in_doubt(unsure) from unsure
                await asyncio.sleep(seconds)
            try:
                link = await self._connected()
                if link.version == 1:  # it would be a second effect there
                    raise _in_doubt(unsure)
                departs()
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
            if self._link is link:  # whoever listens on it has not noticed yet
                self._not_ready(str(lost))
            raise

    async def _connected(self) -> Link:
        """Wait for a connection with the session's channels in it. Raises: NotConnected."""
        try:
            async with asyncio.timeout(0 if self._over else PATIENCE_SECONDS):
                while self._link is None:  # it may be gone again when whoever waits for it gets to run
                    await self._ready.wait()
        except TimeoutError:
            raise NotConnected(f"not connected to `{self.server.url}`: {self._why}") from None
        return self._link

    async def run(self) -> None:
        """Connect and stay connected, until another uplink or another session takes over."""
        self._expect()
        try:
            while not self._over:
                await self._once()
        finally:
            self._not_ready(self._why if self._over else "the bridge is ending")
            if self._timer is not None:
                self._timer.cancel()

    def stand_down(self, why: str) -> None:
        """Note that this uplink has nothing to do any more."""
        self._over = True
        self._not_ready(why)

    # --- One connection after the other ---

    async def _once(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            link = await self._connect()
        except SameCluster as same:
            if not await self._switchboard.merge(self, same.owner):
                self.stand_down(f"it is the same server as `{same.owner.server.url}`; target that one instead")
            return
        except InvalidUrl as error:  # not before the owner has mended it, and the bridge is started again
            self.stand_down(str(error))
            self._session.notice(self.server, f"Not connected: {presentation.line(str(error))}", "error")
        except LinkError as error:
            self._lost(error)
        else:
            try:
                async with link:
                    began = clock()
                    await self._serve(link)
            except LinkError as error:
                self._lost(error)
            except Refusal as refusal:  # the server cannot let the session into its channels just now
                self._lost(LinkLost(refusal.message, retry_after=refusal.retry_after))
            finally:
                self._not_ready(self._why)
            if clock() - began >= STABLE_SECONDS:
                self._backoff.reset()
        if not self._over:
            await asyncio.sleep(max(self._backoff.wait(), self._not_before))

    async def _connect(self) -> Link:
        """Try the server's URLs in the owner's order; raise what the last one gave, InvalidUrl if that is all."""
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
                # Of several failures, the owner has to know of the one that only the owner can mend.
                failure = failure if isinstance(failure, NotTrusted) else error
        raise failure or LinkError("no URL to connect to")

    async def _dial(self, url: str) -> Link:
        """Connect to where a URL leads: to the cluster of its pin, or else of the pin of another way there."""
        pins = self._switchboard.pins
        expected = next(filter(None, map(pins.expected, [url, *self.server.urls])), None)
        link = await connect(url, self._key, self._handle.name, check_server=self._check_server, cluster=expected)
        try:
            await pins.note(url, link.cluster)
        except BaseException:
            await link.close()
            raise
        return link

    def _check_server(self, server_id: str | None) -> None:
        if server_id is not None:
            self._switchboard.claim(self, server_id)

    async def _serve(self, link: Link) -> None:
        try:
            await self._follow(link)
        except LinkError as error:  # to close it takes a moment, in which nothing may be asked
            self._not_ready(str(error))
            raise

    async def _follow(self, link: Link) -> None:
        server = self.server
        server.path, server.version, server.admin, server.now_ms = link.path, link.version, link.admin, link.server_ms
        await run_effects(self._session.entering(server), link.request)
        self._became_ready(link)
        clock = asyncio.get_running_loop().time
        settle_at = clock() + SETTLE_SECONDS
        while True:
            if link.queued == 0:
                self._session.quiet(server)
                self._switchboard.changed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(settle_at):
                    event = await link.next_event()
                    puzzled = server.puzzled
                    self._session.heard(server, event)
                    if server.puzzled and not puzzled:
                        settle_at = clock()
            if clock() >= settle_at:
                await run_effects(self._session.settle(server), link.request)
                settle_at = clock() + SETTLE_SECONDS

    # --- What the session is told ---

    def _became_ready(self, link: Link) -> None:
        self._link = link
        self.server.up = True
        self._ready.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._told is not None:
            verb = "Reconnected" if self._was_up else "Connected"
            self._session.notice(self.server, f"{verb} to `{self.server.url}` as {link.path}.")
        self._was_up, self._told = True, None
        self._switchboard.changed()

    def _not_ready(self, why: str) -> None:
        self._why = why
        self._ready.clear()
        self._link = None
        self.server.up = False

    def _lost(self, error: LinkError) -> None:
        self._not_ready(str(error))
        self._expect()
        self._not_before = min(not_before(error), LONGEST_WAIT_SECONDS)
        if isinstance(error, LinkLost | LoginRefused) and superseded(error):
            self._superseded()
        elif not may_retry(error):
            self._refused(error)

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
        self._session.notice(self.server, text)

    def _refused(self, error: LinkError) -> None:
        """The server does not want this session, or must not have it; tell it once, and look again from time to time.

        An owner who says that another cluster is to be trusted is heard the next time.
        """
        why = presentation.line(str(error))
        if isinstance(error, NotTrusted):
            text = f"Not connected to `{self.server.url}`: {why}"
        else:
            text = f"`{self.server.url}` refused this machine: {why} — still trying, rarely."
        if self._told != text:
            self._told = text
            self._session.notice(self.server, text, "error")

    def _expect(self) -> None:
        """Tell the session if there is no connection within a while."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._tell_down)

    def _tell_down(self) -> None:
        self._timer = None
        if self._over or self._ready.is_set() or self._told is not None:
            return
        url = self.server.url
        if self._was_up:
            text = f"Disconnected from `{url}` — reconnecting."
        else:
            text = f"Cannot reach `{url}`: {presentation.line(self._why)} — still trying."
        self._told = text
        self._session.notice(self.server, text)


def _is_unsure(failure: LinkLost | Refusal) -> bool:
    return isinstance(failure, LinkLost) or in_doubt(failure)


def _in_doubt(unsure: LinkLost | Refusal, more: str = "") -> LinkLost | InDoubt:
    """Return what to raise if an answer to the first attempt is not to be had; the agent is told why."""
    return LinkLost(f"{unsure}{more}") if isinstance(unsure, LinkLost) else InDoubt(f"{in_words(unsure)}{more}")

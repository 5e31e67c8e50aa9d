"""The notices about one server's connection: lost, refused, up again. Each state is told once."""

import asyncio

from bridge.connection.current_link import PATIENCE_SECONDS, CurrentLink
from bridge.session import presentation
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from conclave.errors import ConclaveError, NotTrusted


class StatusNotices:
    """Tells the session about a connection. A loss that lasts less than `PATIENCE_SECONDS` is not mentioned."""

    def __init__(self, server: Server, session: BridgeSession, current: CurrentLink) -> None:
        self._server = server
        self._session = session
        self._current = current
        self._was_up = False
        self._told: str | None = None
        """The last notice, unless the connection has come up since."""
        self._timer: asyncio.TimerHandle | None = None

    def notice(self, text: str) -> None:
        self._session.notice(self._server, text)

    def error(self, text: str) -> None:
        self._session.notice(self._server, text, "error")

    def down(self) -> None:
        """Give the connection `PATIENCE_SECONDS` to come up before the session is told that it is down."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._tell_down)

    def up(self, path: str) -> None:
        self.cancel()
        if self._told is not None:
            verb = "Reconnected" if self._was_up else "Connected"
            self.notice(f"{verb} to `{self._server.url}` as {path}.")
        self._was_up, self._told = True, None

    def cancel(self) -> None:
        """Give up a notice that is planned."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def refused(self, error: ConclaveError) -> None:
        """Tell that the server refuses the session, or is not trusted; the same reason is told once.

        The bridge keeps trying, so a `conclave server trust` of the owner takes effect with the next attempt.
        """
        why = presentation.line(str(error))
        if isinstance(error, NotTrusted):
            text = f"Not connected to `{self._server.url}`: {why}"
        else:
            text = f"`{self._server.url}` refused this machine: {why} — still trying, rarely."
        if self._told != text:
            self._told = text
            self.error(text)

    def _tell_down(self) -> None:
        self._timer = None
        if self._current.closed or self._current.up or self._told is not None:
            return
        url = self._server.url
        if self._was_up:
            text = f"Disconnected from `{url}` — reconnecting."
        else:
            text = f"Cannot reach `{url}`: {presentation.line(self._current.why)} — still trying."
        self._told = text
        self.notice(text)

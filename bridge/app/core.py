"""The composition of the bridge: the session, the connections, and the owner's configuration."""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from bridge.app.config_watch import watch
from bridge.app.options import Options
from bridge.connection.effects import run_effects
from bridge.mcp.protocol import Outlet, ToolResult
from bridge.session import presentation
from bridge.session.levels import Levels
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from bridge.session.watermarks import Watermarks
from bridge.tools import dispatch
from bridge.tools.dispatch import ToolInvocation
from conclave.client.trust import Pins
from conclave.errors import ConclaveError, ConfigError, LinkLost, Refusal, in_words
from conclave.machine.config import LocalConfig
from conclave.protocol.requests import Request

if TYPE_CHECKING:
    from bridge.connection.connections import Connections

SAVE_SECONDS = 2.0
"""The interval at which the watermarks are written."""

_log = logging.getLogger(__name__)


class Core:
    """The tools of one session, and the tasks that keep it connected."""

    def __init__(self, options: Options, outlet: Outlet) -> None:
        self._options = options
        self._outlet = outlet
        self._levels = Levels(options.config)
        self._pins = Pins(options.config_path, options.config)
        self._watermarks = Watermarks(options.state)
        self._session = BridgeSession([Server(url) for url in options.urls], self._levels, self._watermarks, outlet)
        self._connections: Connections | None = None
        self._started = asyncio.Event()
        self._offers = dispatch.offered(self._session)

    # --- Tools ---

    def listed(self) -> list[dict[str, Any]]:
        return dispatch.listed(self._session)

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        """Carry out a tool. Every failure is told in the result.

        A cancelled call stops, unless a request that changes something may have been sent: then it runs to its end, so
        that the session knows its effect.
        """
        try:
            call = dispatch.begin(self._session, name, arguments)
        except ConclaveError as error:
            return _failure(str(error))
        asked = asyncio.Event()
        running = asyncio.create_task(self._carry_out(call, asked))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            if not (not call.tool.idempotent and asked.is_set()):
                running.cancel()
        return await running

    async def _carry_out(self, call: ToolInvocation, asked: asyncio.Event) -> ToolResult:
        try:
            return ToolResult(await run_effects(call.effects, partial(self._ask, call, asked)))
        except Refusal as refusal:
            return _failure(in_words(refusal))
        except LinkLost as error:
            return _failure(_lost(call, error))
        except ConclaveError as error:
            return _failure(str(error))
        finally:
            self._changed()

    async def _ask(self, call: ToolInvocation, asked: asyncio.Event, request: Request[Any]) -> Any:
        def before_send() -> None:
            call.permit()
            asked.set()

        await self._started.wait()
        assert self._connections is not None  # noqa: S101 - it was started
        return await self._connections.ask(call.server, request, before_send)

    def _changed(self) -> None:
        """Announce the list of tools, if it has changed."""
        offers = dispatch.offered(self._session)
        if offers != self._offers:
            self._offers = offers
            self._outlet.tools_changed()

    # --- In the background ---

    async def run(self) -> None:
        """Connect to the servers, follow the configuration, save the watermarks; ends only by being cancelled."""
        from bridge.connection.connections import Connections  # noqa: PLC0415 - imports the WebSocket client

        connections = self._connections = Connections(
            self._session, self._options.key, self._options.handle, self._pins, self._changed
        )
        self._started.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(connections.run())
                tasks.create_task(
                    watch(self._options.config_path, self._reconfigured, self._repeated, self._misconfigured)
                )
                tasks.create_task(self._keep_saving())
        finally:
            self._watermarks.save()

    async def _keep_saving(self) -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            self._watermarks.save()

    def _reconfigured(self, config: LocalConfig) -> None:
        self._levels.configure(config)
        self._pins.configure(config)
        self._changed()

    def _repeated(self) -> None:
        self._levels.repeat()
        self._changed()

    def _misconfigured(self, error: ConfigError) -> None:
        _log.warning("the configuration stays as it was: %s", error)


def _lost(call: ToolInvocation, error: LinkLost) -> str:
    if not call.tool.idempotent:
        return f"connection to `{call.server.url}` lost ({error}); it may have happened: look before you retry"
    return f"connection to `{call.server.url}` lost; retry"


def _failure(text: str) -> ToolResult:
    return ToolResult(presentation.line(text), is_error=True)

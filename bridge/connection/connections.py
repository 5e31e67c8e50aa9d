"""The uplinks of one bridge. Several URLs that lead to one cluster share one uplink.

A cluster tells its id before the login. Of several URLs with one id, the first in the owner's configuration names the
server, whichever answered first; the others become further ways to it, for when the first one does not answer.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from bridge.connection.handles import Handle
from bridge.connection.uplink import Uplink
from bridge.errors import SameCluster
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from conclave.client.trust import Pins
from conclave.protocol.credentials import Signer
from conclave.protocol.requests import Request

R = TypeVar("R")


class Connections:
    """Runs an uplink for each server, in the order of the owner's configuration."""

    def __init__(
        self, session: BridgeSession, key: Signer, handle: Handle, pins: Pins, changed: Callable[[], None]
    ) -> None:
        """`changed` is called when the list of tools may be another one."""
        self._session = session
        self._uplinks = [
            Uplink(server, session, key=key, handle=handle, pins=pins, claim=self.claim, changed=changed)
            for server in session.servers
        ]
        self._running: dict[Uplink, asyncio.Task[None]] = {}
        self._claims: dict[str, Server] = {}
        self._merging = asyncio.Lock()
        self._changed = changed

    async def run(self) -> None:
        """Keep all servers connected; ends only by being cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for uplink in self._uplinks:
                self._running[uplink] = tasks.create_task(self._keep(uplink))
            await asyncio.Event().wait()

    async def ask(self, server: Server, request: Request[R], before_send: Callable[[], None]) -> R:
        """Ask a server, as `CurrentLink.ask`; one that was merged into another is asked through that one."""
        return await self.uplink(server.url).current.ask(request, before_send)

    def uplink(self, url: str) -> Uplink:
        """Return the uplink that a URL belongs to now."""
        return next(each for each in self._uplinks if url in each.server.urls)

    def claim(self, server: Server, server_id: str) -> None:
        """Note to which cluster a server's uplink is about to log in. Raises: SameCluster."""
        owner = self._claims.setdefault(server_id, server)
        if owner is not server:
            raise SameCluster(owner.url)
        server.id = server_id

    async def _keep(self, uplink: Uplink) -> None:
        try:
            while True:
                try:
                    return await uplink.run()
                except SameCluster as same:
                    if not await self.merge(uplink, same.known):
                        return None
        finally:
            uplink.close()

    async def merge(self, uplink: Uplink, known: str) -> bool:
        """Merge an uplink with that of the URL `known`, which leads to the same cluster; tell if `uplink` stays."""
        async with self._merging:  # a merge takes a moment, in which another one may replace the uplink of that URL
            other = self.uplink(known)
            if other is uplink:  # that was the case
                return True
            stays, goes = sorted((uplink, other), key=self._uplinks.index)
            await self._merge(stays=stays, goes=goes, running=uplink)
            return stays is uplink

    async def _merge(self, *, stays: Uplink, goes: Uplink, running: Uplink) -> None:
        url = stays.server.url
        goes.stand_down(f"it is the same server as `{url}`; target that one instead")
        if goes is not running:
            self._running[goes].cancel()
            await asyncio.wait([self._running[goes]])
        self._claims = {id_: stays.server if who is goes.server else who for id_, who in self._claims.items()}
        stays.server.absorb(goes.server)
        self._uplinks.remove(goes)
        if goes.server in self._session.servers:
            self._session.servers.remove(goes.server)
        self._session.notice(stays.server, f"`{goes.server.url}` is the same server as `{url}`; target `{url}`.")
        self._changed()

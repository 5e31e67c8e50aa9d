"""The uplinks of one bridge, and which of them lead to the same cluster.

A cluster tells its id before the login. Of several URLs that lead to one, the first that the owner configured names it,
whichever answered first; the others become further ways to it, for when the first one does not answer.
"""

import asyncio
from collections.abc import Callable

from bridge.connection.handles import Handle
from bridge.connection.uplink import SameCluster, Uplink
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from conclave.client.trust import Pins
from conclave.protocol.credentials import Signer


class Connections:
    """Runs an uplink for each server, in the order of the owner's configuration."""

    def __init__(
        self, session: BridgeSession, key: Signer, handle: Handle, pins: Pins, changed: Callable[[], None]
    ) -> None:
        """`changed` is called when the list of tools may be another one."""
        self._session = session
        self._uplinks = [Uplink(server, session, self, key, handle) for server in session.servers]
        self._running: dict[Uplink, asyncio.Task[None]] = {}
        self._claims: dict[str, Uplink] = {}
        self.pins = pins
        self._merging = asyncio.Lock()
        self._successors: dict[Uplink, Uplink] = {}
        """For an uplink that gave way to another one: that one."""
        self.changed = changed

    async def run(self) -> None:
        """Keep everything connected; does not return by itself."""
        async with asyncio.TaskGroup() as tasks:
            for uplink in self._uplinks:
                self._running[uplink] = tasks.create_task(uplink.run())
            await asyncio.Event().wait()

    def uplink(self, server: Server) -> Uplink:
        """Return a server's uplink; for one that was merged into another meanwhile, that of the other."""
        return next(each for each in self._uplinks if each.server is server or server.url in each.server.urls)

    def claim(self, uplink: Uplink, server_id: str) -> None:
        owner = self._claims.setdefault(server_id, uplink)
        if owner is not uplink:
            raise SameCluster(owner)
        uplink.server.id = server_id

    async def merge(self, uplink: Uplink, owner: Uplink) -> bool:
        async with self._merging:  # each takes a moment, and the owner may have given way to another one meanwhile
            while owner in self._successors:
                owner = self._successors[owner]
            return await self._merge(uplink, owner)

    async def _merge(self, uplink: Uplink, owner: Uplink) -> bool:
        stays = min(uplink, owner, key=self._uplinks.index)
        goes = owner if stays is uplink else uplink
        if goes is owner:
            goes.stand_down(f"it is the same server as `{stays.server.url}`; target that one instead")
            self._running[goes].cancel()
            await asyncio.wait([self._running[goes]])
            self._claims = {id_: stays if who is goes else who for id_, who in self._claims.items()}
        stays.server.absorb(goes.server)
        self._uplinks.remove(goes)
        self._successors[goes] = stays
        if goes.server in self._session.servers:
            self._session.servers.remove(goes.server)
        text = f"`{goes.server.url}` is the same server as `{stays.server.url}`; target `{stays.server.url}`."
        self._session.notice(stays.server, text)
        self.changed()
        return stays is uplink

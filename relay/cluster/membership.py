"""A node's membership of the cluster: a state machine, and the heartbeat that keeps the node in.

    OUTSIDE   --join-->      JOINED      its name is in the registry
    JOINED    --announce-->  ANNOUNCED   its inbox is read, its own topic is subscribed
    ANNOUNCED --record-->    SERVING     every session is recorded
    EVICTED   --rename-->    JOINED      others declared it dead: it takes a new name
    REJOINING --beat-->      JOINED      Redis was away; or EVICTED, if the node was declared dead meanwhile

Each step may be repeated, and one that fails is the next one to be tried. One step runs at a time. An interruption
during a step counts after it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum

import structlog

from relay.cluster.janitor import Janitor
from relay.cluster.probe import Probe
from relay.cluster.session_records import SessionRecords
from relay.model.errors import StoreUnavailable
from relay.redis.inbox import Inbox
from relay.redis.node_registry import BEAT_SECONDS, NodeRegistry

log = structlog.get_logger()

_RETRY_SECONDS = 0.5


class State(Enum):
    """The states; the value says why a node in this state takes no new sessions."""

    OUTSIDE = "starting"
    JOINED = "joining the cluster"
    ANNOUNCED = "writing the records of its sessions again"
    SERVING = ""
    EVICTED = "declared dead by other nodes, and joining the cluster again"
    REJOINING = "joining the cluster again after Redis was away"


class Membership:
    """Joins the cluster, stays in it, and comes back."""

    def __init__(
        self,
        *,
        registry: NodeRegistry,
        inbox: Inbox,
        probe: Probe,
        janitor: Janitor,
        records: SessionRecords,
    ) -> None:
        self._registry = registry
        self._inbox = inbox
        self._probe = probe
        self._janitor = janitor
        self._records = records
        self._state = State.OUTSIDE
        self._interruptions = 0
        self._interrupted = asyncio.Event()
        self._stepping = asyncio.Lock()
        self._announced = ""
        """The name whose inbox is read."""
        self._former: set[str] = set()
        """Earlier names of this node, whose lists are still to be removed."""
        self._steps: dict[State, Callable[[], Awaitable[State]]] = {
            State.OUTSIDE: self._join,
            State.JOINED: self._announce,
            State.ANNOUNCED: self._record,
            State.EVICTED: self._rename,
            State.REJOINING: self._beat_again,
        }

    @property
    def state(self) -> State:
        return self._state

    async def complete(self) -> None:
        """Take the steps that are missing until the node is serving. Raises: StoreUnavailable, and may be repeated."""
        async with self._stepping:
            while self._state is not State.SERVING:
                before = self._interruptions
                reached = await self._steps[self._state]()
                if self._interruptions == before:
                    self._state = reached

    def interrupt(self) -> None:
        """Take up the membership again: Redis was away, or has lost writes. `serve` does it."""
        self._registry.restart_timeouts()
        self._leave_state(State.REJOINING)

    def _leave_state(self, state: State) -> None:
        if self._state is not State.OUTSIDE:
            self._state = state
            self._interruptions += 1
            self._interrupted.set()

    async def serve(self) -> None:
        """Send heartbeats, come back after interruptions, and clean up, until cancelled. Outages are waited out."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_heartbeats())
            tasks.create_task(self._come_back())
            tasks.create_task(self._janitor.serve())

    async def _send_heartbeats(self) -> None:
        """Beat and probe every two seconds; nothing that can be slow is done here."""
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            due = max(due + BEAT_SECONDS, clock())
            await asyncio.sleep(due - clock())
            try:
                await self._beat()
            except StoreUnavailable as error:
                log.debug("heart.skipped", error=error.why)

    async def _beat(self) -> None:
        if self._state in (State.OUTSIDE, State.EVICTED):
            return
        if not await self._registry.beat():
            self._leave_state(State.EVICTED)
            return
        await self._probe.send()
        self._probe.check()

    async def _come_back(self) -> None:
        logged = ""
        while True:
            await self._interrupted.wait()
            try:
                await self.complete()
            except StoreUnavailable as error:
                if error.why != logged:
                    logged = error.why
                    log.warning("node.rejoining", state=self._state.name, error=error.why)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                logged = ""
                self._interrupted.clear()
                log.info("node.serving", node=self._registry.node)

    async def leave(self) -> None:
        """Take this node, which has no sessions any more, out of the cluster. `serve` must have ended.

        Raises: StoreUnavailable; then the other nodes remove what is left.
        """
        await self._records.settle()
        await self._inbox.close(self._registry.node)
        await self._registry.remove(self._registry.node)

    # --- Steps, each of which returns the state that it leads to ---

    async def _join(self) -> State:
        await self._registry.join()
        return State.JOINED

    async def _rename(self) -> State:
        former = self._registry.rename()
        if former == self._announced:
            log.warning("node.evicted", node=former)
            self._former.add(former)
        return await self._join()

    async def _beat_again(self) -> State:
        return State.JOINED if await self._registry.beat() else State.EVICTED

    async def _announce(self) -> State:
        node = self._registry.node
        if self._announced != node:
            await self._inbox.switch_to(node)
            await self._probe.subscribe(node)
            self._announced = node
            log.info("node.joined", node=node)
        self._records.expect_all()
        return State.ANNOUNCED

    async def _record(self) -> State:
        await self._records.settle()
        for former in list(self._former):
            await self._inbox.close(former)
            await self._registry.remove(former)
            self._former.discard(former)
        return State.SERVING

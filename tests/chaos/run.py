"""A run: rounds of faults while clients talk, and after each round the promises; after some rounds, every delivery."""

import asyncio
import os
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

import msgspec
from nacl.signing import SigningKey

from tests.chaos import judge
from tests.chaos.actors import LOST, Resident, RoamingClient
from tests.chaos.conversation import Conversation
from tests.chaos.fault import Chosen, Fault, rounds, run_all
from tests.chaos.faults import FAULTS
from tests.chaos.judge import PRESENCE_SECONDS, SERVICE_SECONDS, Duration, RaceOutcome, Summary
from tests.chaos.topologies import TOPOLOGIES
from tests.chaos.topology import Note, RelayNode, Topology
from tests.support.v2_peer import V2Closed, V2Peer
from tests.support.waiting import pause, wait_until

_HALL, _DOOR = "hall", "door"
"""The channel of the residents, and that of the probes."""
_RACERS = 6
_RESIDENTS = 4
_LONGEST_SECONDS = 60.0
"""Nothing is waited for longer than this."""
_ATTEMPT_SECONDS = 10.0
_MOST_FLAWS = 30
"""A run ends early with more than these: they have one cause."""


class Settings(msgspec.Struct, frozen=True):
    """What a run is: it ends after so many seconds, or after so many faults."""

    topology: str = "server"
    seed: int = 1
    seconds: float = 60.0
    faults: int = 1_000_000
    kinds: Sequence[Fault] = FAULTS
    channels: int = 2
    """Those at one time. New ones take their place after some rounds."""
    rounds_per_channel: int = 6
    installed: bool = False
    """Nodes are the installed command, instead of forked processes."""
    say: Callable[[str], None] = lambda _: None


class Run:
    """One run over one topology."""

    def __init__(self, settings: Settings, topology: Topology) -> None:
        left_out = [kind.name for kind in settings.kinds if not kind.fits(topology)]
        self.summary = Summary(settings.topology, settings.seed, left_out)
        self._settings = settings
        self._topology = topology
        self._chance = random.Random(f"{settings.seed}/run")  # noqa: S311 - chance, not secrets
        self._conversations: list[Conversation] = []
        self._residents = [Resident(topology.urls, f"resident{number}", self._chance) for number in range(_RESIDENTS)]
        self._probes = [
            RoamingClient(lambda node=node: [node.url], f"probe{number}", self._chance)  # type: ignore[misc]
            for number, node in enumerate(topology.nodes)
        ]
        self._races = count()
        topology.on_failover.append(self._note_failover)

    async def run(self) -> None:
        """Go on until the time or the faults are used up, or too much is wrong."""
        settings, clock = self._settings, asyncio.get_running_loop().time
        end = clock() + settings.seconds
        chosen = rounds(self._topology, settings.kinds, settings.seed)
        async with self._background():
            for batch in count():
                if clock() >= end or self._is_enough():
                    return
                async with self._channels(batch):
                    for _ in range(settings.rounds_per_channel):
                        if clock() >= end or self._is_enough():
                            break
                        await self._round(next(chosen))

    def _is_enough(self) -> bool:
        return self.summary.faults.total() >= self._settings.faults or len(self.summary.flaws) > _MOST_FLAWS

    @asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        """Keep the residents there."""
        host = await self._residents[0].register()
        await host.create(_HALL)
        await host.create(_DOOR)
        for client in (*self._residents[1:], *self._probes):
            await client.register()
        tasks = [asyncio.create_task(resident.run(_HALL)) for resident in self._residents]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(client.cut() for client in (*self._residents, *self._probes)))

    @asynccontextmanager
    async def _channels(self, batch: int) -> AsyncIterator[None]:
        """Let clients talk in new channels meanwhile, and compare what they received."""
        settings, topology = self._settings, self._topology
        numbers = range(batch * settings.channels, (batch + 1) * settings.channels)
        self._conversations = [
            Conversation(f"c{number}", number, topology.urls, topology.store, seed=settings.seed, loses=topology.loses)
            for number in numbers
        ]
        calm = asyncio.Event()
        try:
            await asyncio.gather(*(each.open() for each in self._conversations))
            async with asyncio.timeout(None) as bound, asyncio.TaskGroup() as tasks:
                for each in self._conversations:
                    tasks.create_task(each.run(calm.is_set))
                yield
                calm.set()
                bound.reschedule(asyncio.get_running_loop().time() + 2 * _LONGEST_SECONDS)
            for each in self._conversations:
                self.summary.figures += each.figures()
                self._flawed(each.check() if topology.is_as_expected else [], f"channels {numbers}")
            self.summary.figures["channels that could not be judged"] += 0 if topology.is_as_expected else len(numbers)
            topology.expect()
        finally:
            await asyncio.gather(*(each.close() for each in self._conversations))
            self._conversations = []

    async def _round(self, chosen: list[Chosen]) -> None:
        """Apply and heal the faults, and see that the promises hold."""
        names = " + ".join(each.fault.name for each in chosen)
        may_end = any(each.fault.ends_connections for each in chosen)
        began = asyncio.get_running_loop().time()
        async with _Race(f"racer{next(self._races)}", self._topology, self._chance) as race:
            leaver = await self._leaver()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(run_all(chosen, self._topology))
                await leaver.cut()
            flaws = await self._service()
            flaws += await self._presence({leaver.path})
            flaws += await self._race_is_decided(race, may_end=may_end)
        self.summary.faults.update(each.fault.name for each in chosen)
        self._settings.say(f"{asyncio.get_running_loop().time() - began:6.1f} s  {names}")
        self._flawed(flaws, names)

    def _flawed(self, flaws: list[str], names: str) -> None:
        self.summary.flaws += [f"{flaw} [round {self.summary.faults.total()}: {names}]" for flaw in flaws]
        for flaw in flaws:
            self._settings.say(f"FLAW: {flaw}")

    async def _leaver(self) -> RoamingClient:
        """Return a client that is there at the begin of a round; it will be gone at the end."""
        leaver = RoamingClient(self._topology.urls, f"leaver{next(self._races)}", self._chance)
        with suppress(*LOST):
            peer = await leaver.register()
            await peer.join(_HALL)
        return leaver

    async def _service(self) -> list[str]:
        """Wait until every node serves; a node that has ended of itself is a flaw, and is started again."""
        flaws = []
        for node in self._topology.nodes:
            if node.is_wanted and not node.process.is_running:
                flaws.append("a node has ended of itself: " + " | ".join(node.process.log[-5:]))
                await node.restart()
        waits = [self._until(partial(self._serves, probe)) for probe in self._probes]
        for number, took in enumerate(await asyncio.gather(*waits)):
            self._took(f"service at node {number}", took, SERVICE_SECONDS)
            if took >= _LONGEST_SECONDS:
                flaws.append(f"node {number} does not serve")
        return flaws

    async def _serves(self, probe: RoamingClient) -> bool:
        """Log in, join and post at one node."""
        [url] = probe._urls()
        peer: V2Peer | None = None
        try:
            async with asyncio.timeout(_ATTEMPT_SECONDS):
                peer = await V2Peer.login(url, probe.key)
                await peer.join(_DOOR)
                await peer.post(_DOOR, "here")
        except LOST:
            return False
        finally:
            if peer is not None:
                await peer.cut()
        return True

    async def _presence(self, gone: set[str]) -> list[str]:
        """Wait until every resident sees all residents, and nobody who is gone."""
        flaws: list[str] = ["nobody has been asked"]

        async def is_right() -> bool:
            flaws[:] = await self._presence_flaws(gone)
            return not flaws

        self._took("presence", await self._until(is_right), PRESENCE_SECONDS)
        return flaws

    async def _presence_flaws(self, gone: set[str]) -> list[str]:
        there = {resident.path for resident in self._residents}
        views: dict[str, list[str]] = {}
        for resident in self._residents:
            if not resident.is_there:
                return [f"{resident.path} is not connected"]
            try:
                views[resident.path] = await resident.who(_HALL)
            except LOST as error:
                return [f"{resident.path} gets no answer: {error!r}"]
        return judge.of_presence(views, there, gone)

    async def _race_is_decided(self, race: "_Race", *, may_end: bool) -> list[str]:
        """Wait until one session is left of a race, as the sessions and as presence say."""
        flaws: list[str] = []

        async def is_decided() -> bool:
            outcome = await race.outcome(self._residents[0], may_end=may_end)
            flaws[:] = ["nobody could ask"] if outcome is None else judge.of_race(outcome)
            return not flaws

        self._took("one survivor", await self._until(is_decided), PRESENCE_SECONDS)
        return flaws

    async def _until(self, condition: Callable[[], Any]) -> float:
        """Return the seconds until the condition is true, or those of the longest wait."""
        clock = asyncio.get_running_loop().time
        began = clock()
        with suppress(AssertionError):
            await wait_until(condition, timeout=_LONGEST_SECONDS)
        return clock() - began

    def _took(self, what: str, seconds: float, promised: float) -> None:
        took = Duration(what, seconds, promised, os.getloadavg()[0] / (os.cpu_count() or 1))
        if took.is_late:
            self._settings.say(f"late: {what} after {seconds:.1f} s")
        flaws = self.summary.take(took)
        self._flawed(flaws, "after the heal")

    def _note_failover(self, old: Any) -> Note:
        """Note what each channel has; returns what notes the loss."""
        had = [(each, each.log.read(old)) for each in self._conversations]

        def note(new: Any) -> None:
            for each, rows in had:
                each.lose(rows, each.log.read(new))

        return note


class _Race:
    """Logins on one path at all nodes at once, each until it has succeeded once, while a round goes on."""

    def __init__(self, user: str, topology: Topology, chance: random.Random) -> None:
        self._user = user
        self._topology = topology
        self._key = SigningKey(chance.randbytes(32))
        self._peers: list[V2Peer] = []
        self._racing: list[asyncio.Task[None]] = []
        self._is_over = False

    async def __aenter__(self) -> Self:
        client = RoamingClient(self._topology.urls, self._user, random.Random(0))  # noqa: S311 - as above
        client.key = self._key
        with suppress(*LOST):
            await client.register()
        await client.cut()
        self._racing = [
            asyncio.create_task(self._login(self._topology.nodes[number % len(self._topology.nodes)]))
            for number in range(_RACERS)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._racing:
            task.cancel()
        await asyncio.gather(*self._racing, return_exceptions=True)
        await asyncio.gather(*(peer.cut() for peer in self._peers))

    async def _login(self, node: RelayNode) -> None:
        await pause(random.uniform(0, 1))  # noqa: S311 - as above
        while True:
            try:
                async with asyncio.timeout(_ATTEMPT_SECONDS):
                    peer = await V2Peer.login(node.url, self._key)
            except V2Closed as closed:
                if closed.event.get("error") == "unauthorized":  # a failover has taken the registration
                    return
            except LOST:
                pass
            else:
                self._peers.append(peer)
                return
            await pause(0.05)

    async def outcome(self, observer: Resident, *, may_end: bool) -> RaceOutcome | None:
        """Return how it stands once all have logged in; None if nobody can tell."""
        if not all(task.done() for task in self._racing):
            return None
        answering = sum(await asyncio.gather(*(_answers(peer) for peer in self._peers)))
        path = f"{self._user}/laptop/main"
        try:
            present = (await observer.who(None)).count(path)
        except LOST:
            return None
        if not answering and not may_end:
            may_end = await self._is_unknown()
        return RaceOutcome(path, len(self._peers), answering, present, may_end)

    async def _is_unknown(self) -> bool:
        """Tell whether a failover has taken the registration: then the sessions of its key end as revoked."""
        try:
            async with asyncio.timeout(_ATTEMPT_SECONDS):
                peer = await V2Peer.login(self._topology.nodes[0].url, self._key)
        except V2Closed as closed:
            return bool(closed.event.get("error") == "unauthorized")
        except LOST:
            return False
        await peer.cut()
        return False


async def _answers(peer: V2Peer) -> bool:
    try:
        async with asyncio.timeout(_ATTEMPT_SECONDS):
            await peer.ask("ping")
    except LOST:
        return False
    return True


async def run(settings: Settings) -> Summary:
    """Run once, and return what happened."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        async with TOPOLOGIES[settings.topology](Path(directory), installed=settings.installed) as topology:
            one = Run(settings, topology)
            await one.run()
            return one.summary

"""The faults: each of the store's does what its name says and is healed; and the choice of faults goes by the seed."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from redis.exceptions import RedisError

from tests.chaos.fault import Chosen, Fault, Place, rounds, run_all
from tests.chaos.faults import FAULTS
from tests.chaos.topology import Store, Topology
from tests.support.waiting import wait_until

WRITE = "return redis.call('INCR', KEYS[1])"
REFUSALS = {
    "store: no memory": "OOM|used memory",
    "store: no permission": "NOPERM|permission",
    "store: too few replicas": "replicas",
    "store: read-only": "read only",
    "store: busy with a script": "BUSY|busy",
    "store: disk full, it refuses": "MISCONF|AOF",
    "store: disk full, it ends": "Connection|connecting|closed",
    "store: kill -9": "Connection|connecting|closed",
    "store: SIGSTOP": "Timeout",
    "store: writes pause": "Timeout",
}
NAMED = {fault.name: fault for fault in FAULTS}


@pytest.fixture
async def topology(tmp_path: Path) -> AsyncIterator[Topology]:
    """A durable server without nodes."""
    store = Store.durable(tmp_path / "store")
    try:
        await store.process.start()
        yield Topology([], [store])
    finally:
        store.process.close()


def write(topology: Topology) -> str:
    """Write as nodes do, by a script; returns the error, or '' if there is none."""
    try:
        with topology.primary.client(timeout=0.5) as client:
            client.evalsha(client.script_load(WRITE), 1, "n")
    except (RedisError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_fault_of_the_store_refuses_writes_until_it_is_healed(topology: Topology, name: str) -> None:
    """A fault that does nothing proves nothing."""
    assert write(topology) == ""
    async with NAMED[name].apply(topology, random.Random(1)):  # noqa: S311 - chance, not secrets

        async def refused() -> bool:
            refusal = await asyncio.to_thread(write, topology)
            return any(word in refusal for word in REFUSALS[name].split("|"))

        await wait_until(refused, timeout=10, what=f"writes are refused: {REFUSALS[name]}")
    await wait_until(lambda: write(topology) == "", timeout=10, what="writes work again")
    with topology.store() as client:
        assert client.config_get("appendfsync")["appendfsync"] == "always"


async def test_a_clock_jumps_and_jumps_back(topology: Topology) -> None:
    """Keys that expire and ids are by the clock of the server."""
    if not topology.has_clocks:
        pytest.skip("libfaketime is not installed")

    def ahead() -> float:
        with topology.store() as client:
            return abs(float(client.time()[0]) - asyncio.get_running_loop().time() - zero)

    zero = 0.0
    zero = ahead()
    async with NAMED["store: the clock jumps and jumps back"].apply(topology, random.Random(3)):  # noqa: S311 - as above
        await wait_until(lambda: ahead() > 3, timeout=10, what="the clock has jumped")
    await wait_until(lambda: ahead() < 3, timeout=10, what="the clock is right again")


def test_the_seed_chooses_the_faults() -> None:
    """A run that found something can be repeated."""
    topology = Topology([], [])

    def names(seed: int) -> list[list[str]]:
        return [[each.fault.name for each in chosen] for chosen in islice(rounds(topology, FAULTS, seed), 50)]

    assert names(7) == names(7)
    assert names(7) != names(8)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_has_its_turn_and_some_are_alone(seed: int) -> None:
    """A failover with loss beside another fault would leave open what was lost by which."""
    topology = Topology([], [])
    kinds = [msgspec.structs.replace(fault, is_alone=fault.name == "nodes: kill -9") for fault in FAULTS]
    usable = [kind for kind in kinds if kind.fits(topology)]
    seen: list[Fault] = []
    for chosen in islice(rounds(topology, kinds, seed), 60):
        names = [each.fault for each in chosen]
        assert len(names) == 1 or not any(kind.is_alone for kind in names)
        seen += names
    assert {kind.name for kind in seen} == {kind.name for kind in usable}


async def test_faults_in_one_place_do_not_meet_and_others_do() -> None:
    """Two faults in one place would undo each other's work."""
    active: list[Place] = []
    together: set[frozenset[Place]] = set()

    def fault(place: Place) -> Fault:
        @asynccontextmanager
        async def apply(_: Topology, __: random.Random) -> AsyncIterator[None]:
            assert place not in active
            active.append(place)
            together.add(frozenset(active))
            yield
            active.remove(place)

        return Fault(place.value, place, (0.0, 0.0), apply)

    chosen = [Chosen(fault(place), 0.0, 0.05, 0.0) for place in [*Place, *Place]]
    await run_all(chosen, Topology([], []))
    assert frozenset(Place) in together

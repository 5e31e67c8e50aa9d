"""Faults of the network: between clients and nodes, and between nodes and the store."""

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from tests.chaos.fault import Fault, Place
from tests.chaos.topology import Topology
from tests.support.proxy import Proxy, Way


def _fronts(topology: Topology) -> list[Proxy]:
    return [node.front for node in topology.nodes]


def _backs(topology: Topology) -> list[Proxy]:
    return topology.backs


def _network(
    name: str, place: Place, seconds: tuple[float, float], break_: Callable[[Proxy, random.Random], None]
) -> Fault:
    """Make a fault of some of the proxies at a place: of one of them, or now and then of all."""
    proxies = _fronts if place is Place.CLIENTS else _backs

    @asynccontextmanager
    async def apply(topology: Topology, chance: random.Random) -> AsyncIterator[None]:
        all_of_them = proxies(topology)
        chosen = all_of_them if chance.random() < 0.25 else [chance.choice(all_of_them)]
        for proxy in chosen:
            break_(proxy, chance)
        try:
            yield
        finally:
            for proxy in chosen:
                proxy.mend()

    return Fault(
        f"{place.value}: {name}",
        place,
        seconds,
        apply,
        ends_connections=place is Place.CLIENTS,
        fits=lambda topology: bool(proxies(topology)),
    )


def _networks(place: Place) -> Iterator[Fault]:
    yield _network("connections are cut", place, (0.1, 2.5), lambda proxy, _: proxy.cut())
    yield _network("connections are reset", place, (0.0, 0.1), lambda proxy, _: proxy.reset())
    yield _network("a delay", place, (0.5, 1.5), lambda proxy, chance: proxy.delay(chance.uniform(0.02, 0.3)))
    yield _network("a stall", place, (0.3, 2.5), lambda proxy, _: proxy.stall())
    yield _network("a black hole", place, (0.5, 3.0), lambda proxy, _: proxy.black_hole())
    yield _network("deaf", place, (0.5, 3.0), lambda proxy, chance: proxy.swallow(chance.choice(list(Way))))
    yield _network("half closed", place, (0.1, 1.0), lambda proxy, chance: proxy.half_close(chance.choice(list(Way))))


NETWORK_FAULTS = (*_networks(Place.CLIENTS), *_networks(Place.NETWORK))

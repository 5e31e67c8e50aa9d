"""The addresses of the nodes: targets on the command line, and the lookup of their names."""

import asyncio
import re
import socket
from collections.abc import Sequence

import msgspec

from conclave.errors import ConclaveError

DEFAULT_PORT = 4390
CLUSTER_PORTS = range(DEFAULT_PORT + 1, DEFAULT_PORT + 10)
"""The default ports of the nodes of `conclave cluster`."""
LOOPBACK = "127.0.0.1"
MOST_PORTS = 100
LOOK_UP_SECONDS = 2.0

_TARGET = re.compile(
    r"(?:(?P<scheme>https?|wss?)://)?"
    r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^\s/:@\[\]]+))"
    r"(?::(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?)?"
    r"(?:/|/metrics)?"
)
_SCHEMES = {None: ("http", DEFAULT_PORT), "http": ("http", 80), "ws": ("http", 80)}
_SECURE = ("https", 443)


class InvalidTarget(ConclaveError):
    """Text that is not the address of nodes."""


class Target(msgspec.Struct, frozen=True):
    """A host name and ports, as on the command line. A name with several addresses stands for a node at each."""

    scheme: str
    host: str
    ports: range


class Address(msgspec.Struct, frozen=True):
    """The address of one node. `host` is the name that led to `ip`; `name` is the node's name in the table."""

    scheme: str
    host: str
    ip: str
    port: int
    name: str


def parse_target(text: str) -> Target:
    """Read `host`, `host:port`, `host:first-last`, or a URL of http, https, ws or wss.

    Raises:
        InvalidTarget: for anything else.
    """
    match = _TARGET.fullmatch(text)
    if match is None:
        raise InvalidTarget(f"invalid address `{text}` (expected HOST:PORT, HOST:FIRST-LAST or a URL)")
    scheme, default = _SCHEMES.get(match["scheme"], _SECURE)
    first = int(match["first"] or default)
    ports = range(first, int(match["last"] or first) + 1)
    if not 0 < ports.start < ports.stop <= 65_536 or len(ports) > MOST_PORTS:  # noqa: PLR2004 - the highest port
        raise InvalidTarget(f"invalid ports in `{text}` (expected 1 to 65535, at most {MOST_PORTS} of them)")
    return Target(scheme, match["v6"] or match["name"], ports)


class Finder:
    """Looks the names up at every call, because nodes come and go. `problems` has the failures of the last call."""

    def __init__(self, targets: Sequence[Target], *, deadline: float = LOOK_UP_SECONDS) -> None:
        self.problems: list[str] = []
        self._deadline = deadline
        self._targets = targets
        self._last: dict[Target, list[Address]] = {}

    async def find(self) -> list[Address]:
        """Return every address once. A name whose lookup fails keeps its last addresses."""
        self.problems = []
        found = await asyncio.gather(*map(self._find, self._targets))
        return list(dict.fromkeys(address for addresses in found for address in addresses))

    async def _find(self, target: Target) -> list[Address]:
        try:
            self._last[target] = _addresses(target, await _look_up(target.host, self._deadline))
        except (OSError, UnicodeError, TimeoutError) as error:
            self.problems.append(f"{target.host}: {getattr(error, 'strerror', None) or 'the name cannot be looked up'}")
        return self._last.get(target, [])


class LocalFinder:
    """Finds the nodes of `conclave cluster` on this machine that accept connections, or did once; else a lone relay."""

    def __init__(self, ports: Sequence[int] = CLUSTER_PORTS, alone: int = DEFAULT_PORT) -> None:
        self.problems: list[str] = []
        self._ports = ports
        self._alone = alone
        self._seen: set[int] = set()

    async def find(self) -> list[Address]:
        unseen = [port for port in self._ports if port not in self._seen]
        accepting = await asyncio.gather(*map(_accepts, unseen))
        self._seen.update(port for port, accepts in zip(unseen, accepting, strict=True) if accepts)
        ports = sorted(self._seen) or [self._alone]
        return [Address("http", LOOPBACK, LOOPBACK, port, f"{LOOPBACK}:{port}") for port in ports]


async def _look_up(host: str, deadline: float) -> list[str]:
    async with asyncio.timeout(deadline):
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # A name may have addresses of both families; by default a node listens on IPv4 only.
    v4 = [address[0] for family, _, _, _, address in found if family is socket.AF_INET]
    v6 = [address[0] for family, _, _, _, address in found if family is socket.AF_INET6]
    return sorted({str(address) for address in v4 or v6})


def _addresses(target: Target, ips: list[str]) -> list[Address]:
    return [
        Address(target.scheme, target.host, ip, port, f"{bracketed(target.host if len(ips) == 1 else ip)}:{port}")
        for ip in ips
        for port in target.ports
    ]


async def _accepts(port: int) -> bool:
    try:
        async with asyncio.timeout(LOOK_UP_SECONDS):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def bracketed(host: str) -> str:
    """Return a host as it is written before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host

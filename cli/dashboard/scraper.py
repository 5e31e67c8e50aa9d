"""Scraping the metrics of all nodes concurrently, each with a deadline."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from cli.dashboard.figures import NodeRow, Totals, figures, totals
from cli.dashboard.snapshot import NoMetrics, Snapshot, parse
from cli.dashboard.targets import Address, Finder, LocalFinder, Target, bracketed

DEADLINE = 2.0
"""The time limit of a node's answer, in seconds."""
MOST_BYTES = 2 * 1024 * 1024
WINDOW = 30.0
"""The time span of lags, in seconds: a node measures them only every other second."""

_CHUNK = 64 * 1024
_OK, _NOT_FOUND = 200, 404


class View(msgspec.Struct, frozen=True):
    """The result of one scrape of the cluster. `problems` are those that concern no single node."""

    rows: list[NodeRow]
    totals: Totals
    problems: list[str]


class Scraper:
    """Keeps the last snapshots of each node, for rates and lags."""

    def __init__(
        self, finder: Finder | LocalFinder, http: aiohttp.ClientSession, *, deadline: float = DEADLINE
    ) -> None:
        self._finder = finder
        self._http = http
        self._deadline = deadline
        self._snapshots: dict[Address, deque[Snapshot]] = {}

    async def scrape(self) -> View:
        """Scrape every node once."""
        addresses = await self._finder.find()
        rows = await asyncio.gather(*map(self._row, addresses))
        self._snapshots = {
            address: snapshots for address, snapshots in self._snapshots.items() if address in set(addresses)
        }
        return View(rows, totals(rows), list(self._finder.problems))

    async def _row(self, address: Address) -> NodeRow:
        try:
            snapshot = await self._snapshot(address)
        except NoMetrics as error:
            return NodeRow(address.name, None, str(error))
        snapshots = self._snapshots.setdefault(address, deque())
        snapshots.append(snapshot)
        while len(snapshots) > 2 and snapshots[1].at <= snapshot.at - WINDOW:  # noqa: PLR2004 - a rate needs two
            snapshots.popleft()
        return NodeRow(address.name, figures(snapshots))

    async def _snapshot(self, address: Address) -> Snapshot:
        """Scrape one node. Raises: NoMetrics, with the reason as text."""
        try:
            async with asyncio.timeout(self._deadline):
                text = await self._fetch(address)
        except TimeoutError:
            raise NoMetrics(f"no answer within {self._deadline:g} s") from None
        except aiohttp.ClientConnectorError as error:
            number = error.os_error.errno
            raise NoMetrics(str(error) if number is None else os.strerror(number).lower()) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoMetrics(f"no answer that can be understood: {type(error).__name__}") from None
        return parse(text, asyncio.get_running_loop().time())

    async def _fetch(self, address: Address) -> str:
        url = f"{address.scheme}://{bracketed(address.ip)}:{address.port}/metrics"
        headers = {"Host": f"{bracketed(address.host)}:{address.port}", "Accept-Encoding": "identity"}
        async with self._http.get(
            url, headers=headers, server_hostname=address.host, allow_redirects=False, max_line_size=8190
        ) as answer:
            if answer.status == _NOT_FOUND:
                raise NoMetrics("its metrics are not there (404): they may have a port of their own")
            if answer.status != _OK:
                raise NoMetrics(f"it answered {answer.status} instead of its metrics")
            body = bytearray()
            async for chunk in answer.content.iter_chunked(_CHUNK):
                body += chunk
                if len(body) > MOST_BYTES:
                    raise NoMetrics("its answer is too long")
            return body.decode(errors="replace")


@asynccontextmanager
async def scraping(targets: Sequence[Target], *, deadline: float = DEADLINE) -> AsyncIterator[Scraper]:
    """Provide a scraper of these nodes, or, without any, of those on this machine."""
    async with aiohttp.ClientSession() as http:
        yield Scraper(Finder(targets) if targets else LocalFinder(), http, deadline=deadline)

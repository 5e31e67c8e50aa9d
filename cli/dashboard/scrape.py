"""Asking nodes for their metrics, all at once and each only for so long."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from cli.dashboard.figures import Row, Totals, figures, totals
from cli.dashboard.page import NoPage, Page, parse
from cli.dashboard.targets import Address, Finder, LocalFinder, Target, bracketed

DEADLINE = 2.0
"""Seconds that a node may take to answer."""
MOST_BYTES = 2 * 1024 * 1024
WINDOW = 30.0
"""Seconds that lags are about: a node measures them only every other second."""

_CHUNK = 64 * 1024
_OK, _NOT_FOUND = 200, 404


class View(msgspec.Struct, frozen=True):
    """What one look at the cluster has shown. `problems` are those that are no node's own."""

    rows: list[Row]
    totals: Totals
    problems: list[str]


class Watch:
    """Remembers of each node what it has to, to tell rates."""

    def __init__(
        self, finder: Finder | LocalFinder, http: aiohttp.ClientSession, *, deadline: float = DEADLINE
    ) -> None:
        self._finder = finder
        self._http = http
        self._deadline = deadline
        self._pages: dict[Address, deque[Page]] = {}

    async def look(self) -> View:
        """Ask every node once."""
        addresses = await self._finder.find()
        rows = await asyncio.gather(*map(self._row, addresses))
        self._pages = {address: pages for address, pages in self._pages.items() if address in set(addresses)}
        return View(rows, totals(rows), list(self._finder.problems))

    async def _row(self, address: Address) -> Row:
        try:
            page = await self._page(address)
        except NoPage as error:
            return Row(address.name, None, str(error))
        pages = self._pages.setdefault(address, deque())
        pages.append(page)
        while len(pages) > 2 and pages[1].at <= page.at - WINDOW:  # noqa: PLR2004 - a rate needs two
            pages.popleft()
        return Row(address.name, figures(pages))

    async def _page(self, address: Address) -> Page:
        """Raises: NoPage: with the reason, in words."""
        try:
            async with asyncio.timeout(self._deadline):
                text = await self._fetch(address)
        except TimeoutError:
            raise NoPage(f"no answer within {self._deadline:g} s") from None
        except aiohttp.ClientConnectorError as error:
            number = error.os_error.errno
            raise NoPage(str(error) if number is None else os.strerror(number).lower()) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoPage(f"no answer that can be understood: {type(error).__name__}") from None
        return parse(text, asyncio.get_running_loop().time())

    async def _fetch(self, address: Address) -> str:
        url = f"{address.scheme}://{bracketed(address.ip)}:{address.port}/metrics"
        headers = {"Host": f"{bracketed(address.host)}:{address.port}", "Accept-Encoding": "identity"}
        async with self._http.get(
            url, headers=headers, server_hostname=address.host, allow_redirects=False, max_line_size=8190
        ) as answer:
            if answer.status == _NOT_FOUND:
                raise NoPage("its metrics are not there (404): they may have a port of their own")
            if answer.status != _OK:
                raise NoPage(f"it answered {answer.status} instead of its metrics")
            body = bytearray()
            async for chunk in answer.content.iter_chunked(_CHUNK):
                body += chunk
                if len(body) > MOST_BYTES:
                    raise NoPage("its answer is too long")
            return body.decode(errors="replace")


@asynccontextmanager
async def watching(targets: Sequence[Target], *, deadline: float = DEADLINE) -> AsyncIterator[Watch]:
    """Watch these nodes, or those on this machine if there are none."""
    async with aiohttp.ClientSession() as http:
        yield Watch(Finder(targets) if targets else LocalFinder(), http, deadline=deadline)

"""The dashboard in a terminal, drawn after each scrape and whenever the size changes."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.dashboard import layout
from cli.dashboard.scraper import View

_STYLES = {"ready": "green", "up": "green", "draining": "yellow", "not ready": "yellow", "down": "red"}


class Dashboard:
    """One view, laid out for the width of the terminal at the time of drawing."""

    def __init__(self, view: View, clock: str) -> None:
        self._view = view
        self._clock = clock

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        view = self._view
        yield Text.assemble(("conclave", "bold"), f"  {layout.summary(view.totals)}  {self._clock}")
        for line in layout.problems(view.rows, view.problems):
            yield Text(line, style="red")
        yield Text()
        yield _table(layout.table(view.rows, options.max_width))


async def show(scrape: Callable[[], Awaitable[View]], interval: float) -> None:
    """Scrape every `interval` seconds and draw the view, until cancelled. The terminal is restored at the end."""
    loop = asyncio.get_running_loop()
    with Live(Text("asking the nodes"), screen=True, auto_refresh=False) as live:
        loop.add_signal_handler(signal.SIGWINCH, live.refresh)
        live.refresh()
        while True:
            next_scrape = loop.time() + interval
            view = await scrape()
            live.update(Dashboard(view, time.strftime("%H:%M:%S")), refresh=True)
            await asyncio.sleep(max(0.0, next_scrape - loop.time()))


def _table(lines: list[list[str]]) -> Table:
    titles, *rows = lines
    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, collapse_padding=True)
    for at, title in enumerate(titles):
        drawn.add_column(Text(title), justify="right" if at else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    return drawn


def _style(cell: str) -> str:
    return "red" if cell == layout.NO_ANSWER else _STYLES.get(cell, "")

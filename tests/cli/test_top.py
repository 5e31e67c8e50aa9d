"""`conclave top` as a program: its requests, its output, and the state of the terminal afterwards."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from cli.dashboard.figures import NodeRow
from cli.dashboard.scraper import MOST_BYTES, scraping
from cli.dashboard.targets import parse_target
from tests.support.command_line import conclave
from tests.support.nodes import running_node
from tests.support.ports import free_port
from tests.support.screen import Screen
from tests.support.waiting import wait_until
from tests.support.web_server import running_app

ENTER, LEAVE, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


class MetricsServer:
    """A server with an invented `/metrics` page."""

    def __init__(self) -> None:
        self.page = "conclave_sessions 7\nconclave_ready 1\nconclave_posts_total 0\n"
        self.status = 200
        self.stalls = False
        self.over = asyncio.Event()
        self.asked = 0
        self.port = 0

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.stalls:
            await self.over.wait()
        return web.Response(status=self.status, text=self.page, headers={"Location": "/"})


@pytest.fixture
async def server() -> AsyncIterator[MetricsServer]:
    made_up = MetricsServer()
    app = web.Application()
    app.router.add_get("/metrics", made_up.answer)
    async with running_app(app) as made_up.port:
        try:
            yield made_up
        finally:
            made_up.over.set()


async def row(port: int) -> NodeRow:
    async with scraping([parse_target(f"127.0.0.1:{port}")]) as scraper:
        (only,) = (await scraper.scrape()).rows
    return only


async def test_a_table_has_a_row_for_each_node(redis_url: str, tmp_path: Path) -> None:
    """One node is real, one is unreachable; scripts see the latter in the exit code."""
    nobody = free_port()
    async with running_node(redis_url) as url:
        asked = (url, f"127.0.0.1:{nobody}")
        found = await conclave(tmp_path, "top", "--once", "--interval", "0.3", *asked)
        alone = await conclave(tmp_path, "top", "--json", "--interval", "0.3", url)
    assert (found.code, alone.code) == (1, 0)
    lines = found.out.splitlines()
    assert " of 2 nodes ready" in lines[0]
    assert lines[1].split()[0] == "node"
    assert lines[3].startswith(f"127.0.0.1:{nobody}")
    assert "no answer" in lines[3]
    assert found.err == f"127.0.0.1:{nobody}: connection refused\n"
    assert "\x1b" not in found.out + found.err
    figures = json.loads(alone.out)["rows"][0]["figures"]
    assert (figures["sessions"], figures["channels"]) == (0, 0)


async def test_rates_are_shown_from_the_second_scrape_on(server: MetricsServer) -> None:
    """A restarted or silent node has no negative rate."""
    async with scraping([parse_target(f"127.0.0.1:{server.port}")]) as scraper:

        async def messages_in() -> float | None:
            figures = (await scraper.scrape()).rows[0].figures
            return None if figures is None else figures.messages_in

        assert await messages_in() is None
        server.page = server.page.replace("posts_total 0", "posts_total 1000")
        assert (await messages_in() or 0) > 0
        assert await messages_in() == 0
        server.status = 500
        assert await messages_in() is None
        server.status = 200
        server.page = server.page.replace("posts_total 1000", "posts_total 3")
        assert (await messages_in() or 0) > 0


@pytest.mark.parametrize(
    ("status", "page", "error"),
    [
        (404, "", "its metrics are not there (404): they may have a port of their own"),
        (302, "", "it answered 302 instead of its metrics"),
        (200, "<html>conclave</html>", "it has no metrics of a relay"),
        (200, "conclave_sessions {", "its metrics cannot be read"),
        (200, "#" * (MOST_BYTES + 1), "its answer is too long"),
    ],
)
async def test_an_answer_that_is_no_metrics_is_reported_as_text(
    server: MetricsServer, status: int, page: str, error: str
) -> None:
    """No redirect is followed, and no endless answer is read to the end."""
    server.status, server.page = status, page
    assert await row(server.port) == NodeRow(f"127.0.0.1:{server.port}", None, error)
    assert server.asked == 1


async def test_a_node_that_does_not_answer_does_not_delay_the_others(server: MetricsServer, redis_url: str) -> None:
    """A stopped process still accepts connections."""
    server.stalls = True
    async with (
        running_node(redis_url) as url,
        scraping([parse_target(f"127.0.0.1:{server.port}"), parse_target(url)], deadline=1) as scraper,
        asyncio.timeout(10),
    ):
        silent, well = (await scraper.scrape()).rows
    assert silent.error == "no answer within 1 s"
    assert well.error is None


async def test_a_server_of_another_protocol_is_a_row_with_an_error() -> None:
    """Its bytes may be anything."""

    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-\x1b]0;gotcha\x07\r\n" * 3)
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as listening:
        found = await row(listening.sockets[0].getsockname()[1])
    assert (found.error or "").startswith("no answer that can be understood: ")


async def test_the_dashboard_updates_and_restores_the_terminal(server: MetricsServer) -> None:
    """It uses the alternate screen, so the earlier content comes back. Escape codes of a node are shown as text."""
    server.page += 'conclave_build_info{version="\x1b]0;gotcha\x07[red]1.2"} 1\n'
    async with Screen("top", "--interval", "0.2", f"127.0.0.1:{server.port}") as screen:
        await wait_until(lambda: f"127.0.0.1:{server.port}" in screen.picture, timeout=30, what="the node is shown")
        assert "1 of 1 nodes ready" in screen.picture
        assert "sessions 7" in screen.picture
        assert r"\x1b]0;gotcha\x07[r" in screen.picture
        assert "outbox" in screen.picture
        assert "\x1b]0;" not in screen.shown
        server.page = server.page.replace("sessions 7", "sessions 8")
        await wait_until(lambda: "sessions 8" in screen.picture, what="it changes with the node")
        server.status = 503
        await wait_until(lambda: "no answer" in screen.picture, what="the node is said to be silent")
        assert "it answered 503" in screen.picture
        assert await screen.end(signal.SIGINT) == 0
        await wait_until(lambda: LEAVE in screen.shown, what="the other screen is left")
    assert screen.shown.count(ENTER) == screen.shown.count(LEAVE) == 1
    assert SHOW_CURSOR in screen.shown.rpartition(ENTER)[2]
    assert "Traceback" not in screen.shown


async def test_a_narrower_terminal_gets_fewer_columns_immediately(server: MetricsServer) -> None:
    """The change does not wait for the next scrape."""
    async with Screen("top", "--interval", "60", f"127.0.0.1:{server.port}") as screen:
        await wait_until(lambda: "outbox" in screen.picture, timeout=30, what="all is shown")
        screen.resize(50, 12)
        await wait_until(lambda: "state" in screen.picture and "outbox" not in screen.picture, what="it is narrower")
    assert server.asked == 1


async def test_a_signal_during_a_scrape_restores_the_terminal(server: MetricsServer) -> None:
    """While a node does not answer, each signal ends the command and shows the cursor again."""
    server.stalls = True
    async with Screen("top", f"127.0.0.1:{server.port}") as screen:
        await wait_until(lambda: server.asked, timeout=30, what="the node was asked")
        assert await screen.end(signal.SIGTERM) == 0
        await wait_until(lambda: LEAVE in screen.shown, what="the other screen is left")
    assert SHOW_CURSOR in screen.shown.rpartition(ENTER)[2]


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
async def test_no_color_turns_colours_off(server: MetricsServer, environment: dict[str, str], coloured: bool) -> None:
    """NO_COLOR applies to the dashboard, too."""
    async with Screen("top", f"127.0.0.1:{server.port}", environment=environment) as screen:
        await wait_until(lambda: "ready" in screen.picture, timeout=30, what="the node is shown")
        assert ("\x1b[32mready" in screen.shown) is coloured


async def test_an_invalid_address_is_a_usage_error(tmp_path: Path) -> None:
    """No node is asked."""
    finished = await conclave(tmp_path, "top", "127.0.0.1:0")
    assert (finished.code, finished.out) == (2, "")
    assert "invalid ports in `127.0.0.1:0`" in finished.err

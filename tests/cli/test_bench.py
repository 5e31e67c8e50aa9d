"""`conclave bench`: its figures, what it leaves behind, and what it says when there are none."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from cli.benchmark import percentile
from tests.support.bridge_process import configure_home
from tests.support.command_line import conclave, start
from tests.support.nodes import node_object, running_node
from tests.support.waiting import wait_until

SHORT = ("--sessions", "3", "--seconds", "0.6", "--in-flight", "4")


async def channels_of(home: Path, url: str) -> str:
    """The channels that the user knows of, as the command line lists them."""
    listed = await conclave(home, "channel", "list", "--server", url)
    assert listed.code == 0, listed.err
    return listed.out


async def test_the_figures_are_those_of_posts_that_have_arrived(tmp_path: Path, redis_url: str) -> None:
    """An operator sizes a server by them: every post has a delivery at each of the other sessions."""
    async with node_object(redis_url) as node:
        url = f"ws://{node.address}/"
        await configure_home(tmp_path, "ann", url)
        finished = await conclave(tmp_path, "bench", "--server", url, *SHORT, "--json")
        assert finished.code == 0, finished.err
        found = json.loads(finished.out)
        delivered = node.parts.metrics.render().decode()
    assert (found["server"], found["protocol"], found["sessions"]) == (url, 2, 3)
    posts = 0
    for phase in ("one_at_a_time", "in_flight"):
        figures = found[phase]
        posts += figures["posts"]
        assert figures["posts"] > 0
        assert figures["deliveries_per_second"] == pytest.approx(2 * figures["posts_per_second"])
        for quantiles in (figures["post_ms"], figures["delivery_ms"], found["connect_ms"]):
            assert 0 < quantiles["p50"] <= quantiles["p99"]
    assert f"conclave_deliveries_total {2 * posts}.0" in delivered


async def test_nothing_is_left_behind(tmp_path: Path, redis_url: str) -> None:
    """A measurement of a server in use is nobody else's channel and nobody else's session."""
    async with running_node(redis_url) as url:
        await configure_home(tmp_path, "ann", url)
        finished = await conclave(tmp_path, "bench", "--server", url, *SHORT)
        assert finished.code == 0, finished.err
        assert [line.split("  ")[0] for line in finished.out.splitlines()[1:]] == [
            "connect and join",
            "post, one at a time",
            "delivery, one at a time",
            "post, in flight",
            "delivery, in flight",
        ]
        assert "bench" not in await channels_of(tmp_path, url)


async def test_an_interrupted_measurement_deletes_its_channel_too(tmp_path: Path, redis_url: str) -> None:
    """Ctrl-C is how a measurement that takes too long is ended."""
    async with running_node(redis_url) as url:
        await configure_home(tmp_path, "ann", url)
        running = await start(tmp_path, "bench", "--server", url, "--seconds", "60")

        async def is_there() -> bool:
            return "bench-" in await channels_of(tmp_path, url)

        await wait_until(is_there, what="the channel is there")
        running.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            await running.communicate()
        assert running.returncode == 130
        assert "bench-" not in await channels_of(tmp_path, url)


async def test_a_server_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    """As every verb says it."""
    (tmp_path / "key").write_text("A" * 43)
    finished = await conclave(tmp_path, "bench", "--server", "ws://127.0.0.1:9", *SHORT)
    assert (finished.code, finished.out, finished.err.count("\n")) == (1, "", 1)
    assert "failed to connect" in finished.err


def test_a_percentile_is_one_of_the_values() -> None:
    """The 99th of a hundred is the greatest but one."""
    values = list(range(1, 101))
    assert percentile(values, 0.99) == 99
    assert percentile(values, 0.5) == 50
    assert percentile([7.0], 0.99) == 7.0

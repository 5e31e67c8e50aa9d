"""The original program, version 0.3.8, and this one, each with the other's server.

Not on every machine: it is built from its crate, `conclave-cli`, and named in CONCLAVE_ORIGINAL.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from conclave.machine.config import Level
from conclave.machine.config_edit import set_default
from conclave.machine.locations import CONFIG_NAME
from tests.support.bridge_process import RawBridge, configure_home
from tests.support.command_line import conclave
from tests.support.nodes import running_node
from tests.support.ports import accepts, free_port
from tests.support.waiting import wait_until

ORIGINAL = os.environ.get("CONCLAVE_ORIGINAL", "")

pytestmark = pytest.mark.skipif(not ORIGINAL, reason="needs an original 0.3.8, named in CONCLAVE_ORIGINAL")


@asynccontextmanager
async def original(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the original until the end of the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(ORIGINAL, *arguments, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        async with asyncio.timeout(30):
            await process.wait()


async def output_of(home: Path, *arguments: str) -> str:
    """Return what a verb of the original prints; it has to succeed."""
    async with original("--config-dir", str(home), *arguments) as process:
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()
        return out.decode()


@pytest.fixture(params=["original", "cluster"])
async def server(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[str]:
    """A server of either kind."""
    if request.param == "cluster":
        async with running_node(redis_url) as url:
            yield url
        return
    port = free_port()
    async with original("serve", "--ephemeral", "--bind", f"127.0.0.1:{port}"):
        await wait_until(lambda: accepts(port), timeout=30, what="the original is ready")
        yield f"ws://127.0.0.1:{port}/"


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    """The configuration directories of a user of this program, and of a user of the original."""
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    return tmp_path / "ours", tmp_path / "theirs"


async def test_bridge_command_line_and_original_exchange_messages(server: str, homes: tuple[Path, Path]) -> None:
    """Our clients and the original's exchange messages at a server of either kind."""
    ours, theirs = homes
    await configure_home(ours, "ann", server)
    set_default(ours / CONFIG_NAME, Level.CONVERSE)
    await output_of(theirs, "register", "--server", server, "--username", "carl")
    assert (await conclave(ours, "channel", "create", "--server", server, "ops")).code == 0
    async with RawBridge(ours, "--as", "desk") as bridge:
        await bridge.tool("join_channel", channel="ops")
        await output_of(theirs, "send", "--server", server, "--channel", "ops", "from the original")
        assert (await bridge.wait_for_event("from the original"))["meta"]["channel"] == "ops"
        async with original("--config-dir", str(theirs), "tail", "--server", server, "--channel", "ops") as tail:
            assert tail.stdout is not None
            await wait_until(lambda: has_joined(bridge, "carl/"), what="the original is ready")
            await bridge.tool("send_channel", channel="ops", text="from the bridge")
            assert (await conclave(ours, "send", "--server", server, "--channel", "ops", "from the line")).code == 0
            async with asyncio.timeout(30):
                printed = [(await tail.stdout.readline()).decode() for _ in range(3)]
            assert [line.rsplit(": ", 1)[-1].strip() for line in printed[1:]] == ["from the bridge", "from the line"]
        page = await bridge.tool("catch_up", channel="ops", since="1h")
        for text in ("from the original", "from the line"):
            assert text in page


async def has_joined(bridge: RawBridge, user: str) -> bool:
    return user in await bridge.tool("who", channel="ops")

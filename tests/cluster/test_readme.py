"""The session that README shows, played through the console script, each command at another node."""

import asyncio
import itertools
import os
import re
import shlex
from pathlib import Path

from tests.support.nodes import NodeProcess
from tests.support.programs import CONCLAVE

README = Path(__file__).parents[2] / "README.md"


def readme_session() -> list[list[str]]:
    """Return the commands of the two terminals in README's first screen, as words, in their order."""
    talk = README.read_text(encoding="utf-8").split("Then talk", 1)[1].split("A second person", 1)[0]
    lines = re.findall(r"^\$ (conclave .*)$", talk, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


class Terminal:
    """A user's shell: one home directory, commands run by their real name."""

    def __init__(self, home: Path) -> None:
        self._environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}

    async def start(self, words: list[str], url: str) -> asyncio.subprocess.Process:
        arguments = [url if word == "$S" else word for word in words[1:]]
        return await asyncio.create_subprocess_exec(
            str(CONCLAVE),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )

    async def run(self, words: list[str], url: str) -> str:
        process = await self.start(words, url)
        async with asyncio.timeout(30):
            out, err = await process.communicate()
        assert process.returncode == 0, f"{words}: {err.decode()}"
        return out.decode()


async def test_readmes_session_works_whichever_node_each_command_meets(
    nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """The first commands of a new user have to work, with sessions on any node of a cluster."""
    urls = itertools.cycle(node.url for node in nodes)
    terminal = Terminal(tmp_path)
    register, create, tail, send, who = readme_session()
    assert (await terminal.run(register, next(urls))).startswith("✓ registered ann/")
    assert await terminal.run(create, next(urls)) == "✓ ops\n"
    listening = await terminal.start(tail, next(urls))
    assert listening.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert (await listening.stdout.readline()).decode().startswith("tailing #ops as ann/")
        assert await terminal.run(send, next(urls)) == "✓ sent to ops\n"
        async with asyncio.timeout(30):
            assert re.fullmatch(r"\[ops\] ann/.+: hello\n", (await listening.stdout.readline()).decode())
        assert re.fullmatch(r"\[ops\] ann/\S+\n", await terminal.run(who, next(urls)))
    finally:
        listening.terminate()
        await listening.wait()

"""The recording in README: two terminals, drawn as an SVG from what the program prints.

`python -m tests.docs.recording` runs the commands at a relay of its own and writes `docs/images/talk.svg`, unless the
recording there shows the same.
"""

import asyncio
import os
import re
import shlex
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from html import escape
from pathlib import Path
from typing import NamedTuple

from tests.support.nodes import NodeProcess
from tests.support.programs import CONCLAVE

SVG = Path(__file__).parents[2] / "docs" / "images" / "talk.svg"
TERMINALS = ("ann, on her laptop", "an agent, on the build server")
_WAIT_SECONDS = 60


class Line(NamedTuple):
    """A line that appears in one of the terminals; a command begins with `$`."""

    terminal: int
    text: str


class _Person:
    """A user with a home directory, at one terminal."""

    def __init__(self, terminal: int, home: Path, url: str, shown: list[Line]) -> None:
        self._terminal = terminal
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONUTF8": "1"}
        self._url = url
        self._shown = shown

    async def start(self, command: str) -> asyncio.subprocess.Process:
        self._shown.append(Line(self._terminal, f"$ {command}"))
        words = [self._url if word == "$S" else word for word in shlex.split(command)]
        return await asyncio.create_subprocess_exec(
            *(str(CONCLAVE), *words[1:]), stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=self._environment
        )

    async def run(self, command: str) -> None:
        process = await self.start(command)
        async with asyncio.timeout(_WAIT_SECONDS):
            output, _ = await process.communicate()
        self._shown += [Line(self._terminal, text) for text in output.decode().splitlines()]

    async def read_line(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async with asyncio.timeout(_WAIT_SECONDS):
            text = await process.stdout.readline()
        self._shown.append(Line(self._terminal, text.decode().rstrip("\n")))


async def record() -> list[Line]:
    """Play the scene at a relay of its own; return the output of the two terminals, in its order."""
    shown: list[Line] = []
    relay = NodeProcess("--ephemeral")
    with tempfile.TemporaryDirectory() as home:
        try:
            await relay.start()
            ann, agent = (_Person(number, Path(home, str(number)), relay.url, shown) for number in (0, 1))
            await ann.run("conclave register --server $S --username ann --machine laptop")
            await ann.run("conclave channel create --server $S ops")
            following = await ann.start("conclave tail --server $S --channel ops")
            await ann.read_line(following)
            await agent.run("conclave register --server $S --username builder --machine ci")
            await agent.run('conclave send --server $S --channel ops "build 812 is green, deploying"')
            await ann.read_line(following)
            await agent.run("conclave who --server $S ops")
            await agent.run('conclave send --server $S --channel ops "deployed: 3 of 3 nodes, 0 errors"')
            await ann.read_line(following)
            following.terminate()
            await following.wait()
        finally:
            await relay.close()
    return shown


_WIDTH, _MARGIN, _BAR, _ROW, _PAD = 800, 12, 30, 21, 12
_SECONDS_PER_LINE = 0.7
_STYLE = """
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d8dee9; }
.title { font-size: 12px; fill: #9aa5b8; }
.command { fill: #ffffff; font-weight: 600; }
.line { animation: appear 0.2s both; }
@keyframes appear { from { opacity: 0; } }
@media (prefers-reduced-motion: reduce) { .line { animation: none; } }
"""


def draw(shown: list[Line]) -> str:
    """Return the SVG: a dark window per terminal, on any background; lines appear one after the other, and stay."""
    parts, top = [], _MARGIN
    for number, title in enumerate(TERMINALS):
        rows = [(moment, line) for moment, line in enumerate(shown) if line.terminal == number]
        height = _BAR + 2 * _PAD + _ROW * len(rows)
        parts.append(
            f'<rect x="{_MARGIN}" y="{top}" width="{_WIDTH - 2 * _MARGIN}" height="{height}" rx="8"'
            ' fill="#1b2130" stroke="#56617a"/>'
        )
        parts.append(f'<text class="title" x="{_MARGIN + 16}" y="{top + 20}">{escape(title)}</text>')
        for row, (moment, line) in enumerate(rows):
            kind = "line command" if line.text.startswith("$ ") else "line"
            parts.append(
                f'<text class="{kind}" style="animation-delay: {moment * _SECONDS_PER_LINE:.1f}s" xml:space="preserve"'
                f' x="{_MARGIN + 16}" y="{top + _BAR + _PAD + _ROW * row + 12}">{escape(line.text)}</text>'
            )
        top += height + _MARGIN
    size = f'viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    title = "<title>Two terminals: ann follows the channel ops, an agent on another machine posts to it</title>"
    return "\n".join([head, title, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def without_process_ids(svg: str) -> str:
    """Return the common part of two recordings of the same scene: a session's handle contains a process id."""
    return re.sub(r"cli-\d+", "cli-PID", svg)


def main() -> None:
    svg = draw(asyncio.run(record()))
    if not SVG.exists() or without_process_ids(SVG.read_text(encoding="utf-8")) != without_process_ids(svg):
        SVG.parent.mkdir(exist_ok=True)
        SVG.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()

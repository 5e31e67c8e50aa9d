"""A bridge without connections: its session and its tools, with the replies of its servers in a list."""

from pathlib import Path
from typing import Any

from bridge.session.levels import Levels
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from bridge.session.watermarks import Watermarks
from bridge.tools import dispatch
from conclave.machine.config import Level, LocalConfig
from conclave.protocol.body import Body
from conclave.protocol.requests import Request, Row

ONE, TWO = "ws://one.example", "ws://two.example"


class Shown:
    """Keeps the channel events that the model would see."""

    def __init__(self) -> None:
        self.contents: list[str] = []
        self.metas: list[dict[str, str]] = []

    def push(self, content: str, meta: dict[str, str]) -> None:
        self.contents.append(content)
        self.metas.append(meta)


class OfflineBridge:
    """A session at some servers, which have logged it in with v2."""

    def __init__(self, state: Path, *urls: str, level: Level = Level.CONVERSE) -> None:
        self.events = Shown()
        self.servers = [Server(url) for url in urls]
        for server in self.servers:
            server.path, server.version = "ann/laptop/me", 2
        config = LocalConfig(default_permission=level)
        self.session = BridgeSession(self.servers, Levels(config), Watermarks(state), self.events)

    def run(self, name: str, answers: list[Any], **arguments: Any) -> tuple[str, list[Request[Any]]]:
        """Carry out a tool with these answers of the server; return its text and its requests."""
        steps = dispatch.begin(self.session, name, arguments).effects
        return run_offline(steps, answers)


def run_offline(steps: Any, answers: list[Any]) -> tuple[Any, list[Request[Any]]]:
    """Run effects with these answers to their requests; return their result and the requests."""
    asked: list[Request[Any]] = []
    left = iter(answers)
    try:
        asked.append(next(steps))
        while True:
            answer = next(left)
            asked.append(steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer))
    except StopIteration as done:
        return done.value, asked


def rows(first: int, last: int) -> tuple[Row, ...]:
    return tuple(Row(f"{n}-0", n, "bob/laptop/main", Body(text=f"text {n}")) for n in range(first, last + 1))

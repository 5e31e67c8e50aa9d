"""The server's side of the Model Context Protocol for Claude Code: lifecycle, tools, and channel events.

Pure: messages go in, lines of bytes come out of `Outgoing`, and a tool call is returned to the caller, which runs it.

A client that negotiates a later revision does not treat the server as a channel. So a probe for a later one
(`server/discover`) is an unknown method like any other, and an unknown revision is answered with the newest known one.
"""

import logging
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from bridge.mcp.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    Fault,
    Id,
    Message,
    Notification,
    Request,
    fault_line,
    is_id,
    result_line,
)
from bridge.mcp.outgoing import Outgoing, event_line
from conclave import __version__

REVISIONS: Final = ("2025-06-18", "2025-11-25")
"""The supported revisions of the protocol, oldest first."""

INSTRUCTION_BYTES: Final = 2048
"""The length at which Claude Code cuts the instructions."""

_META_KEY: Final = re.compile(r"[A-Za-z0-9_]+")

logger = logging.getLogger(__name__)


class ToolResult(NamedTuple):
    """The answer to a call, for the model."""

    text: str
    is_error: bool = False


class Tools(Protocol):
    """The tools that the model may call."""

    def listed(self) -> list[dict[str, Any]]:
        """Return the tools that are offered now, each with `name`, `description` and `inputSchema`."""
        ...

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        """Run a tool, listed or not. A failure is a result; an exception is an internal error."""
        ...


class ToolCall:
    """An open tool call. Calls are compared by identity: a later one may have the same id."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self, id_: Id, name: str, arguments: dict[str, Any]) -> None:
        self.id = id_
        self.name = name
        self.arguments = arguments


class Start(NamedTuple):
    """Instruction to run a call and to give its result to `Endpoint.finish`."""

    call: ToolCall


class Stop(NamedTuple):
    """Instruction to stop a call that the client has cancelled; it gets no answer."""

    call: ToolCall


class Outlet:
    """The outlet for channel events. It can be used before the session is open, and never waits."""

    def __init__(self, outgoing: Outgoing, on_due: Callable[[], None]) -> None:
        self._outgoing = outgoing
        self._on_due = on_due

    def push(self, content: str, meta: dict[str, str]) -> None:
        """Show the model a channel event; `meta` becomes attributes of its tag.

        Raises:
            ValueError: for a key that Claude Code would drop silently, or that it sets itself.
        """
        for key in meta:
            if key == "source" or not _META_KEY.fullmatch(key):
                raise ValueError(f"no name for an attribute: {key!r}")
        self._outgoing.event(event_line(content, meta))
        self._on_due()

    def tools_changed(self) -> None:
        """Tell the client that the result of `Tools.listed` has changed."""
        self._outgoing.tools_changed()
        self._on_due()


class Endpoint:
    """The endpoint for one client. It may send `initialize` repeatedly, and is answered before the first one, too."""

    def __init__(self, listed: Callable[[], list[dict[str, Any]]], outgoing: Outgoing, instructions: str) -> None:
        if len(instructions.encode()) > INSTRUCTION_BYTES:
            raise ValueError(f"instructions are longer than {INSTRUCTION_BYTES} bytes, and would be cut off")
        self._listed = listed
        self._outgoing = outgoing
        self._instructions = instructions
        self._open: dict[Id, ToolCall] = {}
        self.greeted = False
        """True once an `initialize` was answered."""

    def receive(self, message: Message) -> Start | Stop | None:
        """Answer a message, or return the instruction for the caller."""
        match message:
            case Request():
                return self._answer(message)
            case Notification(method, params):
                return self._notice(method, params)
            case Fault():
                self._outgoing.reply(fault_line(message))
        return None

    def finish(self, call: ToolCall, result: ToolResult) -> None:
        """Answer a call, unless it was answered or cancelled before."""
        if self._open.get(call.id) is not call:
            return
        del self._open[call.id]
        answer: dict[str, Any] = {"content": [{"type": "text", "text": result.text}]}
        if result.is_error:
            answer["isError"] = True
        self._outgoing.reply(result_line(call.id, answer))

    def _answer(self, request: Request) -> Start | None:
        id_, params = request.id, request.params
        if id_ in self._open:
            self._refuse(id_, INVALID_REQUEST, "invalid request: a call with this id is still open")
            return None
        match request.method:
            case "initialize":
                self._reply(id_, self._greeting(params))
                self.greeted = True
            case "ping":
                self._reply(id_, {})
            case "tools/list":
                self._list(id_)
            case "tools/call":
                return self._call(id_, params)
            case _:
                self._refuse(id_, METHOD_NOT_FOUND, "method not found")
        return None

    def _notice(self, method: str, params: Any) -> Stop | None:
        if method == "notifications/initialized":
            self._outgoing.open()
        elif method == "notifications/cancelled" and isinstance(params, dict):
            id_ = params.get("requestId")
            if is_id(id_) and id_ in self._open:
                return Stop(self._open.pop(id_))
        return None

    def _greeting(self, params: Any) -> dict[str, Any]:
        wanted = params.get("protocolVersion") if isinstance(params, dict) else None
        return {
            "protocolVersion": wanted if wanted in REVISIONS else REVISIONS[-1],
            "capabilities": {"experimental": {"claude/channel": {}}, "tools": {"listChanged": True}},
            "serverInfo": {"name": "conclave", "version": __version__},
            "instructions": self._instructions,
        }

    def _list(self, id_: Id) -> None:
        try:
            self._reply(id_, {"tools": self._listed()})
        except Exception:
            logger.exception("the tools cannot be listed")
            self._refuse(id_, INTERNAL_ERROR, "internal error")

    def _call(self, id_: Id, params: Any) -> Start | None:
        name, arguments = (params.get("name"), params.get("arguments")) if isinstance(params, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(arguments, dict | None):
            self._refuse(id_, INVALID_PARAMS, "invalid params: `name` must be a string, `arguments` an object")
            return None
        call = self._open[id_] = ToolCall(id_, name, arguments or {})
        return Start(call)

    def _reply(self, id_: Id, result: dict[str, Any]) -> None:
        self._outgoing.reply(result_line(id_, result))

    def _refuse(self, id_: Id, code: int, message: str) -> None:
        self._outgoing.reply(fault_line(Fault(id_, code, message)))

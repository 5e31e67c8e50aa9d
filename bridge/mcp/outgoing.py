"""The queue of lines for an MCP client: their order, and the events that are dropped when it is full. Pure."""

from collections import deque
from typing import Final

from bridge.mcp.jsonrpc import notification_line

EVENTS: Final = 1_000
EVENT_BYTES: Final = 4 * 1024 * 1024
"""The number and the size of events that may wait for a client that is not ready or does not read."""


class Outgoing:
    """The waiting lines in the order of their arrival: replies leave at any time, events once the session is open.

    Only the newest events within both bounds are kept (the very newest in any case). One notice tells the number of
    dropped ones. Replies have no bound here: the reader of requests has to stop while `reply_bytes` is too large.
    """

    def __init__(self) -> None:
        self.reply_bytes = 0
        self._count = 0
        self._replies: deque[tuple[int, bytes]] = deque()
        self._events: deque[tuple[int, bytes]] = deque()
        self._event_bytes = 0
        self._dropped = 0
        self._tools_changed: int | None = None
        self._open = False

    def open(self) -> None:
        """Let events leave from now on."""
        self._open = True

    def reply(self, line: bytes) -> None:
        self._replies.append((self._next_count(), line))
        self.reply_bytes += len(line)

    def event(self, line: bytes) -> None:
        self._events.append((self._next_count(), line))
        self._event_bytes += len(line)
        while len(self._events) > 1 and (len(self._events) > EVENTS or self._event_bytes > EVENT_BYTES):
            self._event_bytes -= len(self._events.popleft()[1])
            self._dropped += 1

    def tools_changed(self) -> None:
        """Queue the notification that the list of tools has changed; several of them become one, the last."""
        self._tools_changed = self._next_count()

    def take(self, size: int) -> bytes:
        """Remove and return whole lines, until they have `size` bytes or no more may leave."""
        lines: list[bytes] = []
        while size > 0 and (line := self._pop()):
            lines.append(line)
            size -= len(line)
        return b"".join(lines)

    def due(self) -> bool:
        """Tell if `take` would return anything."""
        return bool(self._replies) or (self._open and (bool(self._events) or self._tools_changed is not None))

    def _next_count(self) -> int:
        self._count += 1
        return self._count

    def _pop(self) -> bytes:
        never = self._count + 1
        reply = self._replies[0][0] if self._replies else never
        event = self._events[0][0] if self._events and self._open else never
        changed = self._tools_changed if self._tools_changed is not None and self._open else never
        first = min(reply, event, changed)
        if first == never:
            return b""
        if first == reply:
            line = self._replies.popleft()[1]
            self.reply_bytes -= len(line)
            return line
        if first == changed:
            self._tools_changed = None
            return notification_line("notifications/tools/list_changed")
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            return _dropped_line(dropped)
        line = self._events.popleft()[1]
        self._event_bytes -= len(line)
        return line


def event_line(content: str, meta: dict[str, str]) -> bytes:
    """Render a channel event."""
    return notification_line("notifications/claude/channel", {"content": content, "meta": meta})


def _dropped_line(count: int) -> bytes:
    events = "1 event was" if count == 1 else f"{count} events were"
    text = f"{events} dropped here: they came before this session was ready, or faster than it read them."
    return event_line(text, {"kind": "error"})

"""The bridge's reaction to a server's events: messages are shown, counted or kept, changes are told. Pure.

Events come in through `receive`; what the agent is to see goes out through the sink.
"""

from typing import Literal, Protocol

from bridge.session import presentation
from bridge.session.levels import Levels
from bridge.session.servers import Server
from bridge.session.watermarks import Watermarks
from conclave.client.delivery_tracker import DeliveryTracker
from conclave.client.marks import is_time, time_of
from conclave.machine.config import Level
from conclave.protocol.body import Body
from conclave.protocol.events import Event, Gap, Left, Message, Renamed, Role, Whispered
from conclave.protocol.requests import Row

TIME_ONLY = 0
"""The protocol version of a watermark that is a time, not a position."""

_LEFT = {
    "kicked": "This session was removed from #{channel}.",
    "banned": "This session's user was banned from #{channel}.",
    "removed": "This session's user is not a member of #{channel} any more.",
    "private": "#{channel} was made private, and this session's user is not a member of it.",
    "deleted": "#{channel} was deleted.",
}


class Sink(Protocol):
    """Takes what the agent is to see."""

    def push(self, content: str, meta: dict[str, str]) -> None: ...


class Incoming:
    """Handles the events of all servers of one bridge."""

    def __init__(self, levels: Levels, watermarks: Watermarks, sink: Sink) -> None:
        self.levels = levels
        self._watermarks = watermarks
        self._sink = sink

    def level(self, server: Server, channel: str | None) -> Level:
        """Return the level of a channel, or of whispers."""
        return self.levels.level(server.urls, channel)

    def notice(self, server: Server, text: str, kind: Literal["link", "error"] = "link") -> None:
        """Tell the agent something about a server."""
        self._sink.push(*presentation.notice(text, server.url, kind))

    def receive(self, server: Server, event: Event) -> None:
        """Handle an event, in the order of the connection."""
        match event:
            case Message():
                self._message(server, event)
            case Whispered(from_=sender, body=body):
                level = self.level(server, None)
                if level is not Level.MUTE:
                    self._sink.push(*presentation.whisper(level, server.url, sender, body))
            case Left(channel, reason):
                server.remove(channel)
                text = _LEFT.get(reason, "This session is not in #{channel} any more.")
                self.notice(server, text.format(channel=presentation.name(channel)))
            case Renamed(old, new):
                self.renamed(server, old, new)
            case Gap(channel):
                self.notice(server, presentation.lost(channel))
            case Role(admin):
                server.admin = admin

    def quiet(self, server: Server) -> None:
        """Note that every event that had arrived was handled."""
        for tracker in server.channels.values():
            tracker.forget_echoes()

    def sent(self, server: Server, channel: str, body: Body) -> None:
        """Note a message of this session: the server has it, and does not deliver it here."""
        tracker = server.channels.get(channel)
        if tracker is not None:
            tracker.sent(server.path, body)

    def renamed(self, server: Server, old: str, new: str) -> None:
        """Note the new name of a channel; its level in this session stays."""
        if old not in server.channels:
            return
        before = self.level(server, old)
        self.levels.renamed(server.urls, old, new)
        server.rename(old, new)
        self._mark(server, new)
        level = self.level(server, new)
        text = f"#{presentation.name(old)} is now called #{presentation.name(new)}"
        self.notice(server, f"{text}." if level is before else f"{text}; its level is {level.value} now.")

    def _message(self, server: Server, message: Message) -> None:
        """Show a message, or keep it until its channel is known.

        A server that announces renames (v2) sends an unknown channel only if the session has just left it.
        """
        channel = message.channel
        tracker = server.channels.get(channel)
        if channel in server.joining:
            server.early.keep(message)
        elif tracker is not None:
            self._deliver(server, tracker, message)
        elif message.id is None and channel not in server.left:
            server.early.keep(message)

    def _deliver(self, server: Server, tracker: DeliveryTracker, message: Message) -> None:
        level = self.level(server, message.channel)
        shown = level is not Level.MUTE
        is_new = tracker.live(message, shown=shown)
        if is_new is None:  # an echo in all likelihood, and none is expected any more once the events are handled
            tracker.take_echo(message)
        if not is_new:
            return
        if shown:
            self._show(server, message.channel, level, message)
        self._mark(server, message.channel, message.ts)

    def _release(self, server: Server, channel: str) -> None:
        """Show the messages that waited for a channel, if the session has joined it."""
        server.joining.discard(channel)
        messages, complete = server.early.take(channel)
        tracker = server.channels.get(channel)
        if tracker is None:
            return
        for message in messages:
            self._deliver(server, tracker, message)
        if not complete:
            tracker.behind = True
            self.notice(server, f"Not all messages in #{presentation.name(channel)} were shown, catch_up to read them.")

    def _show(self, server: Server, channel: str, level: Level, message: Message | Row) -> None:
        self._sink.push(*presentation.message(level, server.url, channel, message.from_, message.body))

    def _mark(self, server: Server, channel: str, ts: int | None = None) -> None:
        """Note a channel's watermark; `ts` is the time of its last message, if it is known."""
        position = server.channels[channel].position
        if is_time(position):
            ts, protocol = time_of(position), TIME_ONLY
        else:
            protocol = server.version
        known = self._watermarks.get(server.key, channel)
        if known is None or known.position != position:
            self._watermarks.note(server.key, channel, position, ts=ts or server.now_ms(), protocol=protocol)

"""What this session is in, hears and has missed: the bridge without its wires. Pure.

Events come in through `heard`; what the user is to see goes out through the sink. Whatever takes questions and answers
is a generator of requests: it yields a request, is sent its result (or thrown the Refusal), and needs no socket.
"""

from collections.abc import Generator
from typing import Any, Literal, Protocol

from bridge import injection
from bridge.levels import Levels
from bridge.reading import Reading, at_time, behind, is_time, time_of
from bridge.servers import Server
from bridge.watermarks import Watermarks
from conclave.closing import in_words
from conclave.config import Level
from conclave.errors import Code, Refusal
from conclave.events import Event, Gap, Left, Message, Renamed, Role, Whispered
from conclave.requests import AclList, Join, Joined, Page, Request, Row

Steps = Generator[Request[Any], Any, None]

TIME_ONLY = 0
"""The protocol version of a watermark that is a time, not a position."""

INJECTED_ROWS = 50
"""How many missed messages are shown by themselves; more are announced and left to `catch_up`."""
COUNTED_ROWS = 5_000
"""How many missed messages are counted before it is only said that there are more."""

_PASSING = frozenset({Code.INTERNAL, Code.UNAVAILABLE, Code.RATE_LIMITED})

_LEFT = {
    "kicked": "This session was removed from #{channel}.",
    "banned": "This session's user was banned from #{channel}.",
    "removed": "This session's user is not a member of #{channel} any more.",
    "private": "#{channel} was made private, and this session's user is not a member of it.",
    "deleted": "#{channel} was deleted.",
}


class Sink(Protocol):
    """Where the user's side of the session is."""

    def push(self, content: str, meta: dict[str, str]) -> None: ...


class Session:
    """The servers, what was joined there, and what was shown."""

    def __init__(self, servers: list[Server], levels: Levels, watermarks: Watermarks, sink: Sink) -> None:
        self.servers = servers
        self.levels = levels
        self._watermarks = watermarks
        self._sink = sink

    # --- What the user sees ---

    def level(self, server: Server, channel: str | None) -> Level:
        """Return the level of a channel, or of whispers."""
        return self.levels.level(server.urls, channel)

    def notice(self, server: Server, text: str, kind: Literal["link", "error"] = "link") -> None:
        """Say something about a server; `kind` is link or error."""
        self._sink.push(*injection.notice(text, server.url, kind))

    # --- What a server says by itself ---

    def heard(self, server: Server, event: Event) -> None:
        match event:
            case Message():
                self._message(server, event)
            case Whispered(from_=sender, body=body):
                level = self.level(server, None)
                if level is not Level.MUTE:
                    self._sink.push(*injection.whisper(level, server.url, sender, body))
            case Left(channel, reason):
                server.drop(channel)
                text = _LEFT.get(reason, "This session is not in #{channel} any more.")
                self.notice(server, text.format(channel=injection.name(channel)))
            case Renamed(old, new):
                self.renamed(server, old, new)
            case Gap(channel):
                self.notice(server, injection.lost(channel))
            case Role(admin):
                server.admin = admin

    def quiet(self, server: Server) -> None:
        """Note that every event that had arrived was handled."""
        for reading in server.channels.values():
            reading.forget_early()

    def _message(self, server: Server, message: Message) -> None:
        reading = server.channels.get(message.channel)
        if reading is None and message.id is not None:
            return  # it was left meanwhile; a server that tells positions tells new names, too
        reading = reading or self._under_a_new_name(server, message)
        if reading.is_repeated(message):
            return
        level = self.level(server, message.channel)
        shown = level is not Level.MUTE
        if shown:
            self._show(server, message.channel, level, message)
        reading.live(message, shown=shown)
        self._mark(server, message.channel, message.ts)

    def _show(self, server: Server, channel: str, level: Level, message: Message | Row) -> None:
        self._sink.push(*injection.message(level, server.url, channel, message.from_, message.body))

    def _under_a_new_name(self, server: Server, message: Message) -> Reading:
        """Find out what channel it is: v1 does not say that one was renamed, its messages just come under the new name.

        With one channel it is clear which one. With several, both names stay until the next connection tells.
        """
        if len(server.channels) == 1:
            (old,) = server.channels
            self.renamed(server, old, message.channel)
        else:
            server.channels[message.channel] = Reading(at_time(server.now_ms()), placed=message.id is not None)
        return server.channels[message.channel]

    def renamed(self, server: Server, old: str, new: str) -> None:
        """Note that a channel has another name now; its level in this session stays."""
        if old not in server.channels:
            return
        before = self.level(server, old)
        self.levels.renamed(server.urls, old, new)
        server.rename(old, new)
        self._mark(server, new)
        level = self.level(server, new)
        text = f"#{injection.name(old)} is now called #{injection.name(new)}"
        self.notice(server, f"{text}." if level is before else f"{text}; its level is {level.value} now.")

    # --- Coming in, and coming back ---

    def entering(self, server: Server) -> Steps:
        """Join again what this session was in; first thing on every new connection.

        Raises:
            Refusal: if the server cannot do it just now; the connection is of no use then.
        """
        self._translate(server)
        for channel in list(server.channels):
            try:
                joined: Joined = yield Join(channel)
            except Refusal as refusal:
                if refusal.code in _PASSING:
                    raise
                server.drop(channel)
                reason = injection.line(in_words(refusal))
                self.notice(server, f"Could not join #{injection.name(channel)} again: {reason}", "error")
            else:
                yield from self.joined(server, joined)

    def _translate(self, server: Server) -> None:
        """Where the server has changed its version of the protocol, go on from times: its positions are other ones."""
        if server.marks_version != server.version:
            server.marks_version = server.version
            for channel, reading in server.channels.items():
                known = self._watermarks.get(server.key, channel)
                reading.restart(at_time(server.now_ms()) if known is None else known.mark(server.version))

    def joined(self, server: Server, joined: Joined) -> Steps:
        """Note that the session is in a channel, and show what it missed there since it was last shown anything."""
        channel = joined.channel
        server.rules(channel, joined.admin)
        if joined.admin is None and not server.admin:
            yield from self._rule(server, channel)
        reading = server.channels.get(channel)
        if reading is None:
            known = self._watermarks.get(server.key, channel)
            mark = None if known is None else known.mark(server.version)
            start = mark or joined.position or at_time(server.now_ms())
            reading = server.channels[channel] = Reading(start, placed=joined.position is not None)
            if known is None:
                self._mark(server, channel)
                return
        reading.placed = joined.position is not None
        yield from self._missed(server, channel, reading, joined.position)

    def _rule(self, server: Server, channel: str) -> Steps:
        """Find out whether the user administers a channel, where joining it does not tell: only admins see its ACL."""
        try:
            yield AclList(channel)
        except Refusal as refusal:
            if refusal.code is Code.UNAUTHORIZED:
                server.rules(channel, admin=False)
        else:
            server.rules(channel, admin=True)

    def _missed(self, server: Server, channel: str, reading: Reading, live_from: str | None) -> Steps:
        missed: list[Row] = []
        lost = False
        more = True
        while more and len(missed) < COUNTED_ROWS:
            page: Page = yield behind(channel, reading.heard)
            missed += reading.missed(page.messages, server.path)
            lost, more = lost or page.lost, page.more
        level = self.level(server, channel)
        if level is Level.MUTE and missed:
            reading.skip(live_from)
            return
        if lost and level is not Level.MUTE:
            self.notice(server, injection.lost(channel))
        if len(missed) > INJECTED_ROWS:
            reading.skip(live_from)
            count = f"More than {COUNTED_ROWS}" if more else str(len(missed))
            self.notice(server, f"{count} messages missed in #{injection.name(channel)}, catch_up to read them.")
            return
        reading.showing(missed)
        if missed:
            these = "1 message" if len(missed) == 1 else f"{len(missed)} messages"
            self.notice(server, f"{these} missed in #{injection.name(channel)}; shown now.")
        for row in missed:
            self._show(server, channel, level, row)
        self._mark(server, channel)

    def settle(self, server: Server) -> Steps:
        """Find the positions of messages that came without one; to be done from time to time."""
        for channel, reading in list(server.channels.items()):
            if reading.unsettled:
                page: Page = yield behind(channel, reading.heard)
                reading.settle(page.messages, server.path)
                self._mark(server, channel)

    # --- Watermarks ---

    def unread_from(self, server: Server, channel: str) -> str:
        """Return the mark that this session was shown a channel up to; the beginning, if it never was shown any."""
        reading = server.channels.get(channel)
        if reading is not None:
            return reading.position
        known = self._watermarks.get(server.key, channel)
        return at_time(0) if known is None else known.mark(server.version)

    def caught_up(self, server: Server, channel: str, rows: list[Row], *, more: bool) -> None:
        """Note that the history behind the watermark was shown."""
        reading = server.channels.get(channel)
        if reading is not None:
            reading.caught_up(rows, more=more)
            self._mark(server, channel, rows[-1].ts if rows else None)

    def _mark(self, server: Server, channel: str, ts: int | None = None) -> None:
        """Keep how far the session was shown a channel; `ts` is the time of the last message, if it is known."""
        position = server.channels[channel].position
        if is_time(position):
            ts, protocol = time_of(position), TIME_ONLY
        else:
            protocol = server.version
        known = self._watermarks.get(server.key, channel)
        if known is None or known.position != position:
            self._watermarks.note(server.key, channel, position, ts=ts or server.now_ms(), protocol=protocol)

"""What this session is in, hears and has missed: the bridge without its wires. Pure.

Events come in through `heard`; what the user is to see goes out through the sink. Whatever takes questions and answers
is a generator of requests: it yields a request, is sent its result (or thrown the Refusal), and needs no socket.
"""

from collections.abc import Generator
from typing import Any, Literal, Protocol

from bridge.session import presentation
from bridge.session.levels import Levels
from bridge.session.read_state import Count, ReadState, at_time, behind, is_time, time_of
from bridge.session.servers import Server
from bridge.session.watermarks import Watermarks
from conclave.client.retry import may_retry
from conclave.errors import Code, ConclaveError, Refusal, in_words
from conclave.machine.config import Level
from conclave.protocol.body import Body
from conclave.protocol.events import Event, Gap, Left, Message, Renamed, Role, Whispered
from conclave.protocol.requests import AclList, Join, Joined, Page, Request, Row

Steps = Generator[Request[Any], Any, None]

TIME_ONLY = 0
"""The protocol version of a watermark that is a time, not a position."""

INJECTED_ROWS = 50
"""How many missed messages are shown by themselves; more are announced and left to `catch_up`."""
COUNTED_ROWS = 5_000
"""How many missed messages are counted before it is only said that there are more."""


_LEFT = {
    "kicked": "This session was removed from #{channel}.",
    "banned": "This session's user was banned from #{channel}.",
    "removed": "This session's user is not a member of #{channel} any more.",
    "private": "#{channel} was made private, and this session's user is not a member of it.",
    "deleted": "#{channel} was deleted.",
}


class Entering(ConclaveError):
    """A channel that the session is on its way into; asking again changes nothing."""


class Sink(Protocol):
    """Where the user's side of the session is."""

    def push(self, content: str, meta: dict[str, str]) -> None: ...


class BridgeSession:
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
        self._sink.push(*presentation.notice(text, server.url, kind))

    # --- What a server says by itself ---

    def heard(self, server: Server, event: Event) -> None:
        match event:
            case Message():
                self._message(server, event)
            case Whispered(from_=sender, body=body):
                level = self.level(server, None)
                if level is not Level.MUTE:
                    self._sink.push(*presentation.whisper(level, server.url, sender, body))
            case Left(channel, reason):
                server.drop(channel)
                text = _LEFT.get(reason, "This session is not in #{channel} any more.")
                self.notice(server, text.format(channel=presentation.name(channel)))
            case Renamed(old, new):
                self.renamed(server, old, new)
            case Gap(channel):
                self.notice(server, presentation.lost(channel))
            case Role(admin):
                server.admin = admin

    def said(self, server: Server, channel: str, body: Body) -> None:
        """Note what this session said: the server has it, and does not send it here."""
        reading = server.channels.get(channel)
        if reading is not None:
            reading.said(server.path, body)

    def quiet(self, server: Server) -> None:
        """Note that every event that had arrived was handled."""
        for reading in server.channels.values():
            reading.forget_early()

    def _message(self, server: Server, message: Message) -> None:
        """Show a message, or keep it until it is known where it belongs.

        Where the server tells what is renamed, an unknown channel is one that the session is not in any more.
        """
        channel = message.channel
        reading = server.channels.get(channel)
        if channel in server.entering:
            server.strays.keep(message)
        elif reading is not None:
            self._deliver(server, reading, message)
        elif message.id is None and channel not in server.left:
            server.strays.keep(message)

    def _deliver(self, server: Server, reading: ReadState, message: Message) -> None:
        if reading.is_repeated(message):
            return
        level = self.level(server, message.channel)
        shown = level is not Level.MUTE
        if shown:
            self._show(server, message.channel, level, message)
        reading.live(message, shown=shown)
        self._mark(server, message.channel, message.ts)

    def _release(self, server: Server, channel: str) -> None:
        """Show what was kept of a channel, if the session is in it now."""
        server.entering.discard(channel)
        messages, complete = server.strays.take(channel)
        reading = server.channels.get(channel)
        if reading is None:
            return
        for message in messages:
            self._deliver(server, reading, message)
        if not complete:
            reading.behind = True
            self.notice(server, f"Not all messages in #{presentation.name(channel)} were shown, catch_up to read them.")

    def _show(self, server: Server, channel: str, level: Level, message: Message | Row) -> None:
        self._sink.push(*presentation.message(level, server.url, channel, message.from_, message.body))

    def renamed(self, server: Server, old: str, new: str) -> None:
        """Note that a channel has another name now; its level in this session stays."""
        if old not in server.channels:
            return
        before = self.level(server, old)
        self.levels.renamed(server.urls, old, new)
        server.rename(old, new)
        self._mark(server, new)
        level = self.level(server, new)
        text = f"#{presentation.name(old)} is now called #{presentation.name(new)}"
        self.notice(server, f"{text}." if level is before else f"{text}; its level is {level.value} now.")

    # --- Coming in, and coming back ---

    def entering(self, server: Server) -> Steps:
        """Join again what this session was in; first thing on every new connection.

        Raises:
            Refusal: if the server cannot do it just now; the connection is of no use then.
        """
        server.begin()
        self._translate(server)
        for channel in list(server.channels):
            try:
                joined: Joined = yield Join(channel)
            except Refusal as refusal:
                if may_retry(refusal):
                    raise
                self._lose(server, channel, "Could not join #{} again: {}", refusal)
            else:
                reading, first = self._entered(server, joined)
                try:
                    yield from self._arrive(server, reading, joined, first=first)
                except Refusal as refusal:
                    if may_retry(refusal):
                        raise
                    self._unread(server, reading, refusal)

    def _translate(self, server: Server) -> None:
        """Where the server has changed its version of the protocol, go on from times: its positions are other ones."""
        if server.marks_version != server.version:
            server.marks_version = server.version
            for channel, reading in server.channels.items():
                known = self._watermarks.get(server.key, channel)
                reading.restart(at_time(server.now_ms()) if known is None else known.mark(server.version))

    def join(
        self, server: Server, channel: str, token: str | None, level: Level | None
    ) -> Generator[Request[Any], Any, str]:
        """Join a channel, and set its level there if one is given; return its name.

        Its messages wait meanwhile: they come after what was missed. If the connection is lost on the way, nothing has
        been counted or shown, and the next one begins again.

        Raises:
            Refusal: if the server does not let the session in.
            Entering: if it is on its way in already.
        """
        if channel in server.entering:
            raise Entering(f"`{presentation.name(channel)}` is being joined already")
        server.entering.add(channel)
        inside = False
        try:
            joined: Joined = yield Join(channel, token)
            inside = True
        finally:
            if not inside:
                self._release(server, channel)
        if level is not None:
            self.levels.set(server.urls, channel, level)
        reading, first = self._entered(server, joined)
        try:
            yield from self._arrive(server, reading, joined, first=first)
        except Refusal as refusal:
            self._unread(server, reading, refusal)
        server.entering.discard(channel)
        self._release(server, server.name_of(reading) or channel)
        return joined.channel

    def _entered(self, server: Server, joined: Joined) -> tuple[ReadState, bool]:
        """Note that the session is in a channel; return its account, and whether it was never in there before."""
        channel = joined.channel
        placed = joined.position is not None
        known = self._watermarks.get(server.key, channel)
        reading = server.channels.get(channel)
        first = reading is None and known is None
        if reading is None:
            mark = None if known is None else known.mark(server.version)
            reading = ReadState(mark or joined.position or at_time(server.now_ms()), placed=placed)
            server.channels[channel] = reading
        server.left.discard(channel)
        reading.placed = placed
        server.rules(channel, joined.admin)
        if first:
            self._mark(server, channel)
        return reading, first

    def _arrive(self, server: Server, reading: ReadState, joined: Joined, *, first: bool) -> Steps:
        """Show what the session missed in a channel since it was last shown anything."""
        if joined.admin is None and not server.admin:
            yield from self._rule(server, joined.channel)
        if not first:
            yield from self._missed(server, joined.channel, reading, joined.position)
        elif not reading.placed:
            yield from self._start(server, joined.channel, reading)

    def _rule(self, server: Server, channel: str) -> Steps:
        """Find out whether the user administers a channel, where joining it does not tell: only admins see its ACL."""
        try:
            yield AclList(channel)
        except Refusal as refusal:
            if refusal.code is Code.UNAUTHORIZED:
                server.rules(channel, admin=False)
        else:
            server.rules(channel, admin=True)

    def _start(self, server: Server, channel: str, reading: ReadState) -> Steps:
        """Find the place in the history where the session came in: a time is up to a second before it."""
        count, _, _ = yield from _counted(server, channel, reading, COUNTED_ROWS)
        name = server.name_of(reading)
        if name is None:  # it was left meanwhile
            return
        if self.level(server, name) is Level.MUTE and count.missed:
            reading.skip(count)
        else:
            reading.start(count)
        self._mark(server, name)

    def _missed(self, server: Server, channel: str, reading: ReadState, live_from: str | None) -> Steps:
        count, lost, more = yield from _counted(server, channel, reading, INJECTED_ROWS)
        name = server.name_of(reading)
        if name is None:
            return
        level = self.level(server, name)
        if level is Level.MUTE and count.missed:
            reading.skip(count, live_from)
            return
        if lost and level is not Level.MUTE:
            self.notice(server, presentation.lost(name))
        if count.missed > INJECTED_ROWS:
            reading.skip(count, live_from)
            number = f"More than {COUNTED_ROWS}" if more else str(count.missed)
            self.notice(server, f"{number} messages missed in #{presentation.name(name)}, catch_up to read them.")
            return
        reading.showing(count)
        if count.rows:
            these = "1 message" if count.missed == 1 else f"{count.missed} messages"
            self.notice(server, f"{these} missed in #{presentation.name(name)}; shown now.")
        for row in count.rows:
            self._show(server, name, level, row)
        self._mark(server, name)

    # --- From time to time ---

    def settle(self, server: Server) -> Steps:
        """Find out what a v1 server does not tell: where stray messages belong, and where live ones are in the history.

        A server that cannot answer just now is asked again the next time.
        """
        if server.puzzled:
            yield from self._identify(server)
        for channel, reading in list(server.channels.items()):
            if not reading.unsettled or channel in server.entering:
                continue
            try:
                page: Page = yield behind(channel, reading.heard)
            except Refusal as refusal:
                if may_retry(refusal):
                    return
                self._lose(server, channel, "This session does not hear #{} any more: {}", refusal)
            else:
                reading.settle(page.messages, server.path)
                if server.channels.get(channel) is reading:
                    self._mark(server, channel)

    def _identify(self, server: Server) -> Steps:
        """Find out which channel stray messages are from: one that was renamed is not found under its old name.

        A name is adopted only where that leaves no doubt. Otherwise the session hears a channel that nobody said
        anything about, and its level is that of any such channel.
        """
        gone: dict[str, Refusal] = {}
        for channel in list(server.channels):
            if channel in server.left:
                continue
            try:
                yield Join(channel)
            except Refusal as refusal:
                if may_retry(refusal):
                    return
                gone[channel] = refusal
        strays = [name for name in server.strays.channels if name not in server.entering]
        lost = [channel for channel in gone if channel in server.channels]
        if len(lost) == len(strays) == 1 and gone[lost[0]].code is Code.NOT_FOUND:
            self.renamed(server, lost[0], strays[0])
        else:
            for channel in lost:
                self._lose(server, channel, "This session does not hear #{} any more: {}", gone[channel])
            for name in strays:
                server.channels.setdefault(name, ReadState(at_time(server.now_ms()), placed=False))
        for name in strays:
            self._release(server, name)

    def _lose(self, server: Server, channel: str, text: str, refusal: Refusal) -> None:
        """Give a channel up that the server does not let the session into."""
        server.drop(channel)
        self.notice(server, text.format(presentation.name(channel), presentation.line(in_words(refusal))), "error")

    def _unread(self, server: Server, reading: ReadState, refusal: Refusal) -> None:
        """Leave to `catch_up` what the server did not let the session read."""
        name = server.name_of(reading)
        if name is None:
            return
        reading.behind = True
        reason = presentation.line(in_words(refusal))
        text = f"What was missed in #{presentation.name(name)} could not be read ({reason}), catch_up to read it."
        self.notice(server, text, "error")

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


def _counted(
    server: Server, channel: str, reading: ReadState, keep: int
) -> Generator[Request[Any], Any, tuple[Count, bool, bool]]:
    """Count what was missed, up to a bound; return with the count whether something is lost, and whether there is more.

    The account of the channel does not move.
    """
    count = reading.count(server.path, keep)
    lost, more = False, True
    while more and count.missed < COUNTED_ROWS:
        page: Page = yield behind(channel, count.end)
        count.add(page.messages)
        lost, more = lost or page.lost, page.more and bool(page.messages)
    return count, lost, more

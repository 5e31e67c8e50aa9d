"""The channels of this session: joined, rejoined on a new connection, and read where messages were missed. Pure.

Whatever asks a server is a generator of requests (`bridge.session.effects`). The other half, the events that a server
sends, is `bridge.session.incoming`.
"""

from bridge.errors import JoinInProgress
from bridge.session import presentation
from bridge.session.effects import Effects
from bridge.session.incoming import Incoming, Sink
from bridge.session.levels import Levels
from bridge.session.servers import Server
from bridge.session.watermarks import Watermarks
from conclave.client.delivery_tracker import DeliveryTracker, MissedRows
from conclave.client.marks import at_time, history_after
from conclave.client.retry import may_retry
from conclave.errors import Code, Refusal, in_words
from conclave.machine.config import Level
from conclave.protocol.requests import AclList, Join, Joined, Page, Row

SHOWN_ROWS = 50
"""The number of missed messages that are shown unasked; more are announced and left to `catch_up`."""
COUNTED_ROWS = 5_000
"""The number of missed messages that are counted; beyond it the notice says that there are more."""


class BridgeSession(Incoming):
    """The servers of one bridge, and the channels that the session has joined there."""

    def __init__(self, servers: list[Server], levels: Levels, watermarks: Watermarks, sink: Sink) -> None:
        super().__init__(levels, watermarks, sink)
        self.servers = servers

    # --- Joins ---

    def rejoin(self, server: Server) -> Effects[None]:
        """Join the session's channels on a new connection, before anything else is asked there.

        Raises:
            Refusal: if the server cannot do it at the moment; the connection is of no use then.
        """
        server.reconnected()
        self._translate_marks(server)
        for channel in list(server.channels):
            try:
                joined: Joined = yield Join(channel)
            except Refusal as refusal:
                if may_retry(refusal):
                    raise
                self._lose(server, channel, "Could not join #{} again: {}", refusal)
                continue
            tracker, first = self._joined(server, joined)
            try:
                yield from self._read_missed(server, tracker, joined, first=first)
            except Refusal as refusal:
                if may_retry(refusal):
                    raise
                self._leave_unread(server, tracker, refusal)

    def join(self, server: Server, channel: str, token: str | None, level: Level | None) -> Effects[str]:
        """Join a channel, and set its level there if one is given; return its name.

        Live messages wait meanwhile, so they come after what was missed. If the connection is lost on the way, nothing
        has been counted or shown, and the rejoin on the next one begins again.

        Raises:
            Refusal: if the server refuses the join.
            JoinInProgress: if the session is joining the channel already.
        """
        if channel in server.joining:
            raise JoinInProgress(f"`{presentation.name(channel)}` is being joined already")
        server.joining.add(channel)
        accepted = False
        try:
            joined: Joined = yield Join(channel, token)
            accepted = True
        finally:
            if not accepted:
                self._release(server, channel)
        if level is not None:
            self.levels.set(server.urls, channel, level)
        tracker, first = self._joined(server, joined)
        try:
            yield from self._read_missed(server, tracker, joined, first=first)
        except Refusal as refusal:
            self._leave_unread(server, tracker, refusal)
        server.joining.discard(channel)
        self._release(server, server.name_of(tracker) or channel)
        return joined.channel

    def _translate_marks(self, server: Server) -> None:
        """Continue from times where the server has changed its version of the protocol, and so its positions."""
        if server.marks_version != server.version:
            server.marks_version = server.version
            for channel, tracker in server.channels.items():
                known = self._watermarks.get(server.key, channel)
                tracker.restart(at_time(server.now_ms()) if known is None else known.mark(server.version))

    def _joined(self, server: Server, joined: Joined) -> tuple[DeliveryTracker, bool]:
        """Note a join; return the channel's tracker, and True if the session was never in the channel before."""
        channel = joined.channel
        positioned = joined.position is not None
        known = self._watermarks.get(server.key, channel)
        tracker = server.channels.get(channel)
        first = tracker is None and known is None
        if tracker is None:
            mark = None if known is None else known.mark(server.version)
            tracker = DeliveryTracker(mark or joined.position or at_time(server.now_ms()))
            server.channels[channel] = tracker
        server.left.discard(channel)
        tracker.positioned = positioned
        server.set_administered(channel, joined.admin)
        if first:
            self._mark(server, channel)
        return tracker, first

    # --- Missed messages ---

    def _read_missed(self, server: Server, tracker: DeliveryTracker, joined: Joined, *, first: bool) -> Effects[None]:
        """Show or announce the messages that the session missed in a channel that it has just joined."""
        if joined.admin is None and not server.admin:
            yield from self._find_out_admin(server, joined.channel)
        if not first:
            yield from self._show_missed(server, joined.channel, tracker, joined.position)
        elif not tracker.positioned:
            yield from self._find_start(server, joined.channel, tracker)

    def _find_out_admin(self, server: Server, channel: str) -> Effects[None]:
        """Find out if the user administers a channel, where the join does not tell: only admins see its ACL."""
        try:
            yield AclList(channel)
        except Refusal as refusal:
            if refusal.code is Code.UNAUTHORIZED:
                server.set_administered(channel, admin=False)
        else:
            server.set_administered(channel, admin=True)

    def _find_start(self, server: Server, channel: str, tracker: DeliveryTracker) -> Effects[None]:
        """Find the position of the join in the history: the time to start from is up to a second before it."""
        missed, _, _ = yield from _count_missed(server, channel, tracker, COUNTED_ROWS)
        name = server.name_of(tracker)
        if name is None:  # the session has left it meanwhile
            return
        if self.level(server, name) is Level.MUTE and missed.count:
            tracker.skip(missed)
        else:
            tracker.start(missed)
        self._mark(server, name)

    def _show_missed(
        self, server: Server, channel: str, tracker: DeliveryTracker, live_from: str | None
    ) -> Effects[None]:
        missed, lost, more = yield from _count_missed(server, channel, tracker, SHOWN_ROWS)
        name = server.name_of(tracker)
        if name is None:
            return
        level = self.level(server, name)
        if level is Level.MUTE and missed.count:
            tracker.skip(missed, live_from)
            return
        if level is not Level.MUTE and (0 in lost or (lost and missed.count > SHOWN_ROWS)):
            self.notice(server, presentation.lost(name))
        if missed.count > SHOWN_ROWS:
            tracker.skip(missed, live_from)
            number = f"More than {COUNTED_ROWS}" if more else str(missed.count)
            self.notice(server, f"{number} messages missed in #{presentation.name(name)}, catch_up to read them.")
            return
        tracker.show(missed)
        if missed.rows:
            these = "1 message" if missed.count == 1 else f"{missed.count} messages"
            self.notice(server, f"{these} missed in #{presentation.name(name)}; shown now.")
        for shown, row in enumerate(missed.rows, 1):
            self._show(server, name, level, row)
            if shown in lost:
                self.notice(server, presentation.lost(name))
        self._mark(server, name)

    def _leave_unread(self, server: Server, tracker: DeliveryTracker, refusal: Refusal) -> None:
        """Leave to `catch_up` the missed messages that the server refused to give out."""
        name = server.name_of(tracker)
        if name is None:
            return
        tracker.behind = True
        reason = presentation.line(in_words(refusal))
        text = f"What was missed in #{presentation.name(name)} could not be read ({reason}), catch_up to read it."
        self.notice(server, text, "error")

    # --- Lookups over v1 ---

    def look_up(self, server: Server) -> Effects[None]:
        """Find out what a v1 server does not tell: the new name of a channel, and the positions of live messages.

        If the server cannot answer at the moment, the next call asks again.
        """
        if server.has_unknown_channels:
            yield from self._identify_channels(server)
        for channel, tracker in list(server.channels.items()):
            if not tracker.unplaced or channel in server.joining:
                continue
            try:
                page: Page = yield history_after(channel, tracker.received)
            except Refusal as refusal:
                if may_retry(refusal):
                    return
                self._lose(server, channel, "This session does not hear #{} any more: {}", refusal)
            else:
                tracker.place(page.messages, server.path)
                if server.channels.get(channel) is tracker:
                    self._mark(server, channel)

    def _identify_channels(self, server: Server) -> Effects[None]:
        """Find out which channel early messages are from: one that was renamed is not found under its old name.

        A new name is adopted only where that leaves no doubt. Otherwise the messages are those of an unknown channel,
        with the level of any channel that has none of its own.
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
        unknown = [name for name in server.early.channels if name not in server.joining]
        lost = [channel for channel in gone if channel in server.channels]
        if len(lost) == len(unknown) == 1 and gone[lost[0]].code is Code.NOT_FOUND:
            self.renamed(server, lost[0], unknown[0])
        else:
            for channel in lost:
                self._lose(server, channel, "This session does not hear #{} any more: {}", gone[channel])
            for name in unknown:
                server.channels.setdefault(name, DeliveryTracker(at_time(server.now_ms()), positioned=False))
        for name in unknown:
            self._release(server, name)

    def _lose(self, server: Server, channel: str, text: str, refusal: Refusal) -> None:
        """Give up a channel that the server refuses to the session."""
        server.remove(channel)
        self.notice(server, text.format(presentation.name(channel), presentation.line(in_words(refusal))), "error")

    # --- Catching up ---

    def unread_from(self, server: Server, channel: str) -> str:
        """Return the mark up to which the session was shown a channel; the beginning, if it was never shown any."""
        tracker = server.channels.get(channel)
        if tracker is not None:
            return tracker.position
        known = self._watermarks.get(server.key, channel)
        return at_time(0) if known is None else known.mark(server.version)

    def caught_up(self, server: Server, channel: str, rows: list[Row], *, more: bool) -> None:
        """Note that the history behind the watermark was shown."""
        tracker = server.channels.get(channel)
        if tracker is not None:
            tracker.caught_up(rows, more=more)
            self._mark(server, channel, rows[-1].ts if rows else None)


def _count_missed(
    server: Server, channel: str, tracker: DeliveryTracker, keep: int
) -> Effects[tuple[MissedRows, list[int], bool]]:
    """Count what was missed, up to a bound; return the count, after how many rows some are lost, and if there are more.

    The tracker does not move.
    """
    missed = tracker.missed(server.path, keep)
    lost: list[int] = []
    more = True
    while more and missed.count < COUNTED_ROWS:
        page: Page = yield history_after(channel, missed.end)
        if page.lost:
            lost.append(len(missed.rows))
        missed.add(page.messages)
        more = page.more and bool(page.messages)
    return missed, lost, more

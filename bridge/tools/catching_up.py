"""The tool that reads the messages that were not shown."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from bridge.errors import ToolError
from bridge.session import presentation
from bridge.session.effects import Effects
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from bridge.tools.arguments import Channel, ToServer, given
from conclave.client.marks import at_time, history_after, is_time
from conclave.durations import parse
from conclave.errors import InvalidDuration
from conclave.protocol.requests import Page, Row

PAGE_ROWS = 100
"""The number of messages on a page of `catch_up`."""
PAGE_CHARS = 48_000
"""The length of a page after which the rest is left to the next one; hosts cut longer results."""


class CatchUp(ToServer, frozen=True, kw_only=True):
    channel: Channel
    since: Annotated[
        str | UnsetType,
        Meta(description="How far back: 90, 30s, 10m, 2h, 7d. Default: the messages that were not shown yet."),
    ] = UNSET
    after: Annotated[str | UnsetType, Meta(description="The end of an earlier page, as that page says.")] = UNSET


def catch_up(session: BridgeSession, server: Server, args: CatchUp) -> Effects[str]:
    start = _start(session, server, args)
    page: Page = yield history_after(args.channel, start, PAGE_ROWS)
    lost, more, rows = page.lost, page.more, list(page.messages)
    while more and page.messages and len(rows) < PAGE_ROWS:
        page = yield history_after(args.channel, rows[-1].id, PAGE_ROWS - len(rows))
        if page.lost:  # the next call begins with the loss and shows what follows it
            break
        rows += page.messages
        more = page.more
    shown = _fitting(rows)
    more = more or len(shown) < len(rows)
    if start == session.unread_from(server, args.channel):
        session.caught_up(server, args.channel, shown, more=more)
    default = args.since is UNSET and args.after is UNSET
    again = "" if default or not shown else f" with `after` = `{presentation.name(shown[-1].id)}`"
    return presentation.history(args.channel, Page(tuple(shown), more, lost), again)


def _start(session: BridgeSession, server: Server, args: CatchUp) -> str:
    after, since = given(args.after), given(args.since)
    if after is not None:
        if is_time(after):  # a mark of the bridge; no server has such a position
            raise ToolError("`after` must be what an earlier page said")
        return str(after)
    if since is None:
        return session.unread_from(server, args.channel)
    try:
        return at_time(max(0, server.now_ms() - parse(since) * 1000))
    except InvalidDuration as error:
        raise ToolError(f"invalid `since`: {error}") from error


def _fitting(rows: list[Row]) -> list[Row]:
    """Return the rows that fit on a page, one at least."""
    room = PAGE_CHARS
    for count, row in enumerate(rows):
        room -= len(row.body.text or "") + len(row.from_)
        if room < 0 and count > 0:
            return rows[:count]
    return rows

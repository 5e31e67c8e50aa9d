"""Marks: places in a channel's order. A mark is a position of the server, or a time where no position is known.

A position is the server's own text and is never interpreted.
"""

from conclave.protocol.requests import History


def at_time(ms: int) -> str:
    """Return the mark of a time: Unix milliseconds by the server's clock."""
    return f"@{ms}"


def is_time(mark: str) -> bool:
    return mark.startswith("@")


def time_of(mark: str) -> int:
    """Return the time of a mark that is one."""
    return int(mark[1:])


def history_after(channel: str, mark: str, limit: int | None = None) -> History:
    """Return the request for the messages after a mark, oldest first."""
    if is_time(mark):
        return History(channel, after_ts=time_of(mark), limit=limit)
    return History(channel, after=mark, limit=limit)

"""Points in time as the protocol writes them."""

from datetime import UTC, datetime


def rfc3339(ms: int) -> str:
    """Write milliseconds since 1970 as RFC 3339 in UTC, with milliseconds and `+00:00`."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")

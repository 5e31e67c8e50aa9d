"""The sentences that a server ends a session with. They are the original's, which clients and scripts match on.

A v1 server gives the reason of a close in the text of a last Error frame, and nowhere else: a superseded session, a
revoked key and a slow reader all have the kind `unauthorized`. So in v1 the exact text decides what the client does; in
v2 the close code does (`conclave.protocol.v2.close_codes`).
"""

SUPERSEDED = "session superseded by a newer connection for the same session path"
USER_REMOVED = "user removed from this server"
KEY_REVOKED = "machine key revoked"
IDLE = "idle timeout: no heartbeat"
SLOW = "slow consumer: outbound queue overflowed"
TERMINATED = "session terminated"
# Not one of the original's.
SHUTDOWN = "the relay is shutting down; reconnect"

FINAL = frozenset({SUPERSEDED, USER_REMOVED, KEY_REVOKED})
"""A new connection after one of these is refused, or takes the path from the session that holds it now."""

KILLS = FINAL | {IDLE, SLOW, TERMINATED, SHUTDOWN}
"""Every text that a server ends a live session with; none of them ever answers a request."""

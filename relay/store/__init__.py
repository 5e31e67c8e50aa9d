"""The private server of a data directory, for a machine without a Redis: found, started, supervised and stopped."""

from relay.store.private_server import PrivateServer, Timing

__all__ = ["PrivateServer", "Timing"]

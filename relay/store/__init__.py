"""The node's own server: found, started in a data directory and kept alive. For a single machine without a Redis."""

from relay.store.private_server import PrivateServer, Timing

__all__ = ["PrivateServer", "Timing"]

"""The objects of a node in whichever tree of this project is on the path: today's layout, and that before the rooms.

A benchmark that compares two commits runs in each tree in turn, so it cannot import by one name.
"""

import contextlib
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any


def load(*places: str) -> Any:
    """Return the first of these objects, each `module:name`, that the tree has."""
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"the tree has none of {', '.join(places)}")


def load_module(*names: str) -> ModuleType:
    """Return the first of these modules that the tree has."""
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise ImportError(f"the tree has none of {', '.join(names)}")


def part(owner: Any, *names: str) -> Any:
    """Return the first of these attributes that an object has."""
    for name in names:
        if hasattr(owner, name):
            return getattr(owner, name)
    raise AttributeError(f"{type(owner).__name__} has none of {', '.join(names)}")


def make_node(redis_url: str | None = None, **settings: Any) -> Any:
    """Return a node that is not started, on a free port; without a Redis on a store of its own in this process."""
    load("relay.observability.logs:configure", "relay.logs:configure")()
    admins = load("relay.services.server_admins:ServerAdmins", "relay.admins:Admins")({})
    ephemeral = load("relay.app.config:Ephemeral", "relay.config:Ephemeral")()
    config = load("relay.app.config:NodeConfig", "relay.config:NodeConfig")
    node = load("relay.app.node:Node", "relay.node:Node")
    store = load("relay.redis.connect:in_process")() if redis_url is None else connect_to(redis_url)
    return node(config(host="127.0.0.1", port=0, store=ephemeral, admins=admins, **settings), store)


def connect_to(redis_url: str) -> Any:
    """Return a factory of clients of a Redis."""
    return load("relay.redis.connect:real")(redis_url)


def make_codec() -> Any:
    """Return protocol v1's codec. A node has one, and its sessions share what that encodes."""
    return load("relay.protocol.v1:V1Codec", "relay.dialect.v1:DialectV1")()


def make_session(codec: Any, *, path: Any, connection: str, outbox: Any) -> Any:
    """Return a session that nothing is connected to."""
    session = load("relay.sessions.session:Session", "relay.session:Session")
    common = {
        "path": path,
        "pubkey": "",
        "admin": False,
        "connection": connection,
        "outbox": outbox,
        "interrupt": lambda: None,
        "drained": _never_behind,
    }
    try:
        return session(encoder=codec, **common)
    except TypeError:
        return session(dialect=codec, **common)


async def _never_behind() -> None:
    """Take the place of a wait for a peer that reads."""


def live_handler(node: Any, topic: str) -> Callable[[bytes], None]:
    """Return what a node does with each live message of a topic, beginning at its subscriber connection."""
    name = topic.encode()
    if hasattr(node.parts, "heart"):
        heard = node.parts.heart.heard
        return lambda data: heard(bytes(name).decode(), data)
    dispatch = node.parts.broker._dispatch  # noqa: SLF001
    return lambda data: dispatch(bytes(name), data)


def is_live(node: Any, channel_id: str) -> bool:
    """Tell whether a channel expects its next message live."""
    channel = part(node.parts.fanout, "_channels", "_rooms")[channel_id]
    live: bool = part(channel, "ordering", "feed").is_live
    return live

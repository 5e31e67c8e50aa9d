"""The slots of a Cluster: which of 16384 a key belongs to, and which server has it."""

from typing import Any

import msgspec
from redis.crc import key_slot

from relay.redis.store_url import Address

SLOTS = 16384


class Redirection(msgspec.Struct, frozen=True):
    """The reply of a server that does not have a slot (MOVED), or not all of it while it is moved (ASK)."""

    slot: int
    address: Address
    is_moved: bool
    """True for MOVED: the slot has another server from now on."""


def slot_of(key: str) -> int:
    """Return the slot of a key: of the part in braces, if there is one."""
    return key_slot(key.encode())


def parse_slots(reply: list[Any], asked: Address) -> dict[int, Address]:
    """Return the master of every slot that has one, as the server at `asked` replies to CLUSTER SLOTS."""
    masters: dict[int, Address] = {}
    for first, last, (host, port, *_), *_ in reply:
        address = (_host(bytes(host or b"").decode(), asked), int(port))
        masters.update(dict.fromkeys(range(first, last + 1), address))
    return masters


def parse_redirection(text: str, asked: Address) -> Redirection:
    """Read `MOVED slot host:port` or `ASK slot host:port`, which the server at `asked` replied."""
    code, slot, where = text.split(" ")[:3]
    host, _, port = where.rpartition(":")
    return Redirection(int(slot), (_host(host, asked), int(port)), code == "MOVED")


def _host(text: str, asked: Address) -> str:
    """Return a host. A server that does not know its own address leaves it out: the one that was asked is meant."""
    return asked[0] if text in ("", "?") else text

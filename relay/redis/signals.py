"""Signals between nodes, as they are encoded in inboxes. No I/O.

An entry of an inbox has a field `s`: a signal in MessagePack, with its kind as a tag. Nodes ignore fields that they do
not know, of the entry and of the signal. A kind of signal that older nodes do not know goes only to a node whose name
says that it reads it (`relay.redis.node_names`); what no field can express needs another name than `s`.
"""

from collections import deque
from collections.abc import Sequence

import msgspec


class Supersede(msgspec.Struct, frozen=True, tag="supersede"):
    """A later connection took the path of this connection."""

    connection: str


class Revoke(msgspec.Struct, frozen=True, tag="revoke"):
    """A key was revoked, alone or with its user: its sessions end. `reason` is `revoked` or `user_removed`."""

    pubkey: str
    reason: str


class Whisper(msgspec.Struct, frozen=True, tag="whisper"):
    """A message for one connection. `ts` is in milliseconds of Redis' clock; 0 stands for the time of the inbox entry.

    A `repeatable` whisper may arrive twice: its sender may not have learned that the first attempt succeeded. A whisper
    with a `receipt` is answered: the node `reply_to` gets it back in `Receipts`.
    """

    connection: str
    sender: str
    target: str
    payload: bytes
    id: str = ""
    ts: int = 0
    repeatable: bool = False
    receipt: str = ""
    reply_to: str = ""


class Receipts(msgspec.Struct, frozen=True, tag="receipts"):
    """The receipts of whispers that are in the outboxes of their sessions, and of those whose sessions were gone."""

    taken: list[str]
    gone: list[str]


Signal = Supersede | Revoke | Whisper | Receipts

FIELD = "s"
_FIELD = FIELD.encode()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Signal).decode

_REMEMBERED_ROUNDS = 5


def encoded(signal: Signal) -> bytes:
    """Return a signal as it is stored."""
    return _encode(signal)


def decoded(fields: Sequence[bytes], ms: int) -> Signal | None:
    """Read an entry of an inbox, which was written at this time (ms). None if it cannot be read."""
    data = dict(zip(fields[::2], fields[1::2], strict=False)).get(_FIELD)
    if data is None:
        return None
    try:
        signal = _decode(data)
    except msgspec.MsgspecError:
        return None
    return msgspec.structs.replace(signal, ts=ms) if isinstance(signal, Whisper) and not signal.ts else signal


class HandledSignals:
    """The entries of an inbox that were handled lately: they may come again, from another server.

    A replica that is promoted may lack the removal of signals that were handled, and its ids may be earlier ones.
    """

    def __init__(self) -> None:
        self._rounds: deque[set[tuple[bytes, int]]] = deque([set()], maxlen=_REMEMBERED_ROUNDS)

    def is_new(self, entry_id: bytes, fields: Sequence[bytes]) -> bool:
        """Return whether an entry was not handled; the next call for it returns False in any case."""
        entry = bytes(entry_id), hash(tuple(fields))
        if any(entry in each for each in self._rounds):
            return False
        self._rounds[-1].add(entry)
        return True

    def end_round(self) -> None:
        """Take note that the handled entries are removed from the inbox. After five such rounds they are forgotten."""
        self._rounds.append(set())

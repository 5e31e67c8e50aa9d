"""The decoders of protocol v1: frames, stored payloads, and bincode with every kind of field."""

import enum
from typing import Any

import msgspec

from conclave.errors import FrameError
from conclave.model import Plain, Sealed
from conclave.protocol import v1
from conclave.protocol.v1.bincode import U32, U64, Appended, codec_for
from tests.support.v1_forms import FORMS


def frame(data: bytes) -> None:
    """A frame that survives a round trip, or a FrameError; the type is the same without the rest."""
    try:
        read = v1.decode(data)
    except FrameError:
        return
    assert v1.frame_type(data) is type(read)
    assert v1.decode(v1.encode(read)) == read


def payload(data: bytes) -> None:
    """As a frame."""
    try:
        read = v1.decode_payload(data)
    except FrameError:
        return
    assert v1.decode_payload(v1.encode_payload(read)) == read


class _Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class _Leaf(msgspec.Struct, frozen=True):
    flag: bool
    number: int


class _Empty(msgspec.Struct, frozen=True):
    pass


class _Everything(msgspec.Struct, frozen=True):
    small: U32
    large: U64
    signed: int
    text: str
    raw: bytes
    maybe: _Leaf | None
    nested: tuple[tuple[_Leaf, ...], ...]
    many: tuple[_Leaf | _Empty, ...]
    colour: _Colour
    more: Appended = None


_CODEC = codec_for(_Everything)


def bincode(data: bytes) -> None:
    """A value that survives a round trip, and a position within the bytes; or a FrameError."""
    try:
        value, at = _CODEC.decode(data, 0)
    except FrameError:
        return
    assert 0 <= at <= len(data)
    assert _CODEC.decode(_encoded(value), 0)[0] == value


def _encoded(value: Any) -> bytes:
    out = bytearray()
    _CODEC.encode(value, out)
    return bytes(out)


FRAMES = [v1.encode(each) for form in FORMS for each in (form.frame, form.reply)]
PAYLOADS = [v1.encode_payload(each) for each in (Plain(""), Plain("hi"), Sealed(b"\xff", None), Sealed(b"", "key"))]
VALUES = [
    _encoded(_Everything(1, 2, -3, "a", b"b", None, (), (), _Colour.RED)),
    _encoded(
        _Everything(
            *(2**32 - 1, 2**64 - 1, -(2**63), "ä" * 300, b"", _Leaf(flag=True, number=0)),
            *(
                (((_Leaf(flag=False, number=300),) * 3),) * 2,
                (_Empty(), _Leaf(flag=True, number=-1)),
                _Colour.GREEN,
                "x",
            ),
        )
    ),
]

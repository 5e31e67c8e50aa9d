"""bincode 2 in its standard configuration, as far as v1 needs it: codecs derived from the annotations of structs.

Little-endian, variable-length integers; no type tags, no field names, no padding. A struct is its fields in order; a
union is the number of the type in the order of the union, then that type; a tuple and a string start with their
length. Decoders take bytes and a position and return a value and the position behind it. A declared length that the
bytes do not have is refused before anything is allocated for it. FrameError is the only exception of a decoder.
"""

import enum
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Generic, NamedTuple, NoReturn, TypeVar

import msgspec

from conclave.errors import FrameError

T = TypeVar("T")

# The encoding of an int. Without such a mark it is signed, of 64 bits.
U32 = Annotated[int, "u32"]
U64 = Annotated[int, "u64"]
# A string that a later version appended to a frame: None is left out, and a peer that does not know it ignores it.
Appended = Annotated[str | None, "appended"]


class Encoded(msgspec.Struct, frozen=True):
    """Base of a union's member that is encoded already: `encoded` is written unchanged, the type's number included."""

    encoded: bytes


class Codec(NamedTuple, Generic[T]):
    """The encoder and the decoder of a type. `smallest` is the length of its shortest encoding, in bytes."""

    encode: Callable[[T, bytearray], None]
    decode: Callable[[bytes, int], tuple[T, int]]
    smallest: int


def codec_for(annotation: Any) -> Codec[Any]:
    """Derive the codec of a type from its annotation, and from its fields' annotations if it is a struct."""
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation == Appended:
        return _appended(codec_for(str))
    if origin is tuple:
        return _sequence(codec_for(args[0]))
    if origin in (typing.Union, types.UnionType):
        return _option(codec_for(args[0])) if args[1:] == (types.NoneType,) else _union(args)
    if issubclass(annotation, enum.Enum):
        return _enumeration(annotation)
    return _struct(annotation)


def variant_reader(union: Any) -> Callable[[bytes, int], tuple[Any, int]]:
    """Return a function that reads the type of the union's next member, and not the member."""
    members = _members(typing.get_args(union))

    def read(data: bytes, at: int) -> tuple[Any, int]:
        number, at = _read_u32(data, at)
        if number >= len(members):
            raise FrameError(f"expected a variant below {len(members)}, got {number}")
        return members[number], at

    return read


# --- Integers: 0 to 250 as they are; a marker and 2, 4 or 8 bytes above that; signed ones zigzag ---

_LONGEST_PLAIN = 250
_WIDTHS = {251: 2, 252: 4, 253: 8}


def _ended(what: str) -> NoReturn:
    raise FrameError(f"expected {what}, got the end of the frame") from None


def _write_length(length: int, out: bytearray) -> None:
    if length <= _LONGEST_PLAIN:
        out.append(length)
        return
    for marker, width in _WIDTHS.items():
        if length < 1 << 8 * width:
            out.append(marker)
            out += length.to_bytes(width, "little")
            return


def _unsigned(width: int) -> Codec[int]:
    what = f"an integer of {width * 8} bits"

    def encode(value: int, out: bytearray) -> None:
        if value < 0 or value >> 8 * width:
            raise FrameError(f"expected {what} without a sign, got one out of range")
        _write_length(value, out)

    def decode(data: bytes, at: int) -> tuple[int, int]:
        try:
            first = data[at]
        except IndexError:
            _ended(what)
        if first <= _LONGEST_PLAIN:
            return first, at + 1
        size = _WIDTHS.get(first, 16)
        if size > width:
            raise FrameError(f"expected {what}, got the marker {first:#x}")
        end = at + 1 + size
        if end > len(data):
            _ended(what)
        return int.from_bytes(data[at + 1 : end], "little"), end

    return Codec(encode, decode, 1)


_U32_CODEC, _U64_CODEC = _unsigned(4), _unsigned(8)
_read_u32, _read_u64 = _U32_CODEC.decode, _U64_CODEC.decode


def _encode_i64(value: int, out: bytearray) -> None:
    if not -(1 << 63) <= value < 1 << 63:
        raise FrameError("expected an integer of 64 bits with a sign, got one out of range")
    _write_length((value << 1) ^ (value >> 63), out)


def _decode_i64(data: bytes, at: int) -> tuple[int, int]:
    zigzag, at = _read_u64(data, at)
    return (zigzag >> 1) ^ -(zigzag & 1), at


# --- The other scalars ---


def _encode_bool(value: bool, out: bytearray) -> None:
    out.append(value)


def _read_flag(data: bytes, at: int, what: str) -> bool:
    try:
        flag = data[at]
    except IndexError:
        _ended(what)
    if flag > 1:
        raise FrameError(f"expected {what}, got the byte {flag:#04x}")
    return flag == 1


def _decode_bool(data: bytes, at: int) -> tuple[bool, int]:
    return _read_flag(data, at, "a boolean of 0 or 1"), at + 1


def _encode_bytes(value: bytes, out: bytearray) -> None:
    _write_length(len(value), out)
    out += value


def _decode_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    # The usual short length is read here, not by a call: this function is most of the work on most frames.
    if at < len(data) and (length := data[at]) <= _LONGEST_PLAIN:
        at += 1
    else:
        length, at = _read_u64(data, at)
    end = at + length
    if end > len(data):
        raise FrameError(f"expected {length} bytes, got {len(data) - at}")
    return data[at:end], end


def _encode_str(value: str, out: bytearray) -> None:
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        raise FrameError("expected text that UTF-8 can express, got a lone surrogate") from None
    _write_length(len(encoded), out)
    out += encoded


def _decode_str(data: bytes, at: int) -> tuple[str, int]:
    encoded, end = _decode_bytes(data, at)
    try:
        return encoded.decode(), end
    except UnicodeDecodeError as error:
        raise FrameError(f"expected UTF-8, got something else at byte {error.start} of a string") from None


_SCALARS: dict[Any, Codec[Any]] = {
    U32: _U32_CODEC,
    U64: _U64_CODEC,
    int: Codec(_encode_i64, _decode_i64, 1),
    bool: Codec(_encode_bool, _decode_bool, 1),
    bytes: Codec(_encode_bytes, _decode_bytes, 1),
    str: Codec(_encode_str, _decode_str, 1),
}


# --- Types that are made of others ---


def _option(inner: Codec[T]) -> Codec[T | None]:
    encode_inner, decode_inner, _ = inner

    def encode(value: T | None, out: bytearray) -> None:
        out.append(value is not None)
        if value is not None:
            encode_inner(value, out)

    def decode(data: bytes, at: int) -> tuple[T | None, int]:
        if _read_flag(data, at, "an option of 0 or 1"):
            return decode_inner(data, at + 1)
        return None, at + 1

    return Codec(encode, decode, 1)


def _appended(inner: Codec[T]) -> Codec[T | None]:
    option = _option(inner)

    def encode(value: T | None, out: bytearray) -> None:
        if value is not None:
            option.encode(value, out)

    def decode(data: bytes, at: int) -> tuple[T | None, int]:
        try:
            return option.decode(data, at)
        except FrameError:  # nothing, or another peer's appended field: bytes behind a frame are not an error
            return None, at

    return Codec(encode, decode, 0)


def _sequence(inner: Codec[T]) -> Codec[tuple[T, ...]]:
    encode_inner, decode_inner, smallest = inner

    def encode(values: tuple[T, ...], out: bytearray) -> None:
        _write_length(len(values), out)
        for value in values:
            encode_inner(value, out)

    def decode(data: bytes, at: int) -> tuple[tuple[T, ...], int]:
        count, at = _read_u64(data, at)
        if count * smallest > len(data) - at:
            raise FrameError(f"expected {count} elements of {smallest} bytes or more, got {len(data) - at} bytes")
        values = []
        for _ in range(count):
            value, at = decode_inner(data, at)
            values.append(value)
        return tuple(values), at

    return Codec(encode, decode, 1)


def _struct(type_: Any) -> Codec[Any]:
    hints = typing.get_type_hints(type_, include_extras=True)
    names = type_.__struct_fields__
    codecs = [codec_for(hints[name]) for name in names]
    encoders = [(name, codec.encode) for name, codec in zip(names, codecs, strict=True)]
    decoders = [codec.decode for codec in codecs]

    def encode(value: Any, out: bytearray) -> None:
        for name, encode_field in encoders:
            encode_field(getattr(value, name), out)

    def decode(data: bytes, at: int) -> tuple[Any, int]:
        values: list[Any] = []
        try:
            for decode_field in decoders:
                value, at = decode_field(data, at)
                values.append(value)
        except FrameError as error:
            raise FrameError(f"{type_.__name__}.{names[len(values)]}: {error}") from None
        return type_(*values), at

    return Codec(encode, decode, sum(codec.smallest for codec in codecs))


def _enumeration(type_: type[enum.Enum]) -> Codec[enum.Enum]:
    members = list(type_)
    numbers = {member: number for number, member in enumerate(members)}

    def encode(value: enum.Enum, out: bytearray) -> None:
        _write_length(numbers[value], out)

    def decode(data: bytes, at: int) -> tuple[enum.Enum, int]:
        number, at = _read_u32(data, at)
        if number >= len(members):
            raise FrameError(f"expected a {type_.__name__} below {len(members)}, got {number}")
        return members[number], at

    return Codec(encode, decode, 1)


def _members(types_: tuple[Any, ...]) -> list[Any]:
    return [type_ for type_ in types_ if not issubclass(type_, Encoded)]


def _union(types_: tuple[Any, ...]) -> Codec[Any]:
    members = [(type_, codec_for(type_)) for type_ in _members(types_)]
    encoders = {type_: (number, codec.encode) for number, (type_, codec) in enumerate(members)}
    decoders = [codec.decode for _, codec in members]

    def encode(value: Any, out: bytearray) -> None:
        if isinstance(value, Encoded):
            out += value.encoded
            return
        number, encode_member = encoders[type(value)]
        _write_length(number, out)
        encode_member(value, out)

    def decode(data: bytes, at: int) -> tuple[Any, int]:
        number, at = _read_u32(data, at)
        if number >= len(decoders):
            raise FrameError(f"expected a variant below {len(decoders)}, got {number}")
        return decoders[number](data, at)

    return Codec(encode, decode, 1 + min(codec.smallest for _, codec in members))

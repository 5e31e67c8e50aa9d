"""Frames and payloads to bytes and back."""

from typing import cast

from conclave.model import Payload
from conclave.protocol.v1.bincode import codec_for, variant_reader
from conclave.protocol.v1.frames import Frame, RawPayload

_FRAME = codec_for(Frame)
_PAYLOAD = codec_for(Payload | RawPayload)
_read_type = variant_reader(Frame)


def encode(frame: Frame) -> bytes:
    """Return the frame as one binary message.

    Raises:
        FrameError: if a value does not fit its wire type: an integer out of range, a string with a lone surrogate.
    """
    out = bytearray()
    _FRAME.encode(frame, out)
    return bytes(out)


def decode(data: bytes) -> Frame:
    """Read one binary message. Bytes behind the frame are ignored: a newer peer may append fields.

    Raises:
        FrameError: if the bytes are not a frame, with what was expected where. No other exception.
    """
    return cast("Frame", _FRAME.decode(data, 0)[0])


def frame_type(data: bytes) -> type[Frame]:
    """Return the type of a frame without reading the rest of it.

    So a server does not decode frames that are not requests: a listing of millions of entries takes seconds and much
    memory.

    Raises:
        FrameError: if there is no such frame.
    """
    return cast("type[Frame]", _read_type(data, 0)[0])


def encode_payload(payload: Payload | RawPayload) -> bytes:
    """Return a payload as a channel's log stores it. `RawPayload` puts it into a frame again.

    Raises:
        FrameError: if a string holds a lone surrogate.
    """
    out = bytearray()
    _PAYLOAD.encode(payload, out)
    return bytes(out)


def decode_payload(data: bytes) -> Payload:
    """Read what `encode_payload` wrote.

    Raises:
        FrameError: if the bytes are not a payload.
    """
    return cast("Payload", _PAYLOAD.decode(data, 0)[0])

"""Message bodies as logs hold them and as nodes exchange them: in v1's encoding, whichever version a client speaks.

The encoding of a text, which nearly every body of v2 is, is `_PLAIN` and the text: it does without the generic codec.
"""

from functools import lru_cache

import msgspec

from conclave.errors import FrameError
from conclave.model import Payload, Plain, Sealed
from conclave.protocol import v1
from conclave.protocol.body import Body, body_of, payload_of
from conclave.protocol.v1.bincode import U64, codec_for
from conclave.protocol.v1.frames import RawPayload


class StoredBody(msgspec.Struct, frozen=True):
    """An encoded body, and how many bytes of it count against the limit for messages."""

    payload: bytes
    size: int


_PLAIN = b"\x00"
"""The number of Plain in the union of payloads."""
_LENGTH = codec_for(U64)
_TEXT_AT = {251: 4, 252: 6, 253: 10}
"""The place of a text behind a length of 2, 4 or 8 bytes, by the byte before that; behind a shorter one it is 2."""


def encode_payload(payload: Payload | RawPayload) -> StoredBody:
    return StoredBody(v1.encode_payload(payload), _size(payload))


def encode_body(body: Body) -> StoredBody:
    """Raises: Refusal, if what is sealed is not base64url."""
    if body.text is None:
        return encode_payload(payload_of(body))
    text = body.text.encode()
    return StoredBody(_head(len(text)) + text, len(text))


@lru_cache(maxsize=4096)
def _head(size: int) -> bytes:
    """Return what stands before a text of so many bytes."""
    out = bytearray(_PLAIN)
    _LENGTH.encode(size, out)
    return bytes(out)


def decode_body(payload: bytes) -> Body:
    text = decode_text(payload)
    return body_of(v1.decode_payload(payload)) if text is None else Body(text)


def decode_text(payload: bytes) -> str | None:
    """Return the text of a body; None for a body of another kind. Raises: FrameError."""
    if not payload.startswith(_PLAIN):
        return None
    start = _TEXT_AT.get(payload[1], 2) if len(payload) > 1 else 2
    if payload[:start] != _head(len(payload) - start):
        raise FrameError("a stored text has another length than it says")
    try:
        return payload[start:].decode()
    except UnicodeDecodeError:
        raise FrameError("a stored text is not UTF-8") from None


def _size(payload: Payload | RawPayload) -> int:
    """Return the length of what the sender wrote, in bytes of UTF-8."""
    match payload:
        case Plain(text):
            return len(text.encode())
        case Sealed(ciphertext, key_id):
            return len(ciphertext) + len((key_id or "").encode())
        case _:
            return len(payload.encoded)

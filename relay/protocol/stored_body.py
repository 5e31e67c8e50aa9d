"""Message bodies as logs hold them and as nodes exchange them: in v1's encoding, whichever version a client speaks.

The encoding of a text, which nearly every body of v2 is, is `_PLAIN` and the text: it does without the generic codec.
"""

import msgspec

from conclave.model import Payload, Plain, Sealed
from conclave.protocol import v1
from conclave.protocol.body import Body, body_of, payload_of
from conclave.protocol.v1.bincode import codec_for
from conclave.protocol.v1.frames import RawPayload


class StoredBody(msgspec.Struct, frozen=True):
    """An encoded body, and how many bytes of it count against the limit for messages."""

    payload: bytes
    size: int


_PLAIN = b"\x00"
"""The number of Plain in the union of payloads."""
_TEXT = codec_for(str)


def encode_payload(payload: Payload | RawPayload) -> StoredBody:
    return StoredBody(v1.encode_payload(payload), _size(payload))


def encode_body(body: Body) -> StoredBody:
    """Raises: Refusal, if what is sealed is not base64url."""
    if body.text is None:
        return encode_payload(payload_of(body))
    out = bytearray(_PLAIN)
    _TEXT.encode(body.text, out)
    return StoredBody(bytes(out), len(body.text) if body.text.isascii() else len(body.text.encode()))


def decode_body(payload: bytes) -> Body:
    text = decode_text(payload)
    return body_of(v1.decode_payload(payload)) if text is None else Body(text)


def decode_text(payload: bytes) -> str | None:
    """Return the text of a body; None for a body of another kind."""
    if not payload.startswith(_PLAIN):
        return None
    text: str
    text, _ = _TEXT.decode(payload, 1)
    return text


def _size(payload: Payload | RawPayload) -> int:
    """Return the length of what the sender wrote, in bytes of UTF-8."""
    match payload:
        case Plain(text):
            return len(text.encode())
        case Sealed(ciphertext, key_id):
            return len(ciphertext) + len((key_id or "").encode())
        case _:
            return len(payload.encoded)

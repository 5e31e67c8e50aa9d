"""The body of a message, as v1's frames carry it and as everybody else knows it."""

import base64
import binascii

from conclave.errors import Code, Refusal
from conclave.model import Payload, Plain, Sealed
from conclave.protocol.body import Body, SealedBody
from conclave.protocol.v1.codec import decode_payload
from conclave.protocol.v1.frames import RawPayload


def payload_of(body: Body) -> Payload:
    """Return the payload of a body.

    Raises:
        Refusal: if what is sealed is not base64url without padding.
    """
    if body.sealed is None:
        return Plain(body.text or "")
    return Sealed(_bytes(body.sealed.ciphertext), body.sealed.key_id)


def body_of(payload: Payload | RawPayload) -> Body:
    if isinstance(payload, RawPayload):
        payload = decode_payload(payload.encoded)
    if isinstance(payload, Plain):
        return Body(text=payload.text)
    return Body(sealed=SealedBody(_text(payload.ciphertext), payload.key_id))


def _text(ciphertext: bytes) -> str:
    return base64.urlsafe_b64encode(ciphertext).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        ciphertext = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        ciphertext = b""
    if _text(ciphertext) != text:  # also another alphabet, or bits left over at the end
        raise Refusal(Code.MALFORMED, "what is sealed must be base64url without padding")
    return ciphertext

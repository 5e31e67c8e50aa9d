"""Message bodies as the protocol writes them, and as they are kept."""

from conclave.errors import Code, Refusal
from conclave.model import Payload, Plain, Sealed
from conclave.protocol.body import Body, SealedBody
from conclave.protocol.v2 import base64url


def payload_of(body: Body) -> Payload:
    """Return what is kept of a body.

    Raises:
        Refusal: if the ciphertext is no base64url.
    """
    if body.sealed is None:
        return Plain(body.text or "")
    try:
        ciphertext = base64url.decode(body.sealed.ciphertext)
    except ValueError as error:
        raise Refusal(Code.MALFORMED, f"invalid ciphertext: {error}") from None
    return Sealed(ciphertext, body.sealed.key_id)


def body_of(payload: Payload) -> Body:
    """Return the body that was kept as this."""
    if isinstance(payload, Plain):
        return Body(text=payload.text)
    return Body(sealed=SealedBody(base64url.encode(payload.ciphertext), payload.key_id))

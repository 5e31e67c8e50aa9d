"""The body of a message: a text, or a ciphertext that only its recipients can open."""

import msgspec

from conclave import base64url
from conclave.errors import Code, Refusal
from conclave.model import Payload, Plain, Sealed


class SealedBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Relayed and stored unchanged, never interpreted. `ciphertext` is base64url without padding."""

    ciphertext: str
    key_id: str | None = None


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one of the two; a text may be empty."""

    text: str | None = None
    sealed: SealedBody | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless there is exactly one of the two; decoding turns that into its own error."""
        if (self.text is None) == (self.sealed is None):
            raise ValueError("a body has either `text` or `sealed`")


def payload_of(body: Body) -> Payload:
    """Return the payload that is stored for a body; `body_of` is the inverse.

    Raises:
        Refusal: if the ciphertext is not base64url.
    """
    if body.sealed is None:
        return Plain(body.text or "")
    try:
        ciphertext = base64url.decode(body.sealed.ciphertext)
    except ValueError as error:
        raise Refusal(Code.MALFORMED, f"invalid ciphertext: {error}") from None
    return Sealed(ciphertext, body.sealed.key_id)


def body_of(payload: Payload) -> Body:
    """Return the body that a payload is shown as."""
    if isinstance(payload, Plain):
        return Body(text=payload.text)
    return Body(sealed=SealedBody(base64url.encode(payload.ciphertext), payload.key_id))

"""The body of a message, in v1's terms and back."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from conclave.model import Payload, Plain, Sealed
from conclave.protocol.body import Body, SealedBody, payload_of
from conclave.protocol.v1 import encode_payload
from conclave.protocol.v1.bodies import body_of
from conclave.protocol.v1.frames import RawPayload

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PAYLOADS = st.builds(Plain, TEXT) | st.builds(Sealed, st.binary(), st.none() | TEXT)


@given(PAYLOADS)
def test_a_payload_survives_being_a_body(payload: Payload) -> None:
    """Sealed bodies above all: one changed bit, and they cannot be opened."""
    assert payload_of(body_of(payload)) == payload


@given(PAYLOADS)
def test_a_payload_as_it_is_kept_has_the_same_body(payload: Payload) -> None:
    """A server need not know which of the two it holds."""
    assert body_of(RawPayload(encode_payload(payload))) == body_of(payload)


@given(st.binary(), st.none() | TEXT)
def test_what_is_sealed_is_written_as_base64url_without_padding(ciphertext: bytes, key_id: str | None) -> None:
    """As every other key and token that a user sees."""
    text = base64.urlsafe_b64encode(ciphertext).decode().replace("=", "")
    assert body_of(Sealed(ciphertext, key_id)) == Body(sealed=SealedBody(text, key_id))

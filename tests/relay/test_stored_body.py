"""The encoding of stored bodies: one, whether a body takes the direct way of a text or the generic codec."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.errors import FrameError
from conclave.model import Payload, Plain, Sealed
from conclave.protocol import v1
from conclave.protocol.body import body_of
from relay.protocol.stored_body import StoredBody, decode_body, encode_body, encode_payload

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PAYLOADS = st.builds(Plain, TEXT) | st.builds(Sealed, st.binary(), st.none() | TEXT)


@given(PAYLOADS)
def test_a_body_of_v2_is_stored_as_v1_stores_it(payload: Payload) -> None:
    """Clients of both versions read one log."""
    stored = encode_body(body_of(payload))
    assert stored == encode_payload(payload)
    assert v1.decode_payload(stored.payload) == payload


@given(PAYLOADS)
def test_a_stored_body_reads_back(payload: Payload) -> None:
    """Delivery over v2 shows the body that was posted over v1."""
    assert decode_body(encode_payload(payload).payload) == body_of(payload)


@pytest.mark.parametrize(("text", "size"), [("", 0), ("hi", 2), ("é", 2), ("x" * 300, 300)])
def test_the_size_is_that_of_the_text_in_utf_8(text: str, size: int) -> None:
    """The limit for messages counts what the sender wrote, not its encoding."""
    assert encode_body(body_of(Plain(text))) == StoredBody(v1.encode_payload(Plain(text)), size)


@pytest.mark.parametrize(
    "payload", [b"\x00", b"\x00\x03x", b"\x00\x01xx", b"\x00\xfb\x01", b"\x00\xfb\x01\x00x", b"\x00\x01\xff"]
)
def test_a_damaged_text_is_a_frame_error(payload: bytes) -> None:
    """The direct way reads as strictly as the codec."""
    with pytest.raises(FrameError):
        decode_body(payload)

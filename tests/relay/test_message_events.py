"""Messages as events: the quick ways write the bytes that the generic codecs write."""

from hypothesis import given
from hypothesis import strategies as st

from conclave.model import Payload, Plain, Sealed, SessionPath
from conclave.protocol import events, v1, v2
from conclave.protocol.body import body_of
from conclave.protocol.v1 import frames
from relay.model.message import Message
from relay.protocol.framing import binary_frame, text_frame
from relay.protocol.stored_body import encode_payload
from relay.protocol.v1 import V1Codec
from relay.protocol.v2 import V2Codec

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
BODIES: st.SearchStrategy[Payload] = st.builds(Plain, TEXT) | st.builds(Sealed, st.binary(), st.none() | TEXT)
PATHS = st.builds(SessionPath, *(st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True) for _ in range(3)))
MS = st.integers(0, 10**15)


@given(TEXT, PATHS, BODIES, MS)
def test_a_message_is_encoded_as_the_protocols_say(channel: str, sender: SessionPath, body: Payload, ms: int) -> None:
    """Any name, any text and any ciphertext: the quick ways are ways to the same bytes."""
    message = Message(f"{ms}-7", ms, "", str(sender), encode_payload(body).payload)
    v2_codec = V2Codec(origins=frozenset(), idle_seconds=60, message_bytes=1024)
    event = events.Message(channel, str(sender), body_of(body), message.id, ms)
    assert v2_codec.message(channel, message) == text_frame(v2.encode_event(event))
    assert V1Codec().message(channel, message) == binary_frame(v1.encode(frames.ChannelMsg(channel, sender, body)))

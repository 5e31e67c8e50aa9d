"""Frames of replays: encoded once for sessions that missed the same, and never another channel's."""

from relay.channels import replayed_frames
from relay.channels.replayed_frames import ReplayedFrames
from relay.model.message import Message
from relay.protocol.v1 import V1Codec
from relay.protocol.v2 import V2Codec
from relay.sessions.encoder import EventEncoder

V1, V2 = V1Codec(), V2Codec(origins=set(), idle_seconds=90, message_bytes=1000)


def message(text: str, message_id: str = "5-0") -> Message:
    return Message(message_id, 5, "", "ann/laptop/main", b"\0" + bytes([len(text)]) + text.encode())


def test_a_message_is_encoded_once_for_each_version_and_name() -> None:
    """The second session gets the very bytes of the first."""
    frames = ReplayedFrames()
    said = message("hi")
    first = frames.frame(V2, "ops", said)
    assert frames.frame(V2, "ops", said) is first
    assert first == V2.message("ops", said)
    assert frames.frame(V1, "ops", said) == V1.message("ops", said)
    assert frames.frame(V2, "operations", said) == V2.message("operations", said)


def test_two_messages_with_one_id_have_frames_of_their_own() -> None:
    """Of a channel that takes the name of another one, or of a log that a failover has shortened."""
    frames = ReplayedFrames()
    frames.frame(V2, "ops", message("secret"))
    assert frames.frame(V2, "ops", message("hello")) == V2.message("ops", message("hello"))


def test_what_is_kept_is_bounded() -> None:
    """A node that replays for days keeps a few mebibytes."""
    frames = ReplayedFrames()
    encoders: list[EventEncoder] = [V1, V2]
    for number in range(20_000):
        for encoder in encoders:
            frames.frame(encoder, "ops", message("x" * 200, f"{number}-0"))
    assert sum(map(len, frames._frames.values())) <= replayed_frames._LARGEST_BYTES
    assert len(frames._frames) < 40_000

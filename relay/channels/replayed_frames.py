"""Frames of messages that replays have sent: many sessions that come back have missed the same."""

from relay.model.message import Message
from relay.sessions.encoder import EventEncoder

_LARGEST_BYTES = 4 * 1024 * 1024


class ReplayedFrames:
    """Encodes messages for replays. A message that was encoded a moment ago is not encoded again."""

    def __init__(self) -> None:
        self._frames: dict[tuple[EventEncoder, str, str, str], bytes] = {}
        self._size = 0

    def frame(self, encoder: EventEncoder, channel_id: str, name: str, message: Message) -> bytes:
        """Return what `encoder` makes of a message of a channel, under the name that the channel has now."""
        key = encoder, channel_id, name, message.id
        frame = self._frames.get(key)
        if frame is None:
            frame = encoder.message(name, message)
            if self._size >= _LARGEST_BYTES:
                self._frames.clear()
                self._size = 0
            self._frames[key] = frame
            self._size += len(frame) + message.memory_bytes
        return frame

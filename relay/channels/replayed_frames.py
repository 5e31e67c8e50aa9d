"""Frames of messages that replays have sent: many sessions that come back have missed the same."""

from relay.model.message import Message
from relay.sessions.encoder import EventEncoder

_LARGEST_BYTES = 4 * 1024 * 1024


class ReplayedFrames:
    """Encodes messages for replays. A message that was encoded a moment ago is not encoded again."""

    def __init__(self) -> None:
        self._frames: dict[tuple[EventEncoder, str, Message], bytes] = {}
        self._size = 0

    def frame(self, encoder: EventEncoder, name: str, message: Message) -> bytes:
        """Return what `encoder` makes of a message of the channel that has this name now.

        It depends on the whole message: channels may have messages with one id, and a failover may use an id again.
        """
        key = encoder, name, message
        frame = self._frames.get(key)
        if frame is None:
            frame = encoder.message(name, message)
            if self._size >= _LARGEST_BYTES:
                self._frames.clear()
                self._size = 0
            self._frames[key] = frame
            self._size += len(frame) + message.memory_bytes
        return frame

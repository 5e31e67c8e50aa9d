"""Protocol v1: binary WebSocket messages, one frame each, byte for byte those of the original.

`frames` and `admin` have the messages, `codec` turns them into bytes and back, `errors` maps refusals to Error frames.
`operations` maps requests and results to frames and back, `handshake` conducts the login of both sides.
"""

from conclave.protocol.v1.codec import decode, decode_payload, encode, encode_payload, frame_type

__all__ = ["decode", "decode_payload", "encode", "encode_payload", "frame_type"]

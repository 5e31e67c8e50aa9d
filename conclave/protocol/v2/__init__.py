"""Protocol v2: JSON objects in WebSocket text messages, under the subprotocol `conclave.v2`. See docs/protocol.md."""

from conclave.errors import BadRequest
from conclave.protocol.v2.close_codes import CloseCode
from conclave.protocol.v2.codec import (
    Incoming,
    Reply,
    decode_message,
    decode_request,
    decode_result,
    encode_error,
    encode_event,
    encode_request,
    encode_result,
)

__all__ = [
    "PROTOCOL",
    "SUBPROTOCOL",
    "BadRequest",
    "CloseCode",
    "Incoming",
    "Reply",
    "decode_message",
    "decode_request",
    "decode_result",
    "encode_error",
    "encode_event",
    "encode_request",
    "encode_result",
]

PROTOCOL = 2
"""The version in a Hello. Versions are compatible only if they are equal."""

SUBPROTOCOL = "conclave.v2"
"""The WebSocket subprotocol by which a client asks for this version."""

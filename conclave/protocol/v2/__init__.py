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

SUBPROTOCOL = "conclave.v2"
"""The WebSocket subprotocol by which a client asks for this version."""

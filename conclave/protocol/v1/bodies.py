"""Message bodies of v1's frames, whether a payload is decoded or still in its encoding."""

from conclave.model import Payload
from conclave.protocol import body
from conclave.protocol.body import Body
from conclave.protocol.v1.codec import decode_payload
from conclave.protocol.v1.frames import RawPayload


def body_of(payload: Payload | RawPayload) -> Body:
    return body.body_of(decode_payload(payload.encoded) if isinstance(payload, RawPayload) else payload)

"""Message bodies as they are kept in logs and sent between nodes: in v1's encoding, whoever wrote or reads them."""

from conclave.model import Payload, Plain, Sealed
from conclave.protocol import v1
from conclave.protocol.body import Body, body_of, payload_of
from conclave.protocol.v1.frames import RawPayload


def keep(payload: Payload | RawPayload) -> tuple[bytes, int]:
    """Return what is kept of a payload, and how much of it counts against the limit for messages, in bytes."""
    return v1.encode_payload(payload), body_size(payload)


def keep_body(body: Body) -> tuple[bytes, int]:
    """Do the same for a body. Raises: Refusal."""
    return keep(payload_of(body))


def kept_body(payload: bytes) -> Body:
    """Return the body that was kept as this."""
    return body_of(v1.decode_payload(payload))


def body_size(payload: Payload | RawPayload) -> int:
    """Return what the sender wrote, in bytes."""
    match payload:
        case Plain(text):
            return len(text.encode())
        case Sealed(ciphertext, key_id):
            return len(ciphertext) + len((key_id or "").encode())
        case _:
            return len(payload.encoded)

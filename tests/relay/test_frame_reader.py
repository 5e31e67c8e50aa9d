"""The reader of a client's WebSocket frames: bytes in, messages and control frames out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as ClientFrame
from websockets.frames import Opcode as Op

from relay.transport.frame_reader import Frame, FrameReader, Opcode, Violation, check_close
from tests.fuzz.websocket_targets import LIMIT, frame, read

PIECES = st.lists(st.integers(1, 40), max_size=60)
DATA = st.binary(max_size=300)


def serialized(opcode: Op, data: bytes, *, final: bool = True) -> bytes:
    """Return a frame as the clients' library writes it, with a random mask."""
    return ClientFrame(opcode, data, fin=final).serialize(mask=True)


@given(messages=st.lists(st.tuples(st.booleans(), st.lists(DATA, min_size=1, max_size=4)), max_size=6), pieces=PIECES)
def test_messages_come_out_as_they_were_sent_however_they_arrive(
    messages: list[tuple[bool, list[bytes]]], pieces: list[int]
) -> None:
    """In one frame or in many, with a ping between the parts."""
    sent, expected = b"", list[Frame]()
    for is_text, parts in messages:
        for number, part in enumerate(parts):
            opcode = Op.CONT if number else Op.TEXT if is_text else Op.BINARY
            sent += serialized(opcode, part, final=number == len(parts) - 1) + serialized(Op.PING, part[:125])
            if number == len(parts) - 1:
                expected.append(Frame(Opcode.TEXT if is_text else Opcode.BINARY, b"".join(parts)))
            expected.append(Frame(Opcode.PING, part[:125]))
    out, violation = read(sent, pieces)
    assert [each for each in out if each.opcode is not Opcode.CONTINUATION] == expected
    assert violation is None


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 200_000])
def test_every_form_of_the_length_is_read(size: int) -> None:
    """Lengths of 7, 16 and 64 bits."""
    reader = FrameReader(limit=size)
    reader.feed(serialized(Op.BINARY, b"x" * size))
    assert reader.next() == Frame(Opcode.BINARY, b"x" * size)
    assert reader.buffered == 0


VIOLATIONS = {
    "without a mask": (b"\x81\x05hello", Violation.PROTOCOL_ERROR),
    "reserved bits": (frame(0x41, b"x"), Violation.PROTOCOL_ERROR),
    "an unknown opcode": (frame(3, b"x"), Violation.PROTOCOL_ERROR),
    "a part of nothing": (frame(0, b"x"), Violation.PROTOCOL_ERROR),
    "a message within a message": (frame(1, b"x", final=False) + frame(1, b"x"), Violation.PROTOCOL_ERROR),
    "a ping in parts": (frame(9, b"x", final=False), Violation.PROTOCOL_ERROR),
    "a long ping": (frame(9, b"x" * 126), Violation.PROTOCOL_ERROR),
    "a long message": (frame(2, b"x" * (LIMIT + 1)), Violation.TOO_BIG),
    "a long message in parts": (frame(2, b"x" * LIMIT, final=False) + frame(0, b"x"), Violation.TOO_BIG),
    "a length of 2**63": (b"\x82\xff\x80" + bytes(7) + bytes(4), Violation.TOO_BIG),
}


@pytest.mark.parametrize("what", VIOLATIONS)
def test_a_violation_ends_the_connection_with_its_code(what: str) -> None:
    """RFC 6455, section 7.4.1."""
    data, code = VIOLATIONS[what]
    assert read(data, []) == read(data, [1] * len(data))
    assert read(data, [])[1] == code


def test_a_message_that_is_too_long_is_refused_by_its_header() -> None:
    """Nothing of it is kept."""
    reader = FrameReader(limit=100)
    reader.feed(frame(2, b"x" * 101)[:8])
    with pytest.raises(Violation, match="100 bytes"):
        reader.next()


def test_the_memory_of_a_long_message_is_released() -> None:
    """A session is idle most of its time."""
    reader = FrameReader(limit=100_000)
    data = frame(2, b"x" * 90_000)
    for at in range(0, len(data), 10_000):
        assert reader.next() is None
        reader.feed(data[at : at + 10_000])
    assert reader.next() is not None
    assert reader._buffer == b""


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", None),
        (b"\x03\xe8", None),
        (b"\x0f\xa0private", None),
        (b"\x03", Violation.PROTOCOL_ERROR),
        (b"\x03\xed", Violation.PROTOCOL_ERROR),
        (b"\x00\x01", Violation.PROTOCOL_ERROR),
        (b"\x03\xe8\xff", Violation.INVALID_TEXT),
    ],
)
def test_a_close_has_a_code_that_may_be_sent_and_a_reason_in_utf8(payload: bytes, code: int | None) -> None:
    """RFC 6455, section 7.4: 1005, 1006 and 1015 are never sent."""
    if code is None:
        check_close(payload)
    else:
        with pytest.raises(Violation) as caught:
            check_close(payload)
        assert caught.value.code == code

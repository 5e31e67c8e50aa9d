"""The bytes of protocol v1: the original's own, the rules that they follow, and what hostile bytes may do."""

import tracemalloc
import typing
from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.errors import Code, FrameError, Refusal, VersionRefusal
from conclave.model import (
    AuditEntry,
    ChannelInfo,
    InviteInfo,
    MachineInfo,
    Payload,
    Plain,
    Sealed,
    SessionPath,
    Visibility,
)
from conclave.protocol import v1
from conclave.protocol.v1 import admin, frames
from conclave.protocol.v1.bincode import U32, U64, Appended
from conclave.protocol.v1.errors import display, error_frame, refusal

ABC = SessionPath("a", "b", "c")
DEF = SessionPath("d", "e", "f")
POST_2025 = 1_751_500_000_123


def _op(op: admin.AdminOp) -> frames.Admin:
    return frames.Admin(op)


# Recorded from the original's own encoder.
VECTORS: list[tuple[frames.Frame, str]] = [
    (frames.Hello(1, "razel"), "00 01 05 72 61 7a 65 6c"),
    (frames.Hello(65_536, ""), "00 fc 00 00 01 00 00"),
    (frames.Challenge(bytes.fromhex("deadbeef")), "01 04 de ad be ef"),
    (frames.Auth(b"\x01\x02", b"\x03\x04\x05"), "02 02 01 02 03 03 04 05"),
    (frames.Established(ABC), "03 01 61 01 62 01 63"),
    (frames.Register("a", "b", b"\x09"), "04 01 61 01 62 01 09"),
    (frames.Join("ops"), "05 03 6f 70 73 00"),
    (frames.Join("ops", "t"), "05 03 6f 70 73 01 01 74"),
    (frames.Leave("ops"), "06 03 6f 70 73"),
    (frames.Who(), "07 00"),
    (frames.Who("ops"), "07 01 03 6f 70 73"),
    (_op(admin.CreateChannel("ops", Visibility.PRIVATE)), "08 00 03 6f 70 73 02"),
    (_op(admin.DeleteChannel("o")), "08 01 01 6f"),
    (_op(admin.RenameChannel("o", "p")), "08 02 01 6f 01 70"),
    (_op(admin.SetVisibility("o", Visibility.UNLISTED)), "08 03 01 6f 01"),
    (_op(admin.AclAdd("o", "u")), "08 04 01 6f 01 75"),
    (_op(admin.AclRemove("o", "u")), "08 05 01 6f 01 75"),
    (_op(admin.InviteCreate("o", 1, 3600)), "08 06 01 6f 01 01 01 fb 10 0e"),
    (_op(admin.InviteCreate("o")), "08 06 01 6f 00 00"),
    (_op(admin.InviteRevoke("t")), "08 07 01 74"),
    (_op(admin.Kick("o", "u")), "08 08 01 6f 01 75"),
    (_op(admin.Ban("o", "u")), "08 09 01 6f 01 75"),
    (_op(admin.UserRemove("u")), "08 0a 01 75"),
    (_op(admin.MachineRemove("m")), "08 0b 01 6d"),
    (_op(admin.MachineAdd("m", b"\x01\x02")), "08 0c 01 6d 02 01 02"),
    (_op(admin.AclList("o")), "08 0d 01 6f"),
    (_op(admin.Unban("o", "u")), "08 0e 01 6f 01 75"),
    (_op(admin.BanList("o")), "08 0f 01 6f"),
    (_op(admin.InviteListOp("o")), "08 10 01 6f"),
    (frames.ChannelMsg("ops", ABC, Plain("hi")), "09 03 6f 70 73 01 61 01 62 01 63 00 02 68 69"),
    (
        frames.Whisper(ABC, DEF, Sealed(b"\x01\x02", "k")),
        "0a 01 61 01 62 01 63 01 64 01 65 01 66 01 02 01 02 01 01 6b",
    ),
    (frames.Whisper(ABC, DEF, Sealed(b"\x01\x02")), "0a 01 61 01 62 01 63 01 64 01 65 01 66 01 02 01 02 00"),
    (frames.Presence("ops", (ABC,)), "0b 01 03 6f 70 73 01 01 61 01 62 01 63"),
    (frames.Presence(None, ()), "0b 00 00"),
    (frames.Error(frames.VersionMismatch(1, 2)), "0c 00 01 02"),
    (frames.Error(frames.MalformedFrame("x")), "0c 01 01 78"),
    (frames.Error(frames.Unauthorized("x")), "0c 02 01 78"),
    (frames.Error(frames.NotFound("x")), "0c 03 01 78"),
    (frames.Error(frames.Internal("x")), "0c 04 01 78"),
    (frames.ListChannels(), "0d"),
    (frames.ChannelList((ChannelInfo("ops", Visibility.PRIVATE, member=True),)), "0e 01 03 6f 70 73 02 01"),
    (frames.Joined("ops"), "0f 03 6f 70 73"),
    (frames.Ack(), "10 00"),
    (frames.Ack("ops"), "10 01 03 6f 70 73"),
    (frames.InviteToken("t"), "11 01 74"),
    (frames.Ping(), "12"),
    (frames.Pong(), "13"),
    (frames.ServerInfo(admin=True), "14 01"),
    (frames.ListMachines(), "15"),
    (frames.MachineList((MachineInfo("m", "P", "T"),)), "16 01 01 6d 01 50 01 54"),
    (frames.ListUsers(), "17"),
    (frames.UserList(("a", "b")), "18 02 01 61 01 62"),
    (frames.InviteList((InviteInfo("t", 3, None),)), "19 01 01 74 01 06 00"),
    (frames.ReadSince("ops", 0), "1a 03 6f 70 73 00"),
    (frames.ReadSince("ops", -1), "1a 03 6f 70 73 01"),
    (frames.ReadSince("ops", 125), "1a 03 6f 70 73 fa"),
    (frames.ReadSince("ops", 126), "1a 03 6f 70 73 fb fc 00"),
    (frames.ReadSince("ops", 1_751_500_000_000), "1a 03 6f 70 73 fd 00 16 12 9b 2f 03 00 00"),
    (frames.ReadSince("ops", -(2**63)), "1a 03 6f 70 73 fd ff ff ff ff ff ff ff ff"),
    (
        frames.History("ops", (frames.HistoryMessage(ABC, POST_2025, Plain("hi")),)),
        "1b 03 6f 70 73 01 01 61 01 62 01 63 fd f6 16 12 9b 2f 03 00 00 00 02 68 69",
    ),
]

# The operations that this relay has appended: an original server does not know them, and never gets them unasked.
APPENDED: list[tuple[frames.Frame, str]] = [
    (frames.Register("a", "b", b"\x09", "t"), "04 01 61 01 62 01 09 01 01 74"),
    (_op(admin.AclPromote("o", "u")), "08 11 01 6f 01 75"),
    (_op(admin.AclDemote("o", "u")), "08 12 01 6f 01 75"),
    (_op(admin.ServerInviteCreate(1, 3600)), "08 13 01 01 01 fb 10 0e"),
    (_op(admin.Audit(5)), "08 14 05"),
    (frames.AuditList((AuditEntry("t", "a", "o", "x", "ok"),)), "1c 01 01 74 01 61 01 6f 01 78 02 6f 6b"),
]


@pytest.mark.parametrize(("frame", "encoded"), VECTORS + APPENDED, ids=[hexes for _, hexes in VECTORS + APPENDED])
def test_the_originals_bytes_both_ways(frame: frames.Frame, encoded: str) -> None:
    """The original's encoding is read, and written byte for byte."""
    assert v1.encode(frame) == bytes.fromhex(encoded)
    assert v1.decode(bytes.fromhex(encoded)) == frame
    assert v1.frame_type(bytes.fromhex(encoded)) is type(frame)


def test_every_frame_and_operation_has_a_vector() -> None:
    """The table above leaves no type out, so an index that moves is always noticed."""
    known = [frame for frame, _ in VECTORS + APPENDED]
    assert {type(frame) for frame in known} == set(typing.get_args(frames.Frame))
    operations = [type(frame.op) for frame in known if isinstance(frame, frames.Admin)]
    assert set(operations) == set(typing.get_args(admin.AdminOp))
    assert {type(frame) for frame, _ in VECTORS} == set(typing.get_args(frames.Frame)[:28])
    assert {type(frame.op) for frame, _ in VECTORS if isinstance(frame, frames.Admin)} == set(
        typing.get_args(admin.AdminOp)[:17]
    )


def test_an_appended_field_may_be_missing_or_strange() -> None:
    """Bytes behind a frame are no error: an older client sends none, and a later one may append others."""
    for behind in ("", "00", "07 ff", "01 ff"):
        frame = v1.decode(bytes.fromhex("04 01 61 01 62 01 09" + behind))
        assert frame == frames.Register("a", "b", b"\x09")


@pytest.mark.parametrize(
    ("length", "start"),
    [(250, "fa"), (251, "fb fb 00"), (65_535, "fb ff ff"), (65_536, "fc 00 00 01 00")],
)
def test_lengths_take_the_shortest_form(length: int, start: str) -> None:
    """Lengths grow at the original's thresholds: one byte up to 250, then three, then five."""
    encoded = v1.encode(frames.Leave("x" * length))
    assert encoded == b"\x06" + bytes.fromhex(start) + b"x" * length
    assert v1.decode(encoded) == frames.Leave("x" * length)


def test_a_string_is_measured_in_bytes() -> None:
    """A string's length counts its UTF-8, not its characters."""
    assert v1.encode(frames.Leave("é€")) == bytes.fromhex("06 05 c3 a9 e2 82 ac")


@pytest.mark.parametrize(
    ("encoded", "frame"),
    [
        ("fb 13 00", frames.Pong()),
        ("fc 13 00 00 00", frames.Pong()),
        ("06 fb 01 00 6f", frames.Leave("o")),
        ("06 fd 01 00 00 00 00 00 00 00 6f", frames.Leave("o")),
        ("1a 01 6f fc 01 00 00 00", frames.ReadSince("o", -1)),
        ("08 00 01 6f fb 02 00", _op(admin.CreateChannel("o", Visibility.PRIVATE))),
    ],
)
def test_longer_forms_of_a_number_are_read(encoded: str, frame: frames.Frame) -> None:
    """The original accepts a number in more bytes than it needs, so we do."""
    assert v1.decode(bytes.fromhex(encoded)) == frame


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        ("", "expected an integer of 32 bits, got the end of the frame"),
        ("fd 13 00 00 00 00 00 00 00", "expected an integer of 32 bits, got the marker 0xfd"),
        ("fe", "expected an integer of 32 bits, got the marker 0xfe"),
        ("ff", "expected an integer of 32 bits, got the marker 0xff"),
        ("fb 13", "expected an integer of 32 bits, got the end of the frame"),
        ("1d", "expected a variant below 29, got 29"),
        ("08 15", "Admin.op: expected a variant below 21, got 21"),
        ("0c 05", "Error.error: expected a variant below 5, got 5"),
        ("09 00 00 00 00 02", "ChannelMsg.payload: expected a variant below 2, got 2"),
        (
            "00 fd 01 00 00 00 00 00 00 00 00",
            "Hello.protocol_version: expected an integer of 32 bits, got the marker 0xfd",
        ),
        ("06", "Leave.channel: expected an integer of 64 bits, got the end of the frame"),
        ("06 fe", "Leave.channel: expected an integer of 64 bits, got the marker 0xfe"),
        ("06 ff", "Leave.channel: expected an integer of 64 bits, got the marker 0xff"),
        ("06 03 6f", "Leave.channel: expected 3 bytes, got 1"),
        ("06 02 6f ff", "Leave.channel: expected UTF-8, got something else at byte 1 of a string"),
        ("06 03 ed a0 80", "Leave.channel: expected UTF-8, got something else at byte 0 of a string"),
        ("07 02 00", "Who.channel: expected an option of 0 or 1, got the byte 0x02"),
        ("07", "Who.channel: expected an option of 0 or 1, got the end of the frame"),
        ("14 02", "ServerInfo.admin: expected a boolean of 0 or 1, got the byte 0x02"),
        ("14", "ServerInfo.admin: expected a boolean of 0 or 1, got the end of the frame"),
        ("08 00 01 6f 03", "Admin.op: CreateChannel.visibility: expected a Visibility below 3, got 3"),
        ("0b 00 03 00 00 00 00 00 00 00", "Presence.sessions: expected 3 elements of 3 bytes or more, got 7 bytes"),
    ],
)
def test_what_is_refused_and_how(encoded: str, text: str) -> None:
    """Bytes that the original refuses are refused, and the text has the place and the expectation."""
    with pytest.raises(FrameError) as caught:
        v1.decode(bytes.fromhex(encoded))
    assert str(caught.value) == text


@pytest.mark.parametrize("more", [b"\x00", b"\xff\xff", b"x" * 1000])
def test_bytes_behind_a_frame_are_ignored(more: bytes) -> None:
    """A newer peer may append fields to a frame; the original ignores them."""
    for frame, encoded in VECTORS:
        assert v1.decode(bytes.fromhex(encoded) + more) == frame


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x00\x01\xfd" + (1 << 46).to_bytes(8, "little"),
        b"\x00\x01\xfd" + (1 << 63).to_bytes(8, "little"),
        b"\x01\xfd" + b"\xff" * 8,
        b"\x18\xfd" + (1 << 46).to_bytes(8, "little"),
        b"\x0b\x00\xfc" + b"\xff" * 4,
        b"\x1b\x00\xfc" + b"\xff" * 4,
    ],
    ids=["string", "string over 2**63", "bytes", "strings", "paths", "history"],
)
def test_a_declared_length_allocates_nothing(hostile: bytes) -> None:
    """Eleven bytes that announce terabytes killed the original before any login; here they are a plain refusal."""
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            v1.decode(hostile)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(
    "frame",
    [
        frames.Hello(1 << 32, "s"),
        frames.Hello(-1, "s"),
        frames.Hello(10**5000, "s"),
        frames.ReadSince("o", 1 << 63),
        frames.ReadSince("o", -(1 << 63) - 1),
        _op(admin.InviteCreate("o", 1 << 32)),
        _op(admin.InviteCreate("o", None, 1 << 64)),
        frames.Leave("\ud800"),
        frames.ChannelMsg("o", ABC, Plain("a\udfff")),
    ],
)
def test_values_that_do_not_fit_are_refused(frame: frames.Frame) -> None:
    """An encoder never truncates: what the wire cannot carry is a FrameError."""
    with pytest.raises(FrameError):
        v1.encode(frame)


@pytest.mark.parametrize("payload", [Plain(""), Plain("hi"), Sealed(b"\x01\x02", "k"), Sealed(b"")])
def test_a_stored_payload_is_spliced_in(payload: Payload) -> None:
    """A payload as it was stored goes into a frame unread, and the frame is the same as with the payload itself."""
    raw = frames.RawPayload(v1.encode_payload(payload))
    assert v1.decode_payload(raw.encoded) == payload
    assert v1.encode_payload(raw) == raw.encoded
    for make in (
        lambda body: frames.ChannelMsg("ops", ABC, body),
        lambda body: frames.Whisper(ABC, DEF, body),
        lambda body: frames.History("ops", (frames.HistoryMessage(ABC, 1, body), frames.HistoryMessage(DEF, 2, body))),
    ):
        spliced = v1.encode(make(raw))
        assert spliced == v1.encode(make(payload))
        assert v1.decode(spliced) == make(payload)


def test_a_raw_payload_is_not_looked_into() -> None:
    """Splicing does not decode: even bytes that are no payload pass through."""
    encoded = v1.encode(frames.ChannelMsg("o", ABC, frames.RawPayload(b"\xff\xfe")))
    assert encoded.endswith(b"\xff\xfe")


def test_a_bad_payload_is_a_frame_error() -> None:
    """A payload is read as strictly as a frame."""
    with pytest.raises(FrameError, match=r"^expected a variant below 2, got 2$"):
        v1.decode_payload(b"\x02")
    with pytest.raises(FrameError, match=r"^Plain.text: expected 3 bytes, got 1$"):
        v1.decode_payload(b"\x00\x03x")


def test_the_type_of_a_frame_is_read_without_its_body() -> None:
    """The number is enough to tell a frame's type, even if the rest is broken; unknown numbers are refused."""
    assert v1.frame_type(b"\x0b\xff\xff") is frames.Presence
    for unknown in (b"", b"\x1d", b"\xff"):
        with pytest.raises(FrameError):
            v1.frame_type(unknown)


def test_kinds_for_telemetry() -> None:
    """Logs and metrics name frames in snake_case; an Admin frame goes by its operation."""
    assert frames.kind(frames.ChannelMsg("o", ABC, Plain(""))) == "channel_msg"
    assert frames.kind(frames.ListChannels()) == "list_channels"
    assert frames.kind(_op(admin.CreateChannel("o", Visibility.PUBLIC))) == "create_channel"
    assert frames.kind(_op(admin.InviteListOp("o"))) == "invite_list"
    assert all(frames.kind(frame).isidentifier() for frame, _ in VECTORS)


# --- Errors ---

DISPLAYED: list[tuple[frames.ProtocolError, Code, str]] = [
    (frames.VersionMismatch(1, 2), Code.VERSION, "incompatible protocol version: ours=1, theirs=2"),
    (frames.MalformedFrame("m"), Code.MALFORMED, "malformed frame: m"),
    (frames.Unauthorized("m"), Code.UNAUTHORIZED, "unauthorized: m"),
    (frames.NotFound("m"), Code.NOT_FOUND, "not found: m"),
    (frames.Internal("m"), Code.INTERNAL, "internal error: m"),
]


@pytest.mark.parametrize(("error", "code", "text"), DISPLAYED)
def test_errors_are_shown_and_mapped(error: frames.ProtocolError, code: Code, text: str) -> None:
    """Users see the original's texts; a refusal that was read from the wire is written unchanged."""
    assert display(error) == text
    assert refusal(error).code is code
    assert error_frame(refusal(error)) == frames.Error(error)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.MALFORMED, frames.MalformedFrame),
        (Code.TOO_LARGE, frames.MalformedFrame),
        (Code.VERSION, frames.MalformedFrame),
        (Code.UNAUTHORIZED, frames.Unauthorized),
        (Code.CONFLICT, frames.Unauthorized),
        (Code.RATE_LIMITED, frames.Unauthorized),
        (Code.NOT_FOUND, frames.NotFound),
        (Code.UNAVAILABLE, frames.Internal),
        (Code.INTERNAL, frames.Internal),
    ],
)
def test_every_refusal_has_a_v1_kind(code: Code, kind: Callable[[str], frames.ProtocolError]) -> None:
    """v1 knows five kinds of error; each code has its nearest, and the text is not touched."""
    assert error_frame(Refusal(code, "why")) == frames.Error(kind("why"))


def test_a_version_refusal_carries_both_versions() -> None:
    """The numbers travel as numbers, not in a sentence."""
    assert error_frame(VersionRefusal(1, 7)) == frames.Error(frames.VersionMismatch(1, 7))


# --- Properties ---

_SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    U32: st.integers(0, 2**32 - 1),
    U64: st.integers(0, 2**64 - 1),
    int: st.integers(-(2**63), 2**63 - 1),
    bool: st.booleans(),
    bytes: st.binary(max_size=300),
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    type(None): st.none(),
}
_SCALARS[Appended] = st.none() | _SCALARS[str]


def _values(annotation: Any) -> st.SearchStrategy[Any]:
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if typing.get_origin(annotation) is tuple:
        return st.lists(_values(typing.get_args(annotation)[0]), max_size=4).map(tuple)
    if members := typing.get_args(annotation):
        return st.one_of([_values(member) for member in members if member is not frames.RawPayload])
    if issubclass(annotation, Enum):
        return st.sampled_from(list(annotation))
    assert issubclass(annotation, msgspec.Struct)
    hints = typing.get_type_hints(annotation, include_extras=True)
    return st.builds(annotation, **{name: _values(hints[name]) for name in annotation.__struct_fields__})


FRAMES = _values(frames.Frame)


def _decoded(data: bytes) -> frames.Frame | FrameError:
    try:
        return v1.decode(data)
    except FrameError as error:
        return error


@given(FRAMES, st.binary(max_size=8))
def test_any_frame_survives_the_wire(frame: frames.Frame, more: bytes) -> None:
    """Any frame is decoded to the same frame, with or without bytes behind it."""
    encoded = v1.encode(frame)
    assert v1.decode(encoded) == frame
    assert v1.decode(encoded + more) == frame


@given(_values(Payload))
def test_any_payload_survives_storage(payload: Payload) -> None:
    """Any payload is the same after storage."""
    assert v1.decode_payload(v1.encode_payload(payload)) == payload


@given(st.binary(max_size=200) | st.builds(lambda first, rest: bytes([first]) + rest, st.integers(0, 28), st.binary()))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    """No bytes raise anything but FrameError; a decoded frame can be encoded."""
    result = _decoded(data)
    if isinstance(result, FrameError):
        assert "expected" in str(result)
    else:
        assert v1.decode(v1.encode(result)) == result


@given(st.data())
def test_a_cut_frame_is_refused(data: st.DataObject) -> None:
    """No proper beginning of a frame is taken for the whole: each is refused, but for a field that was appended."""
    frame = data.draw(
        FRAMES.filter(lambda frame: not (isinstance(frame, frames.Register) and frame.invite is not None))
    )
    encoded = v1.encode(frame)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(FrameError):
        v1.decode(encoded[:cut])


@given(st.data())
def test_a_damaged_frame_is_refused_or_another(data: st.DataObject) -> None:
    """One wrong byte gives another frame or a FrameError, never a crash."""
    encoded = bytearray(v1.encode(data.draw(FRAMES)))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    result = _decoded(bytes(encoded))
    if isinstance(result, FrameError):
        assert "expected" in str(result)
    else:
        assert v1.decode(v1.encode(result)) == result

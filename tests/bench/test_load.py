"""The parts of the load that are pure: frames, marks, and the page."""

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from bench.load.frames import MARK, Reader, body, masked
from bench.load.report import Section, markdown


@pytest.mark.parametrize("size", [0, 5, 125, 126, 200, 65_535, 65_536])
def test_a_masked_frame_is_what_a_server_expects(size: int) -> None:
    """A server would close on a frame without a mask, or with a length in the wrong form."""
    stream = StreamReader()
    stream.feed_data(masked(b"x" * size, text=True))
    parsing = Frame.parse(stream.read_exact, mask=True)
    with pytest.raises(StopIteration) as done:
        next(parsing)
    assert done.value.value == Frame(Opcode.TEXT, b"x" * size)


@pytest.mark.parametrize("cut", [1, 3, 50, 1_000])
def test_a_reader_takes_the_bytes_apart_wherever_they_are_cut(cut: int) -> None:
    """Bytes arrive in pieces of any size."""
    data = b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + b"\x81\x02ok" + b"\x89\x00" + b"\x82\x7e\x00\xc8" + b"y" * 200
    reader = Reader()
    found = [message for at in range(0, len(data), cut) for message in reader.feed(data[at : at + cut])]
    assert found[1:] == [b"ok", b"y" * 200]


def test_a_reader_tells_of_a_refused_upgrade() -> None:
    """A node that is not ready answers with 503, and nothing else would come."""
    with pytest.raises(ConnectionError, match="503"):
        list(Reader().feed(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"))


def test_a_body_has_its_size_and_one_mark() -> None:
    """Deliveries are counted by it."""
    assert len(body(200)) == 200
    assert body(200).encode().count(MARK) == 1


def test_the_page_has_medians_and_the_ratio_of_what_is_compared() -> None:
    """The ratio is the result; a single round that the machine has disturbed must not be."""
    section = Section("post", "A post")
    for ours, theirs in ((1.0, 2.0), (90.0, 4.0), (3.0, 60.0)):
        section.add("this v2", {"CPU, us": ours})
        section.add("Centrifugo", {"CPU, us": theirs})
    assert "| CPU, us | 3 | 4 | 0.75 |" in markdown([section])

"""Text from peers: any text stays one harmless line, or a body that is visibly one message."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.text import INDENT, INVISIBLE, visible, visible_body


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ann/laptop/cli-1", "ann/laptop/cli-1"),
        ("Zoë 日本 🙂 C:\\new", "Zoë 日本 🙂 C:\\new"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("ev\u202eil", r"ev\u202eil"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("line\u2028sep\u0085", r"line\u2028sep\x85"),
        ("no\u00a0break", r"no\xa0break"),
        ("sel\ufe0f", r"sel\ufe0f"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("half\ud800", r"half\ud800"),
        ("\u3164", r"\u3164"),
    ],
)
def test_a_name_shows_what_cannot_be_seen(text: str, shown: str) -> None:
    """Escape sequences, direction marks and invisible letters are how one name passes for another."""
    assert visible(text) == shown


@given(st.text())
def test_a_name_is_always_one_visible_line(text: str) -> None:
    """For any name of a peer."""
    shown = visible(text)
    assert shown.isprintable()
    assert not set(shown) & INVISIBLE
    assert visible(shown) == shown


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("plain", "plain"),
        ("", ""),
        ("one\ntwo\r\nthree", f"one\n{INDENT}two\n{INDENT}three"),
        ("col\tumn", "col\tumn"),
        ("👩\u200d💻 ❤\ufe0f", "👩\u200d💻 ❤\ufe0f"),
        ("bon\u00a0jour", "bon\u00a0jour"),
        ("over\rwrite", r"over\rwrite"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\u2028b\u2029c\x0bd\x0ce\x85f", r"a\u2028b\u2029c\x0bd\x0ce\x85f"),
        ("\u2066rtl\u2069", r"\u2066rtl\u2069"),
        ("\u3164\U000e0100", r"\u3164\U000e0100"),
    ],
)
def test_a_body_keeps_usual_text(body: str, shown: str) -> None:
    """Line breaks, tabs and joined emoji are normal; cursor movements and reordering are not."""
    assert visible_body(body) == shown


@given(st.text())
def test_a_body_cannot_forge_another_message(body: str) -> None:
    """Every line that it adds is indented, and no character in it starts a line by other means."""
    first, *others = visible_body(body).split("\n")
    assert all(line.startswith(INDENT) for line in others)
    for char in first + "".join(others):
        assert char == "\t" or unicodedata.category(char) not in {"Cc", "Cs", "Zl", "Zp"}

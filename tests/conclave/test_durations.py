"""Durations as users type them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.durations import LONGEST, parse
from conclave.errors import InvalidDuration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("30s", 30), ("10m", 600), ("2h", 7200), ("7d", 604_800), (" 5m ", 300), ("007", 7)],
)
def test_a_number_with_an_optional_unit_is_seconds(text: str, seconds: int) -> None:
    """The forms that the original takes."""
    assert parse(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "s", "-1", "+1", "1.5h", "1 h", "1H", "1w", "1h30m", "\u0661", "1_0"])
def test_anything_else_is_refused_with_its_text(text: str) -> None:
    """No guessing what a user may have meant."""
    with pytest.raises(InvalidDuration) as caught:
        parse(text)
    assert str(caught.value) == f"invalid duration `{text}`"


@given(st.integers(min_value=LONGEST // 86_400 + 1))
def test_a_duration_that_does_not_fit_the_wire_is_refused(days: int) -> None:
    """It would wrap around to an arbitrary other one."""
    with pytest.raises(InvalidDuration, match=r"^invalid duration `"):
        parse(f"{days}d")


def test_the_longest_duration_still_fits() -> None:
    """Its milliseconds are the largest that the wire carries."""
    assert parse(str(LONGEST)) == LONGEST
    with pytest.raises(InvalidDuration):
        parse(str(LONGEST + 1))

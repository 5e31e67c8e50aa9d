"""Redaction: a log keeps the sentence of an error and drops the values that it quotes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.errors import Code, Refusal
from relay.observability.redaction import redact_quotes, safe_message


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("signature verification failed", "signature verification failed"),
        ("invalid username `a b`: no spaces", "invalid username `…`: no spaces"),
        ("expected `auth` or `register`: Invalid value 'x' - at `$.op`", "expected `…`"),
        ('unknown operation "x"', "unknown operation `…`"),
        ("it isn't so", "it isn't so"),
    ],
)
def test_quoted_values_are_left_out(text: str, left: str) -> None:
    """The sentence is enough for an operator; the value is the peer's."""
    assert redact_quotes(text) == left


@given(secret=st.text(), mark=st.sampled_from("`'\""), before=st.sampled_from(["invalid name ", "it isn't "]))
def test_no_value_can_end_its_quotation(secret: str, mark: str, before: str) -> None:
    """Whatever it contains, line breaks and quotation marks included."""
    left = before.partition("'")[0]
    assert safe_message(Refusal(Code.MALFORMED, f"{before}{mark}{secret}{mark}: too long")) == f"{left}`…`: too long"

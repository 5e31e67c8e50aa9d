"""The reasons of a close, in the words that existing clients know."""

import pytest

from conclave import closing
from relay.closing import CloseReason


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (CloseReason.SUPERSEDED, closing.SUPERSEDED),
        (CloseReason.IDLE, closing.IDLE),
        (CloseReason.SLOW_READER, closing.SLOW),
        (CloseReason.REVOKED, closing.KEY_REVOKED),
        (CloseReason.USER_REMOVED, closing.USER_REMOVED),
        (CloseReason.STORE_AWAY, closing.STORE_AWAY),
        (CloseReason.SHUTDOWN, closing.SHUTDOWN),
    ],
)
def test_the_server_says_what_clients_listen_for(reason: CloseReason, text: str) -> None:
    """A client decides by the exact text whether to come back; the two lists are kept in different packages."""
    assert reason.text == text


def test_whoever_is_gone_is_told_nothing() -> None:
    """There is nobody to tell; every other reason has its sentence."""
    assert {reason for reason in CloseReason if reason.text is None} == {CloseReason.LEFT, CloseReason.LOST}

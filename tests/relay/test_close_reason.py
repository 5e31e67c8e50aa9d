"""The reasons of a close, in the texts that existing clients know."""

import pytest

from relay.model.close_reason import CloseReason


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (CloseReason.SUPERSEDED, "session superseded by a newer connection for the same session path"),
        (CloseReason.IDLE, "idle timeout: no heartbeat"),
        (CloseReason.SLOW_READER, "slow consumer: outbound queue overflowed"),
        (CloseReason.REVOKED, "machine key revoked"),
        (CloseReason.USER_REMOVED, "user removed from this server"),
        (CloseReason.MALFORMED, "what was sent is not the protocol's"),
        (CloseReason.SHUTDOWN, "the relay is shutting down; reconnect"),
    ],
)
def test_each_reason_has_the_text_that_clients_expect(reason: CloseReason, text: str) -> None:
    """A client decides by the exact text whether to reconnect, and older ones know only these."""
    assert reason.text == text


def test_a_connection_that_is_gone_gets_no_text() -> None:
    """Every other reason has its text."""
    assert {reason for reason in CloseReason if reason.text is None} == {CloseReason.LEFT, CloseReason.LOST}

"""The reasons of a close, in the words that existing clients know."""

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
def test_the_server_says_what_clients_listen_for(reason: CloseReason, text: str) -> None:
    """A client decides by the exact text whether to come back, and older ones know only these."""
    assert reason.text == text


def test_whoever_is_gone_is_told_nothing() -> None:
    """There is nobody to tell; every other reason has its sentence."""
    assert {reason for reason in CloseReason if reason.text is None} == {CloseReason.LEFT, CloseReason.LOST}

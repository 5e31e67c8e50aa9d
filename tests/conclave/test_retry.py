"""Why a link ended, and what follows from it."""

import pytest

from conclave.client.retry import may_retry, not_before, superseded
from conclave.errors import Code, ConclaveError, LinkError, LinkLost, LoginRefused, NotTrusted, Refusal
from conclave.protocol.close_texts import IDLE, KEY_REVOKED, SHUTDOWN, SLOW, SUPERSEDED, USER_REMOVED
from conclave.protocol.v2.close_codes import CloseCode


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (LinkLost("gone"), True),
        (LinkLost("x", IDLE), True),
        (LinkLost("x", SLOW), True),
        (LinkLost("x", "session terminated"), True),
        (LinkLost("x", "a text of a later version"), True),
        (LinkLost("x", SUPERSEDED), False),
        (LinkLost("x", KEY_REVOKED), False),
        (LinkLost("x", USER_REMOVED), False),
        (LinkLost("x", code=1006), True),
        (LinkLost("x", "new", code=4999), True),
        (LinkLost("x", code=CloseCode.RESTART), True),
        (LinkLost("x", code=CloseCode.IDLE), True),
        (LinkLost("x", code=CloseCode.SLOW_READER), True),
        (LinkLost("x", code=CloseCode.SUPERSEDED), False),
        (LinkLost("x", code=CloseCode.REVOKED), False),
        (LinkLost("x", code=CloseCode.USER_REMOVED), False),
        (LinkLost("x", code=CloseCode.MALFORMED), False),
        (LoginRefused("x", Refusal(Code.UNAUTHORIZED, SHUTDOWN), code=CloseCode.RESTART), True),
        (LoginRefused("x", Refusal(Code.UNAUTHORIZED, SUPERSEDED), code=CloseCode.SUPERSEDED), False),
        (LoginRefused("x", Refusal(Code.CONFLICT, "taken"), code=CloseCode.LOGIN), False),
        (NotTrusted("another cluster"), False),
        (LoginRefused("x", Refusal(Code.UNAUTHORIZED, "unknown machine key")), False),
        (LoginRefused("x", Refusal(Code.VERSION, "incompatible")), False),
        (LoginRefused("x", Refusal(Code.UNAUTHORIZED, "handshake timed out")), True),
        (LoginRefused("x", Refusal(Code.INTERNAL, "no")), True),
        (LinkError("failed to connect"), True),
        (Refusal(Code.UNAVAILABLE, "x"), True),
        (Refusal(Code.RATE_LIMITED, "x"), True),
        (Refusal(Code.UNAUTHORIZED, "x"), False),
    ],
)
def test_the_reason_decides_about_a_reconnect(error: ConclaveError, retry: bool) -> None:
    """A reconnect after a supersede would start a war; none after an idle close would lose a session."""
    assert may_retry(error) is retry


@pytest.mark.parametrize(
    ("reason", "code", "expected"),
    [
        (SUPERSEDED, None, True),
        (KEY_REVOKED, None, False),
        (None, None, False),
        ("in other words", CloseCode.SUPERSEDED, True),
        (SUPERSEDED, CloseCode.REVOKED, False),
    ],
)
def test_a_superseded_link_is_recognised(reason: str | None, code: int | None, expected: bool) -> None:
    """A superseded client may take another handle; a removed one may not reconnect."""
    assert superseded(LinkLost("x", reason, code=code)) is expected
    assert superseded(LoginRefused("x", Refusal(Code.UNAUTHORIZED, reason or ""), code=code)) is expected


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (LinkLost("x"), 0),
        (LinkLost("x", code=CloseCode.LATER, retry_after=3), 3),
        (LinkLost("x", retry_after=-1), 0),
        (LoginRefused("x", Refusal(Code.UNAVAILABLE, "no", retry_after=1.5)), 1.5),
        (LinkError("failed to connect"), 0),
    ],
)
def test_a_server_may_set_the_time_of_a_retry(error: LinkError, seconds: float) -> None:
    """Clients that reconnect earlier only add to its load."""
    assert not_before(error) == seconds

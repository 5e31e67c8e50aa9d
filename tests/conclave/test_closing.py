"""Why a link ended, and what follows from it."""

import pytest

from conclave.closing import IDLE, KEY_REVOKED, SLOW, SUPERSEDED, USER_REMOVED, LinkLost, LoginRefused, may_retry
from conclave.errors import Code, LinkError, Refusal


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
        (LoginRefused("x", Refusal(Code.UNAUTHORIZED, "unknown machine key")), False),
        (LoginRefused("x", Refusal(Code.VERSION, "incompatible")), False),
        (LoginRefused("x", Refusal(Code.UNAUTHORIZED, "handshake timed out")), True),
        (LoginRefused("x", Refusal(Code.INTERNAL, "no")), True),
        (LinkError("failed to connect"), True),
    ],
)
def test_the_reason_decides_whether_to_come_back(error: LinkError, retry: bool) -> None:
    """Coming back after a supersede starts a war; giving up after an idle kill loses a listener."""
    assert may_retry(error) is retry


@pytest.mark.parametrize(("reason", "superseded"), [(SUPERSEDED, True), (KEY_REVOKED, False), (None, False)])
def test_a_superseded_link_says_so(reason: str | None, superseded: bool) -> None:
    """Whoever lost the path to a newer connection may want another one; whoever was thrown out may not."""
    assert LinkLost("x", reason).superseded is superseded

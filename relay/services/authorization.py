"""Verdicts on operations of admins, the audit trail, the terms of invites."""

import secrets

import structlog

from conclave.errors import Code, Refusal
from relay.observability.metrics import Metrics
from relay.redis.directory import Caller, Verdict
from relay.services.refusals import channel_not_found, not_admin, revoked

log = structlog.get_logger()

_LONGEST_SECONDS = 100 * 365 * 24 * 3600
_MOST_USES = 2**32 - 1
_LONGEST_TARGET = 400
"""The characters of a target that are logged. A request may be as long as a frame; names that exist are shorter."""


def permit(verdict: Verdict, channel: str = "") -> None:
    """Raise the refusal of a verdict other than `ok`. A hidden channel is refused like an absent one."""
    if verdict == "denied":
        raise not_admin()
    if verdict == "missing":
        raise channel_not_found(channel)
    if verdict == "revoked":
        raise revoked()
    if verdict == "taken":
        raise Refusal(Code.CONFLICT, "the new name is already taken")


class AuditLog:
    """Logs and counts operations. The audit trail itself is written by the directory, in the step of the operation."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, caller: Caller, operation: str, target: str, outcome: str) -> None:
        """Log and count an operation. A target is never a token and never a key."""
        self._metrics.admin_operations.labels(operation=operation, outcome=outcome).inc()
        log.info("audit", actor=caller.path, operation=operation, target=target[:_LONGEST_TARGET], outcome=outcome)


def check_terms(uses: int | None, seconds: int | None) -> None:
    """Check the limits of an invite: uses and lifetime. Raises: Refusal."""
    if uses is not None and uses < 1:
        raise Refusal(Code.MALFORMED, "an invite needs at least 1 use")
    if uses is not None and uses > _MOST_USES:
        raise Refusal(Code.MALFORMED, f"an invite has at most {_MOST_USES} uses")
    if seconds is not None and seconds < 1:
        raise Refusal(Code.MALFORMED, "an invite needs a lifetime of at least 1 second")
    if seconds is not None and seconds > _LONGEST_SECONDS:
        raise Refusal(Code.MALFORMED, "invite expiry is too far in the future")


def new_token() -> str:
    """Return 24 random bytes as base64url."""
    return secrets.token_urlsafe(24)

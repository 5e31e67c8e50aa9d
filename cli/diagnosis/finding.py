"""What a check says."""

import enum

import msgspec


class Verdict(enum.Enum):
    """How a thing is. Only a problem keeps a session from taking part; unknown is what cannot be seen from here."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


class Finding(msgspec.Struct, frozen=True):
    """A verdict in a sentence, and what to do about it. Names are as they came: make them visible to show them."""

    verdict: Verdict
    text: str
    remedy: str | None = None


def ok(text: str) -> Finding:
    return Finding(Verdict.OK, text)


def warning(text: str, remedy: str) -> Finding:
    return Finding(Verdict.WARNING, text, remedy)


def problem(text: str, remedy: str) -> Finding:
    return Finding(Verdict.PROBLEM, text, remedy)


def unknown(text: str, remedy: str | None = None) -> Finding:
    return Finding(Verdict.UNKNOWN, text, remedy)

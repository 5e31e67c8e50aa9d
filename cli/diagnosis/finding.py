"""The result of a check."""

import enum

import msgspec


class Verdict(enum.Enum):
    """The verdict of a check. Only a problem keeps a session from taking part; unknown means not visible from here."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


class Finding(msgspec.Struct, frozen=True):
    """A verdict, a sentence about it, and a remedy. Names in it are not escaped yet for terminals."""

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

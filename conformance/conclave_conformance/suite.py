"""All checks, in the order of the page, and how they are run: one after the other, each with an end."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterable
from fnmatch import fnmatch
from typing import Literal

import msgspec

from conclave_conformance.asking import CLOSES, REQUESTS
from conclave_conformance.client import Unreachable
from conclave_conformance.company import Company, Scene
from conclave_conformance.logins import LOGIN, UPGRADE
from conclave_conformance.machines import MACHINES
from conclave_conformance.resuming import RESUME
from conclave_conformance.ruling import CHANNELS, RULING
from conclave_conformance.talking import HISTORY, MESSAGES, WHISPERS
from conclave_conformance.verdict import Check, Failed, Skipped

_SECTIONS = (UPGRADE, LOGIN, REQUESTS, CHANNELS, MESSAGES, WHISPERS, HISTORY, RULING, MACHINES, RESUME, CLOSES)

CHECKS: tuple[Check, ...] = tuple(check for section in _SECTIONS for check in section.checks)

PAGE = "docs/protocol.md"
CHECK_SECONDS = 60.0


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of a check. `expected` and `got` belong to a failed one, `reason` to a skipped one."""

    name: str
    outcome: Literal["ok", "failed", "skipped"]
    promise: str
    see: str
    expected: str | None = None
    got: str | None = None
    reason: str | None = None


def chosen(pattern: str | None) -> list[Check]:
    """Return the checks that match a pattern of the shell, or whose group is its text."""
    return [
        check
        for check in CHECKS
        if pattern is None or fnmatch(check.name, pattern) or fnmatch(check.name.partition(".")[0], pattern)
    ]


async def run(company: Company, checks: Iterable[Check]) -> AsyncIterator[Outcome]:
    """Run checks and yield how each went."""
    for check in checks:
        yield await _judged(company, check)


async def _judged(company: Company, check: Check) -> Outcome:
    common = (check.name, check.promise, f"{PAGE}#{_anchor(check.heading)}")
    try:
        async with asyncio.timeout(CHECK_SECONDS), Scene(company) as scene:
            await check.run(scene)
            scene.assure()
    except Failed as failed:
        return _outcome("failed", *common, expected=failed.expected, got=failed.got)
    except Skipped as skipped:
        return _outcome("skipped", *common, reason=str(skipped))
    except Unreachable as error:
        return _outcome("failed", *common, expected="the server to accept a connection", got=str(error))
    except TimeoutError:
        return _outcome("failed", *common, expected="an end", got=f"the check took more than {CHECK_SECONDS:g} s")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        # A result without its field, or of another type: the checks name what matters most and trust in the rest.
        got = f"{type(error).__name__}: {error}, in `{traceback.extract_tb(error.__traceback__)[-1].line}`"
        return _outcome("failed", *common, expected="fields as the page has them", got=got)
    return _outcome("ok", *common)


def _outcome(
    outcome: Literal["ok", "failed", "skipped"], name: str, promise: str, see: str, **more: str | None
) -> Outcome:
    return Outcome(name=name, outcome=outcome, promise=promise, see=see, **more)


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")

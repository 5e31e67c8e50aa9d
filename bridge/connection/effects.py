"""Runs effects (`bridge.session.effects`) against a server."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from bridge.session.effects import Effects
from conclave.errors import Refusal
from conclave.protocol.requests import Request

T = TypeVar("T")


async def run_effects(effects: Effects[T], ask: Callable[[Request[Any]], Awaitable[Any]]) -> T:
    """Ask the requests, one after the other, and return what the generator returns.

    A Refusal is thrown into the generator, which handles it or passes it on; any other exception is raised here.
    """
    try:
        request = next(effects)
        while True:
            try:
                result = await ask(request)
            except Refusal as refusal:
                request = effects.throw(refusal)
            else:
                request = effects.send(result)
    except StopIteration as done:
        value: T = done.value
        return value
    finally:
        effects.close()

"""Walking through a generator of requests with a real server at the other end."""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from conclave.errors import Refusal
from conclave.protocol.requests import Request

T = TypeVar("T")

Ask = Callable[[Request[Any]], Awaitable[Any]]
"""Asks a server. Raises: Refusal; anything else ends the walk."""


async def run_effects(steps: Generator[Request[Any], Any, T], ask: Ask) -> T:
    """Ask what the steps want to know, one request after the other, and return what they return.

    A Refusal is thrown into the steps, for them to handle or to pass on; what else goes wrong is raised here.
    """
    try:
        request = next(steps)
        while True:
            try:
                result = await ask(request)
            except Refusal as refusal:
                request = steps.throw(refusal)
            else:
                request = steps.send(result)
    except StopIteration as done:
        value: T = done.value
        return value
    finally:
        steps.close()

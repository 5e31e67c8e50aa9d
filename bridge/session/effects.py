"""Effects: work that asks a server is a generator of requests.

It yields each request, and is sent the result or thrown the Refusal. So everything that decides can be tested without a
socket, and each result reaches the work that asked for it.
"""

from collections.abc import Generator
from typing import Any, TypeVar

from conclave.protocol.requests import Request

T = TypeVar("T")

Effects = Generator[Request[Any], Any, T]

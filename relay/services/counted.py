"""Counting what services do, beside them."""

import time
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from conclave.errors import Code, Refusal
from relay.observability.metrics import Metrics


class _Measured(Protocol):
    @property
    def metrics(self) -> Metrics: ...


P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=_Measured)
Method = Callable[Concatenate[S, P], Coroutine[Any, Any, T]]


def posts(method: Method[S, P, T]) -> Method[S, P, T]:
    """Count the posts that end well, and how long each took."""

    @wraps(method)
    async def counted(service: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        began = time.monotonic()
        result = await method(service, *args, **kwargs)
        service.metrics.publish_seconds.observe(time.monotonic() - began)
        service.metrics.posts.inc()
        return result

    return counted


def whispers(method: Method[S, P, T]) -> Method[S, P, T]:
    """Count whispers by how they end."""

    @wraps(method)
    async def counted(service: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        outcome = Code.INTERNAL.value
        try:
            result = await method(service, *args, **kwargs)
            outcome = "ok"
            return result
        except Refusal as refusal:
            outcome = refusal.code.value
            raise
        finally:
            service.metrics.whispers.labels(outcome=outcome).inc()

    return counted

"""An `asyncio.run` that does not wait for name lookups, so that a command ends when its deadlines have passed."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from typing_extensions import override

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Abandonable(ThreadPoolExecutor):
    """Runs each blocking call in a daemon thread: not even the end of the program waits for it.

    The system's lookup of a name cannot be interrupted, and lasts until a name server answers.
    """

    @override
    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        future: Future[_T] = Future()

        def work() -> None:
            try:
                result = fn(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - raised again where it is waited for
                future.set_exception(error)
            else:
                future.set_result(result)

        future.set_running_or_notify_cancel()
        threading.Thread(target=work, daemon=True).start()
        return future


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine as asyncio.run does, but leave threads behind that still wait for the system."""
    return asyncio.run(_with_abandonable_threads(coroutine))


async def _with_abandonable_threads(coroutine: Coroutine[Any, Any, _T]) -> _T:
    asyncio.get_running_loop().set_default_executor(_Abandonable())
    return await coroutine

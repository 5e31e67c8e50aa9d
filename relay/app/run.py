"""A relay as a process: its telemetry, and a logged reason when it fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from conclave.errors import ConclaveError
from relay.app.garbage import tune_collector
from relay.app.node import Node
from relay.model.errors import NodeFailure
from relay.observability import logs, telemetry

log = structlog.get_logger()


class Runnable(Protocol):
    """A node, or the parent of several: `run` serves until it is stopped."""

    async def run(self) -> None: ...


async def run_node(node: Node) -> None:
    """Run the node of this process, and export spans and logs if a collector is configured. Raises as `run_relay`."""
    tune_collector()
    async with telemetry.exporting(node.name):
        await run_relay(node)


async def run_relay(relay: Runnable) -> None:
    """Run a relay, and log why it fails. An unexpected exception is logged without the values that its text quotes.

    Raises:
        ConclaveError: it cannot start or cannot go on.
    """
    with logged_failure():
        try:
            await relay.run()
        except ConclaveError:
            raise
        except Exception as error:
            expected = _first_conclave_error(error)
            if expected is None:
                log.exception("node.failed")
            raise expected or NodeFailure("the node failed; its log says where") from None


@contextmanager
def logged_failure() -> Iterator[None]:
    """Log a ConclaveError that ends the block as the last event; not on a terminal, where the CLI prints it already."""
    try:
        yield
    except ConclaveError as failure:
        if not logs.on_terminal():
            log.error("node.ended", reason=str(failure))  # noqa: TRY400 - a reason and no defect: without a trace
        raise


def _first_conclave_error(error: BaseException) -> ConclaveError | None:
    if isinstance(error, BaseExceptionGroup):
        found = (_first_conclave_error(each) for each in error.exceptions)
        return next((each for each in found if each is not None), None)
    return error if isinstance(error, ConclaveError) else None

"""The life of a relay as a process lives it: exported to a collector, and with an end that says what went wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from conclave.errors import ConclaveError
from relay.app.node import Node
from relay.model.errors import NodeFailure
from relay.observability import logs, telemetry

log = structlog.get_logger()


class Runnable(Protocol):
    """What serves until it is stopped."""

    async def run(self) -> None: ...


async def exported(node: Node) -> None:
    """Run a node, with what it does exported if there is a collector. Raises as `to_its_end` does."""
    async with telemetry.exporting(node.name):
        await to_its_end(node)


async def to_its_end(relay: Runnable) -> None:
    """Run a relay. Why it fails is logged, and described there if unexpected: a trace as Python shows it quotes values.

    Raises:
        ConclaveError: if it cannot start or cannot go on.
    """
    with explained():
        try:
            await relay.run()
        except ConclaveError:
            raise
        except Exception as error:
            ours = _ours(error)
            if ours is None:
                log.exception("node.failed")
            raise ours or NodeFailure("the node failed; its log says where") from None


@contextmanager
def explained() -> Iterator[None]:
    """Log the failure that ends what is inside, as the last event; on a terminal the command line prints it already."""
    try:
        yield
    except ConclaveError as failure:
        if not logs.are_for_a_person():
            log.error("node.ended", reason=str(failure))  # noqa: TRY400 - a reason and no defect: without a trace
        raise


def _ours(error: BaseException) -> ConclaveError | None:
    """Return the first failure in a group that is fit to be shown."""
    if isinstance(error, BaseExceptionGroup):
        return next((ours for each in error.exceptions if (ours := _ours(each)) is not None), None)
    return error if isinstance(error, ConclaveError) else None

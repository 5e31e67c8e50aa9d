"""Whether what this process does is exported to a collector, and the end of it. Without one nothing is imported."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import structlog

from relay.observability import logs, tracing

log = structlog.get_logger()

FLUSH_SECONDS = 2.0
"""How long the end of the process waits for what has yet to be exported."""


@asynccontextmanager
async def exporting(node: str) -> AsyncIterator[None]:
    """Export spans and logs to CONCLAVE_OTLP_ENDPOINT inside the `async with`; flush them at its end, for a while.

    An exporter that cannot be started is logged as an error: the node runs without.
    """
    closers = _start(os.environ.get("CONCLAVE_OTLP_ENDPOINT", "").strip().rstrip("/"), node)
    try:
        yield
    finally:
        if closers:
            tracing.install(None)
            logs.export(None)
            await _close(closers)


def _start(endpoint: str, node: str) -> Sequence[Callable[[], object]]:
    if not endpoint:
        return ()
    if not _is_url(endpoint):
        log.error("telemetry.off", reason="CONCLAVE_OTLP_ENDPOINT is not an http:// or https:// URL")
        return ()
    try:
        from relay.observability.otlp import Exporter  # noqa: PLC0415 - a large library, for those who have a collector

        exporter = Exporter(endpoint, node)
    except ImportError as error:
        broken = f"{error}; it needs: pip install 'conclave-cli[otel]'"
    except Exception as error:  # noqa: BLE001 - whatever the library objects to, the node serves
        broken = f"the exporter does not start: {type(error).__name__}"
    else:
        tracing.install(exporter)
        logs.export(exporter.log)
        return exporter.closers
    log.error("telemetry.off", reason=broken)
    return ()


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


async def _close(closers: Sequence[Callable[[], object]]) -> None:
    """Flush and end the exporters, each in a thread that the process does not wait for in the end."""
    loop = asyncio.get_running_loop()

    def run(close: Callable[[], object], done: asyncio.Event) -> None:
        try:
            close()
        finally:
            with suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(done.set)

    waits = []
    for close in closers:
        done = asyncio.Event()
        threading.Thread(target=run, args=(close, done), daemon=True).start()
        waits.append(done.wait())
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await asyncio.gather(*waits)
    except TimeoutError:
        log.warning("telemetry.unflushed", seconds=FLUSH_SECONDS)

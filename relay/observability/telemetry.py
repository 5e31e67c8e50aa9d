"""The export of spans and logs to a collector: its start and its end. Without a collector nothing is imported."""

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
"""The time that the end of the process waits for the last export."""


@asynccontextmanager
async def exporting(node: str) -> AsyncIterator[None]:
    """Export spans and logs to CONCLAVE_OTLP_ENDPOINT inside the block; flush them at its end, for 2 seconds at most.

    If the exporter cannot be started, an error is logged and the node runs without it.
    """
    closers = _start(os.environ.get("CONCLAVE_OTLP_ENDPOINT", "").strip().rstrip("/"), node)
    try:
        yield
    finally:
        if closers:
            tracing.install(None)
            logs.export_to(None)
            await _close(closers)


def _start(endpoint: str, node: str) -> Sequence[Callable[[], object]]:
    if not endpoint:
        return ()
    if not _is_url(endpoint):
        log.error("telemetry.off", reason="CONCLAVE_OTLP_ENDPOINT is not an http:// or https:// URL")
        return ()
    try:
        from relay.observability.otlp import Exporter  # noqa: PLC0415 - a large library, needed only with a collector

        exporter = Exporter(endpoint, node)
    except ImportError as error:
        broken = f"{error}; it needs: pip install 'conclave-cli[otel]'"
    except Exception as error:  # noqa: BLE001 - no defect of an exporter may stop the node
        broken = f"the exporter does not start: {type(error).__name__}"
    else:
        tracing.install(exporter)
        logs.export_to(exporter.log)
        return exporter.closers
    log.error("telemetry.off", reason=broken)
    return ()


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number
        return False


async def _close(closers: Sequence[Callable[[], object]]) -> None:
    """Flush and end the exporters, each in a daemon thread that cannot delay the end of the process."""
    loop = asyncio.get_running_loop()

    def run(close: Callable[[], object], done: asyncio.Event) -> None:
        try:
            close()
        finally:
            with suppress(RuntimeError):  # the loop has ended
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

"""The cost of decoding: time and memory in proportion to the input."""

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

SPARE_BYTES = 256 * 1024
BYTES_PER_BYTE = 150
"""An empty list is one byte of input and some ninety in memory."""
SPARE_SECONDS = 0.25
SECONDS_PER_BYTE = 20e-6
"""Under instrumentation, which makes everything several times slower."""


@contextmanager
def bounded(size: int) -> Iterator[None]:
    """Raise AssertionError if the body costs more than decoding an input of `size` bytes may."""
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    started = time.thread_time()
    yield
    seconds = time.thread_time() - started
    _, peak = tracemalloc.get_traced_memory()
    assert peak - before <= SPARE_BYTES + BYTES_PER_BYTE * size, f"{peak - before} bytes for {size}"
    assert seconds <= SPARE_SECONDS + SECONDS_PER_BYTE * size, f"{seconds:.2f} s for {size} bytes"

"""The seeds of each fuzz target, without a fuzzer; `make trials` and `make fuzz` fuzz."""

import tracemalloc

import pytest

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_invariants_hold_for_the_seeds(name: str) -> None:
    """On every platform, with every version of Python; earlier findings are among the seeds."""
    target = TARGETS[name]
    try:
        for seed in target.seeds:
            target.check(seed)  # caches fill
            target.run(seed)
    finally:
        tracemalloc.stop()  # it would slow down all that this process does afterwards

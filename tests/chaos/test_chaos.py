"""Faults at random, on every topology: the promises hold. `make chaos` runs it for longer and shows what happened."""

import random

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.run import Settings, run
from tests.chaos.topologies import TOPOLOGIES
from tests.support.trials import FORM, Form, by_form

pytestmark = [pytest.mark.trial, pytest.mark.timeout(by_form(120, 240, 0))]

SECONDS = by_form(5.0, 10.0, 3600.0)
LONG_SECONDS = 5.0
"""An example has no fault that takes longer."""


@pytest.mark.parametrize("topology", by_form(["server"], [*TOPOLOGIES], [*TOPOLOGIES]))
async def test_the_promises_hold_whatever_fails(topology: str) -> None:
    """Nodes, the store, their network and that of the clients fail, and clients join, leave and resume.

    Every acknowledged message that the store has is in the log once, each session receives the log from its position
    on, once and in order, or a loss is reported that happened; presence is right soon after a heal, one of racing
    logins survives, every node serves soon, and none ends of itself.
    """
    seed = random.SystemRandom().randrange(10**6)
    kinds = [kind for kind in FAULTS if FORM is not Form.EXAMPLE or kind.seconds[1] < LONG_SECONDS]
    summary = await run(Settings(topology, seed, SECONDS, kinds=kinds))
    assert not summary.flaws, "\n".join(summary.lines())
    assert summary.faults.total() > 0
    assert summary.figures["joins with a position"] > summary.figures["sessions"], "no session resumed"

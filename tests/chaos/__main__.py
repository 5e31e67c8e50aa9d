"""Faults at random while clients talk: `python -m tests.chaos [--seconds N] [--faults N] [--seed N] [--topology NAME]`.

Prints what happened. Exit code 1 if a promise was broken; the same seed chooses the same faults again.
"""

import argparse
import asyncio
import random
import sys

from tests.chaos.faults import FAULTS
from tests.chaos.run import Settings, run
from tests.chaos.topologies import TOPOLOGIES
from tests.support.programs import end_fork_server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--topology", choices=TOPOLOGIES, default="server", help="the form of the store (server)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="(at random)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--faults", type=int, default=1_000_000, help="how many faults at most")
    parser.add_argument("--only", default="", help="only kinds of faults whose name contains this")
    parser.add_argument("--installed", action="store_true", help="nodes are the installed command, not forked")
    parser.add_argument("--quiet", action="store_true", help="show the summary only")
    options = parser.parse_args()
    settings = Settings(
        topology=options.topology,
        seed=options.seed,
        seconds=options.seconds,
        faults=options.faults,
        kinds=[fault for fault in FAULTS if options.only in fault.name],
        installed=options.installed,
        say=(lambda _: None) if options.quiet else _print,
    )
    _print(f"seed {settings.seed}")
    try:
        summary = asyncio.run(run(settings))
    finally:
        end_fork_server()
    for line in summary.lines():
        _print(line)
    return int(bool(summary.flaws))


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

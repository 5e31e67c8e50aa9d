"""Measure this tree, others, and the floors, in turns: `python -m bench.load [--help]`."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.load.candidates import Candidate, Shape, candidates
from bench.load.programs import Cores
from bench.load.report import Section, document, markdown
from bench.load.scenarios import SCENARIOS, Figures, Scenario
from bench.load.sections import PROGRAMS
from bench.load.setup import Setup
from bench.load.swarm import Swarm

KINDS = ("v2", "v1", "other-v2", "other-v1", "centrifugo", "original", "each", "joined")
NAMES = (*(scenario.name for scenario in SCENARIOS), *(program.name for program in PROGRAMS))


class Bench:
    """The measurement of scenarios on one machine."""

    def __init__(
        self, columns: Sequence[Candidate], *, full: bool, rounds: int | None, processes: int, folder: Path
    ) -> None:
        self._columns = columns
        self._full = full
        self._rounds = rounds
        self._folder = folder
        self._cores = Cores()
        self._processes = processes
        self._running: dict[tuple[str, Shape], Setup] = {}

    def section(self, name: str) -> Section:
        """Measure one scenario, by its name."""
        for program in PROGRAMS:
            if program.name == name:
                section = Section(name, program.title)
                program.measure(section, self._full, self._cores, self._folder)
                return section
        (scenario,) = (each for each in SCENARIOS if each.name == name)
        section = Section(name, scenario.title)
        with self._candidates(scenario) as running:
            measures = [(column, label, setup, scenario.set_up(setup)) for column, label, setup in running]
            for _ in range(self._rounds or (scenario.rounds if self._full else 1)):
                for column, label, setup, measure in measures:
                    figures, share = self._round(setup, measure)
                    section.busiest = max(section.busiest, share)
                    section.add(column, {f"{metric}{label}": value for metric, value in figures.items()})
        return section

    @contextmanager
    def _candidates(self, scenario: Scenario) -> Iterator[list[tuple[str, str, Setup]]]:
        """Start what a scenario is about: each candidate in each shape, with its column and the label of its rows.

        The smoke keeps them for the next scenario, and starts two shapes at most; else each scenario has fresh ones.
        """
        chosen = [each for each in self._columns if each.kind in scenario.kinds]
        setups = []
        with ExitStack() as stack:
            for candidate in chosen:
                for label, shape in scenario.shapes if self._full else scenario.shapes[:2]:
                    setup = self._setup(candidate, shape)
                    if not self._full:
                        setup.swarm.behind(0, "close")
                    setups.append((candidate.name, f", {label}" if label else "", setup))
            if self._full:
                stack.callback(self.close)
            yield setups

    def _setup(self, candidate: Candidate, shape: Shape) -> Setup:
        running = self._running.get((candidate.name, shape))
        if running is None:
            installation = candidate.start(shape, self._cores, self._folder)
            swarm = Swarm(
                candidate.dialect(), installation.addresses, processes=self._processes, cores=self._cores.load
            )
            running = self._running[candidate.name, shape] = Setup(installation, swarm, full=self._full)
        return running

    def _round(self, setup: Setup, measure: Callable[[], Figures]) -> tuple[Figures, float]:
        """Measure a round, and the share of its cores that the load has used meanwhile."""
        setup.swarm.everywhere("stay")
        began, before = time.perf_counter(), setup.swarm.cpu()
        figures = measure()
        took = time.perf_counter() - began
        return figures, (setup.swarm.cpu() - before) / took / min(len(self._cores.load), self._processes)

    def close(self) -> None:
        """End all that runs."""
        for setup in self._running.values():
            setup.swarm.end()
            setup.installation.stop()
        self._running.clear()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=(__doc__ or "").partition(":")[0])
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(NAMES)}; all of them unless given"
    )
    parser.add_argument("--scale", choices=["smoke", "full"], default="full", help="seconds, or a quarter of an hour")
    parser.add_argument("--tree", type=Path, metavar="PATH", help="another tree of this project: the columns `other`")
    parser.add_argument(
        "--only", metavar="KINDS", help=f"of {', '.join(KINDS)}, separated by commas; all of them unless given"
    )
    parser.add_argument("--rounds", type=int, help="rounds of each scenario")
    parser.add_argument(
        "--processes", type=int, help="processes of the load; one for each core of its own, four at most"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds there, as JSON")
    options = parser.parse_args()
    unknown = set(options.scenarios) - set(NAMES)
    if unknown:
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}")
    trees = {} if options.tree is None else {"other": options.tree.resolve()}
    columns = candidates(trees)
    if options.only:
        columns = [each for each in columns if each.kind in options.only.split(",")]
    sections = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(
            columns,
            full=options.scale == "full",
            rounds=options.rounds,
            processes=options.processes or min(4, len(Cores().load)),
            folder=Path(folder),
        )
        try:
            for name in options.scenarios or NAMES:
                began = time.perf_counter()
                sections.append(bench.section(name))
                sys.stderr.write(f"{name}: {time.perf_counter() - began:.1f} s\n")
        finally:
            bench.close()
    sys.stdout.write(markdown(sections))
    if options.json is not None:
        options.json.write_bytes(document(sections))


if __name__ == "__main__":
    main()

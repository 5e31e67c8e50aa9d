"""Mutation testing by hand: `python -m tests.mutants [--tree DIR] [--python PATH] [NUMBER ...]`.

Each row of `table.py` is a defect that would hurt, and the tests that must notice it. All is done in a copy of the
tree: first these tests pass without a defect, then each defect is put in, its tests run, and it is taken out. Exit
code 1 if a mutant survived, does not apply any more, or is invalid.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.mutant import Mutant, copied, run_tests, trial
from tests.mutants.table import MUTANTS

ROOT = Path(__file__).parents[2]
_SOUND_SECONDS = 1200


def main(mutants: Sequence[Mutant] = MUTANTS) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("numbers", nargs="*", type=int, metavar="NUMBER", help="rows of the table (all)")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the tree to copy (this one)")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="the interpreter (this one)")
    parser.add_argument("--list", action="store_true", help="only show the table")
    options = parser.parse_args()
    numbers = options.numbers or range(1, len(mutants) + 1)
    if wrong := [number for number in numbers if not 1 <= number <= len(mutants)]:
        parser.error(f"no such number: {wrong[0]}; there are 1 to {len(mutants)}")
    chosen = [mutants[number - 1] for number in numbers]
    if options.list:
        for number, mutant in zip(numbers, chosen, strict=True):
            _print(f"{number:2}  {mutant.defect}\n    {mutant.path}\n    {' '.join(mutant.tests)}")
        return 0
    with copied(options.tree) as copy:
        if not _are_sound(chosen, copy, options.python):
            return 1
        killed = 0
        for number, mutant in zip(numbers, chosen, strict=True):
            outcome = trial(mutant, copy, options.python)
            killed += outcome.verdict == "killed"
            _print(f"{number:2}  {outcome.verdict:8} {outcome.seconds:5.1f} s  {mutant.defect}\n    {outcome.detail}")
    _print(f"{killed} of {len(chosen)} killed")
    return int(killed < len(chosen))


def _are_sound(mutants: Sequence[Mutant], copy: Path, python: Path) -> bool:
    """Tell if the mutants' tests pass without a defect; else their failures would prove nothing."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    finished = run_tests(tests, copy, python, limit=_SOUND_SECONDS)
    if finished.returncode != 0:
        _print(f"these tests fail without a defect:\n{finished.stdout[-4000:]}{finished.stderr[-1000:]}")
    return finished.returncode == 0


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

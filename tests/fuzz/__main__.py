"""Fuzzing with libFuzzer: `python -m tests.fuzz [--seconds N] [--corpus DIR] [TARGET ...]`; all targets by default.

Each target runs in a process of its own, because libFuzzer ends the one in which it runs. A finding is kept in
`.fuzz/` as a file that `python -m tests.fuzz TARGET --again FILE` repeats. The exit code is 1 if there is a finding.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

LONGEST = 8192
FOUND = Path(".fuzz")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--corpus", type=Path, help="where to keep the inputs that reached something new")
    parser.add_argument("--again", type=Path, help="only try this input")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _fuzz(options.targets[0], options.corpus, options.seconds)
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - instrumented, if it is imported inside

    chosen = options.targets or list(TARGETS)
    if unknown := set(chosen) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if options.again is not None:
        TARGETS[chosen[0]].run(options.again.read_bytes())
        return 0
    return max(_run(name, TARGETS[name], options.seconds, options.corpus) for name in chosen)


def _run(name: str, target: "Target", seconds: int, corpus: Path | None) -> int:
    """Fuzz one target in a process of its own."""
    FOUND.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) if corpus is None else corpus / name
        place.mkdir(parents=True, exist_ok=True)
        for i, seed in enumerate(target.seeds):
            (place / f"seed-{i}").write_bytes(seed)
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        command = [
            sys.executable,
            "-m",
            "tests.fuzz",
            name,
            "--inside",
            "--seconds",
            str(seconds),
            "--corpus",
            str(place),
        ]
        return min(1, subprocess.run(command, check=False, timeout=seconds + 120).returncode)


def _fuzz(name: str, corpus: Path, seconds: int) -> None:
    """Become the fuzzer; does not return."""
    import atheris  # noqa: PLC0415 - it is not everywhere

    with atheris.instrument_imports(include=["conclave", "tests.fuzz.json_targets", "tests.fuzz.v1_targets"]):
        from tests.fuzz.mutation import mutated  # noqa: PLC0415
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    target = TARGETS[name]
    for seed in target.seeds:
        target.check(seed)  # caches fill, so that the bounds are those of decoding

    def change(data: bytes, longest: int, seed: int) -> bytes:
        changed = mutated(data, seed, longest, target.seeds) if target.is_json and seed % 2 else None
        return atheris.Mutate(data, longest) if changed is None else changed

    bounds = (f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=20", "-rss_limit_mb=1024")
    output = ("-print_final_stats=1", f"-artifact_prefix={FOUND}{os.sep}{name}-")
    atheris.Setup([sys.argv[0], *bounds, *output, str(corpus)], target.run, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())

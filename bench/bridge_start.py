"""Start and end of a bridge, against the least program that could do it.

    python bench/bridge_start.py [--runs N] [COMMAND ...]

Runs `bare_peer.py` and the command (`quiet_bridge.py` without one) in turns, and prints medians: milliseconds from
start to the answer of `initialize`, resident memory after it, milliseconds from the end of stdin to the end of the
process. The ratio is what counts; the machine decides the rest. Byte code is cached, as it is after an installation.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
FLOOR = [sys.executable, str(HERE / "bare_peer.py")]
OURS = [sys.executable, str(HERE / "quiet_bridge.py")]

PARAMS = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "0"}}
INITIALIZE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": PARAMS}).encode() + b"\n"
INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'


class Run(NamedTuple):
    """One process."""

    start_ms: float
    exit_ms: float
    resident_kib: float


def measure(command: list[str], env: dict[str, str]) -> Run:
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:  # noqa: S603 - asked for
        if process.stdin is None or process.stdout is None:
            raise AssertionError("pipes were asked for")
        process.stdin.write(INITIALIZE)
        process.stdin.flush()
        reply = json.loads(process.stdout.readline())
        answered = time.perf_counter()
        if reply.get("id") != 1 or "result" not in reply:
            raise SystemExit(f"{command[0]} does not answer initialize: {reply}")
        resident = _resident_kib(process.pid)
        process.stdin.write(INITIALIZED)
        process.stdin.close()
        ended = time.perf_counter()
        process.wait(30)
        return Run((answered - began) * 1000, (time.perf_counter() - ended) * 1000, resident)


def median(runs: list[Run]) -> Run:
    return Run(*(statistics.median(column) for column in zip(*runs, strict=True)))


def _resident_kib(pid: int) -> float:
    """Return VmRSS; nan where there is no /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return float("nan")
    return float(status.partition("VmRSS:")[2].split(maxsplit=1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a bridge's start and end with the floor.")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("command", nargs=argparse.REMAINDER, default=[])
    arguments = parser.parse_args()
    command = arguments.command or OURS
    with tempfile.TemporaryDirectory() as cache:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = cache
        for warm_up in (FLOOR, command):
            measure(warm_up, env)
        pairs = [(measure(FLOOR, env), measure(command, env)) for _ in range(arguments.runs)]
    floor, ours = median([pair[0] for pair in pairs]), median([pair[1] for pair in pairs])
    lines = [f"{'':<8}{'start ms':>10}{'exit ms':>10}{'RSS MiB':>10}"]
    for name, run in (("floor", floor), ("bridge", ours)):
        lines.append(f"{name:<8}{run.start_ms:>10.1f}{run.exit_ms:>10.1f}{run.resident_kib / 1024:>10.1f}")
    ratios = [ours[column] / floor[column] for column in range(3)]
    lines.append(f"{'ratio':<8}" + "".join(f"{ratio:>10.2f}" for ratio in ratios))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

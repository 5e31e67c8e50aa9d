"""The candidates: this tree and another one, with both versions of the protocol; Centrifugo; the original; floors."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.load.dialects import Bare, Centrifugo, ConclaveV1, ConclaveV2, Dialect
from bench.load.programs import Cores, Listener, Node, Program, Store, free_port

ROOT = Path(__file__).parents[2]
CENTRIFUGO = "CONCLAVE_BENCH_CENTRIFUGO"
ORIGINAL = "CONCLAVE_ORIGINAL"
"""The environment variables that name the programs of others."""

_HISTORY_ROWS = 100_000


class Shape(msgspec.Struct, frozen=True):
    """The number of a server's nodes, and of the processes of each."""

    nodes: int = 1
    workers: int = 1


class Installation:
    """A candidate that runs: its nodes, and its Redis if it has one."""

    def __init__(self, nodes: list[Node | Listener], store: Store | None) -> None:
        self.nodes: list[Node | Listener] = nodes
        self.store = store
        for node in nodes:
            node.wait()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [node.address for node in self.nodes]

    def cpu(self, first: int = 0) -> float:
        """Return the CPU seconds of all nodes from this one on."""
        return sum(node.cpu() for node in self.nodes[first:])

    def store_cpu(self) -> float:
        return self.store.cpu() if self.store is not None else 0.0

    def resident_bytes(self) -> int:
        return sum(node.resident_bytes() for node in self.nodes)

    def stop(self) -> None:
        programs: list[Program] = [*self.nodes, *([] if self.store is None else [self.store])]
        for program in programs:
            program.end()
        for program in programs:
            program.wait_for_end()


class Candidate(NamedTuple):
    """A column of the page. `kind` is what scenarios choose by."""

    name: str
    kind: str
    dialect: Callable[[], Dialect]
    start: Callable[[Shape, Cores, Path], Installation]


def candidates(trees: Mapping[str, Path]) -> list[Candidate]:
    """Return all that there is on this machine: `trees` by the name of their columns, besides this one."""
    found = []
    for name, tree in {"this": ROOT, **trees}.items():
        kind = "" if name == "this" else "other-"
        found += [
            Candidate(f"{name} v2", f"{kind}v2", ConclaveV2, _of_tree(tree)),
            Candidate(f"{name} v1", f"{kind}v1", ConclaveV1, _of_tree(tree)),
        ]
    if program := os.environ.get(CENTRIFUGO):
        found.append(Candidate("Centrifugo", "centrifugo", Centrifugo, _centrifugo(program)))
    if program := os.environ.get(ORIGINAL):
        found.append(Candidate("original", "original", ConclaveV1, _original(program)))
    found.append(Candidate("floor", "each", Bare, _bare("each")))
    found.append(Candidate("floor, joined", "joined", Bare, _bare("joined")))
    return found


def _of_tree(tree: Path) -> Callable[[Shape, Cores, Path], Installation]:
    def start(shape: Shape, cores: Cores, folder: Path) -> Installation:
        store = Store(cores.load, folder)
        words = ["--redis-url", store.url, "--workers", str(shape.workers)]
        return Installation([Node(tree, cores.nodes, folder, *words) for _ in range(shape.nodes)], store)

    return start


def _centrifugo(program: str) -> Callable[[Shape, Cores, Path], Installation]:
    """Return the start of Centrifugo on its Redis engine, with history, and without a login's cost."""

    def start(shape: Shape, cores: Cores, folder: Path) -> Installation:
        store = Store(cores.load, folder)
        nodes: list[Node | Listener] = []
        for number in range(shape.nodes):
            port, path = free_port(), folder / f"centrifugo-{store.port}-{number}.json"
            path.write_text(json.dumps(_centrifugo_config(port, store.url)))
            nodes.append(Listener([program, "--config", str(path)], port, cores.nodes, folder))
        return Installation(nodes, store)

    return start


def _centrifugo_config(port: int, redis_url: str) -> dict[str, object]:
    namespace = {
        "name": "bench",
        "history_size": _HISTORY_ROWS,
        "history_ttl": "168h",
        "force_positioning": True,
        "force_recovery": True,
        "presence": True,
        "allow_subscribe_for_client": True,
        "allow_publish_for_client": True,
        "allow_history_for_client": True,
        "allow_presence_for_client": True,
    }
    return {
        "http_server": {"address": "127.0.0.1", "port": port},
        "log": {"level": "error"},
        "engine": {"type": "redis", "redis": {"address": redis_url}},
        "client": {
            "insecure": True,
            "allowed_origins": ["*"],
            "ping_interval": "600s",
            "pong_timeout": "60s",
            "channel_limit": 10_000,
            "history_max_publication_limit": 1000,
            "recovery_max_publication_limit": 1000,
        },
        "channel": {"namespaces": [namespace]},
    }


def _original(program: str) -> Callable[[Shape, Cores, Path], Installation]:
    def start(shape: Shape, cores: Cores, folder: Path) -> Installation:
        del shape
        port = free_port()
        command = [program, "serve", "--ephemeral", "--bind", f"127.0.0.1:{port}"]
        return Installation([Listener(command, port, cores.nodes, folder)], None)

    return start


def _bare(mode: str) -> Callable[[Shape, Cores, Path], Installation]:
    def start(shape: Shape, cores: Cores, folder: Path) -> Installation:
        del shape
        port = free_port()
        command = [sys.executable, str(ROOT / "bench" / "load" / "bare_server.py"), str(port), mode]
        return Installation([Listener(command, port, cores.nodes, folder)], None)

    return start

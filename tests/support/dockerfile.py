"""A Dockerfile, read, and its build replayed without Docker: in a directory instead of a container's root."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; continued lines are joined."""

    name: str
    rest: str

    @property
    def words(self) -> list[str]:
        """The arguments of the exec form. Raises: ValueError in any other form."""
        words: list[str] = json.loads(self.rest)
        return words


def read_dockerfile(path: Path) -> list[list[Instruction]]:
    """Return the stages, each with its FROM first. Instructions before the first FROM are left out."""
    stages: list[list[Instruction]] = []
    for line in path.read_text().replace("\\\n", " ").splitlines():
        match = re.match(r"([A-Z]+)\s+(.*)", line)
        if match is None:
            continue
        if match[1] == "FROM":
            stages.append([])
        if stages:
            stages[-1].append(Instruction(match[1], match[2].strip()))
    return stages


class Replay:
    """A stage whose absolute paths lie below a directory."""

    def __init__(self, root: Path, context: Path, environment: dict[str, str]) -> None:
        """`context` is the directory to copy from; `environment` that of the base image."""
        self.root = root
        self.directory = root
        self._context = context
        self._environment = dict(environment)

    def run(self, stage: list[Instruction]) -> None:
        """Carry out the file operations of a stage. Raises: CalledProcessError."""
        for instruction in stage:
            match instruction.name:
                case "WORKDIR":
                    self.directory = self.root / instruction.rest.lstrip("/")
                    self.directory.mkdir(parents=True, exist_ok=True)
                case "ENV":
                    self._environment.update(self.variables(instruction))
                case "COPY":
                    self._copy(instruction.rest.split())
                case "RUN":
                    subprocess.run(
                        [self._moved(word) for word in instruction.words],
                        cwd=self.directory,
                        env=self._environment,
                        check=True,
                        capture_output=True,
                        timeout=300,
                    )
                case _:
                    pass

    def variables(self, instruction: Instruction) -> dict[str, str]:
        """Return the variables of an ENV, with their paths moved."""
        pairs = (pair.split("=", 1) for pair in instruction.rest.split())
        return {name: self._moved(value.replace("$PATH", self._environment["PATH"])) for name, value in pairs}

    def _copy(self, words: list[str]) -> None:
        *sources, target = words
        place = self.directory / target
        for source in sources:
            origin = self._context / source
            if origin.is_dir():
                shutil.copytree(origin, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, place)

    def _moved(self, word: str) -> str:
        return re.sub(r"^/(opt|wheels|src)\b", rf"{self.root}/\1", word)

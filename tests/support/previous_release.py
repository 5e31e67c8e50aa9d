"""The previous release of the relay, from the git history: what a rolling update finds in the cluster."""

import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

COMMIT = "7ae5757"
"""The last state before nodes wrote anything that it cannot know of."""

_ROOT = Path(__file__).parents[2]


class PreviousRelease:
    """A tree of the release, which this interpreter runs."""

    program = (sys.executable, "-P", "-m", "cli")

    def __init__(self, folder: Path) -> None:
        self.environment = {"PYTHONPATH": str(folder)}


def previous_release(folder: Path) -> PreviousRelease:
    """Write the release into a folder. Skips the test if the history does not reach back to it."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("there is no git")
    archived = subprocess.run(
        [git, "-C", str(_ROOT), "archive", COMMIT, "cli", "conclave", "relay"], capture_output=True, check=False
    )
    if archived.returncode:
        pytest.skip(f"the git history does not have {COMMIT}: {archived.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(archived.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return PreviousRelease(folder)

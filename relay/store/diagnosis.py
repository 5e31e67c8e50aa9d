"""The reason for a server's end that its last lines give, and the way out: a sentence for the operator. Pure."""

import re
import shlex
from pathlib import Path

_FILES = "appendonlydir"
_CANNOT_WRITE = re.compile(r"AOF write error|writing to the AOF file|No space left on device")
_DAMAGED = re.compile(r"(?:Bad file format|Unexpected end of file) reading the append only file (\S+?)[.:] ")
_MISSING = re.compile(r"AOF file (\S+) (?:length\. stat: No such file|doesn't exist)")
_MANIFEST = re.compile(r"AOF manifest file format")
_NEWER = re.compile(r"Can't handle RDB format version")
_FORBIDDEN = re.compile(r"Permission denied")


def explain(lines: str, directory: Path, program: Path) -> str:
    """Return the sentence for what these lines say of the files in a data directory, or '' if they say nothing."""
    restore = f"restore `{directory}` from a backup"
    if _CANNOT_WRITE.search(lines):
        return (
            f"it cannot write to `{directory}`: the disk is full, or fails; make room there and start again, "
            "nothing that was acknowledged is lost"
        )
    if found := _DAMAGED.search(lines):
        file = directory / _FILES / found[1]
        repair = "" if file.suffix == ".rdb" else f", or {_repair(file, program)}"
        return f"the file `{file}` is damaged; {restore}{repair}"
    if found := _MISSING.search(lines):
        return f"the file `{directory / _FILES / found[1]}` is missing; {restore}"
    if _MANIFEST.search(lines):
        return f"the list of files in `{directory / _FILES}` is damaged; {restore}"
    if _NEWER.search(lines):
        return f"a newer server than `{program}` has written `{directory}`; install that version, or a later one"
    if _FORBIDDEN.search(lines):
        return f"files in `{directory}` belong to another user; give them to the user of this process"
    return ""


def _repair(file: Path, program: Path) -> str:
    """Return what cuts a file off at its damage: the server is its own checker, if it is called by that name."""
    checker = program.name.replace("-server", "-check-aof")
    repair = f"ln -s {shlex.quote(str(program))} {checker} && ./{checker} --fix {shlex.quote(str(file))}"
    return f"to keep what precedes the damage, copy the file and run `{repair}`"

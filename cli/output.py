"""What a command prints: data on standard output, everything else on standard error.

Names and texts from other people pass `conclave.text` on their way here; JSON keeps them as they are, with escapes for
whatever a terminal would act upon.
"""

import os
import re
import signal
import sys
from typing import Any, NoReturn, TextIO

import orjson

from conclave.text import visible

_RED, _PLAIN = "\x1b[31m", "\x1b[0m"
_NOT_SHOWN = re.compile(r"[^ -~]")


def data(line: str) -> None:
    """Print one line of data and flush it: whoever reads a pipe gets it now."""
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _die_of_closed_pipe()


def success(text: str) -> None:
    data(f"✓ {text}")


def document(value: Any) -> None:
    """Print a value as JSON on one line."""
    text = orjson.dumps(value).decode()
    data(_NOT_SHOWN.sub(lambda found: found[0] if found[0].isprintable() else _json_escape(found[0]), text))


def notice(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def failure(text: str) -> None:
    """Print why the command failed: one line whatever the text, and whatever logging is set to."""
    line = f"❌ {visible(text)}"
    notice(f"{_RED}{line}{_PLAIN}" if _colourful(sys.stderr) else line)


def _colourful(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _die_of_closed_pipe() -> NoReturn:
    """End as every Unix filter ends whose reader has seen enough: quietly, by SIGPIPE.

    The signal is not left to its default from the start, because a socket that a server closed raises it, too.
    """
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.raise_signal(signal.SIGPIPE)
    os._exit(1)

"""Output of commands: data on standard output, everything else on standard error.

Names and texts from other people pass `conclave.text` on their way here; JSON keeps them as they are, with escapes for
characters that a terminal would act upon.
"""

import os
import re
import signal
import sys
from typing import Any, NoReturn, TextIO

from conclave.text import visible

_RED, _PLAIN = "\x1b[31m", "\x1b[0m"
_NOT_SHOWN = re.compile(r"[^ -~]")


def data(line: str) -> None:
    """Print one line of data and flush it, so that the reader of a pipe gets it immediately."""
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _die_of_closed_pipe()


def success(text: str) -> None:
    data(f"✓ {text}")


def document(value: Any) -> None:
    """Print a value as JSON on one line."""
    import orjson  # noqa: PLC0415 - not needed without --json

    text = orjson.dumps(value).decode()
    data(_NOT_SHOWN.sub(lambda found: found[0] if found[0].isprintable() else _json_escape(found[0]), text))


def notice(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def failure(text: str) -> None:
    """Print the reason of a failure: always one line, independent of the log level."""
    line = f"❌ {visible(text)}"
    notice(f"{_RED}{line}{_PLAIN}" if _colourful(sys.stderr) else line)


def _colourful(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _die_of_closed_pipe() -> NoReturn:
    """End by SIGPIPE, silently, as a Unix filter does when its reader is gone.

    SIGPIPE does not have its default action from the start, because a socket that the server closed raises it, too.
    """
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.raise_signal(signal.SIGPIPE)
    os._exit(1)

"""`python -m cli.supervised VERB…`: the command line, ended when its standard input does.

Whoever starts it so holds the other end of a pipe, and the pipe closes even if that process is killed. This holds on
every Unix, where only Linux could end a child with its parent.
"""

import os
import signal
import sys
import threading
import time

from cli.main import main

GRACE_SECONDS = 10.0
"""From SIGTERM to SIGKILL."""


def _end_with_standard_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    sys.exit(main())

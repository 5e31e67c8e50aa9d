"""`python -m cli.supervised VERB…`: the command line, which ends when its standard input does.

The supervisor holds the other end of a pipe, and the kernel closes the pipe even if the supervisor is killed. This
works on every Unix; only Linux can bind the life of a child to its parent by other means.
"""

import os
import signal
import sys
import threading
import time

from cli.main import main

GRACE_SECONDS = 10.0
"""The time from SIGTERM to SIGKILL."""


def _end_with_standard_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    sys.exit(main())

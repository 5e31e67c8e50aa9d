"""The program of `helm test`: a user registers, joins a channel and receives there what another session posts.

It runs in the image. It reads SERVER (a ws:// or wss:// URL) and EXPECT_REGISTRATION (the server's policy) from the
environment, and keeps its key in /keys, or in KEYS. It leaves behind a user `helm-test-…`, and removes the channel.
"""

import os
import secrets
import select
import subprocess
import sys
import time

SERVER = os.environ["SERVER"]
KEYS = os.environ.get("KEYS", "/keys")
SECONDS = 30


def conclave(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one verb against the server; returns its result whatever the exit code."""
    command = ["conclave", "--config-dir", KEYS, *verb.split(), "--server", SERVER, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    print(f"$ conclave {verb} {' '.join(words)}\n{done.stdout}{done.stderr}".rstrip(), flush=True)
    return done


def succeed(verb: str, *words: str) -> None:
    if conclave(verb, *words).returncode != 0:
        sys.exit(f"FAILED: conclave {verb}")


def is_delivered(channel: str, text: str) -> bool:
    """Post a text; return whether another session, which follows the channel, receives it in time."""
    command = ["conclave", "--config-dir", KEYS, "tail", "--server", SERVER, "--channel", channel, "--as", "listener"]
    with subprocess.Popen([*command, "--since", "1m"], stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        try:
            succeed("send", "--channel", channel, text)
            deadline = time.monotonic() + SECONDS
            received = b""
            while (left := deadline - time.monotonic()) > 0:
                if select.select([follower.stdout], [], [], left)[0]:
                    new = os.read(follower.stdout.fileno(), 65536)
                    received += new
                    if text.encode() in received:
                        return True
                    if not new:
                        return False
            return False
        finally:
            follower.kill()


def main() -> None:
    name = f"helm-test-{secrets.token_hex(4)}"
    if os.environ.get("EXPECT_REGISTRATION", "open") != "open":
        refusal = conclave("register", "--username", name, "--machine", "test")
        if refusal.returncode == 0 or "registration" not in refusal.stderr:
            sys.exit("FAILED: the server should have refused the registration")
        print("PASSED: the server answers, and registers nobody whom it does not know")
        return
    succeed("register", "--username", name, "--machine", "test")
    succeed("channel create", name)
    succeed("join", name)
    if not is_delivered(name, "hello from helm test"):
        sys.exit("FAILED: the message did not arrive")
    succeed("channel delete", name)
    print("PASSED: registered, joined, and heard a message")


main()

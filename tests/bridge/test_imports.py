"""A bridge runs beside every open session: what it does not need must not be loaded."""

import subprocess
import sys

HEAVY = {"aiohttp", "click", "structlog", "tomlkit", "filelock", "redis", "watchfiles"}


def test_the_policy_and_the_texts_need_no_network_and_no_command_line() -> None:
    """They are loaded before the first message from Claude Code."""
    program = (
        "import sys, bridge.connection.handles, bridge.session.presentation, bridge.session.levels\n"
        "import bridge.app.config_watch, bridge.session.watermarks\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert HEAVY & set(loaded.stdout.split()) == set()

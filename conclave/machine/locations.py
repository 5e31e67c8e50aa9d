"""The places of the machine's key and configuration.

A module of its own, because a command that reads neither must not pay for the import of what parses them.
"""

from pathlib import Path

CONFIG_NAME = "config.toml"
KEY_NAME = "key"


def default_directory() -> Path:
    """Return the directory of both unless the user chooses another: the system's place for a user's configuration."""
    from platformdirs import user_config_path  # noqa: PLC0415 - not needed with --config-dir

    return user_config_path("conclave", appauthor=False, roaming=True)

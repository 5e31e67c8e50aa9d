"""The values of the global flags: the locations of the key and the configuration, and verbosity."""

from pathlib import Path

import click

from conclave.machine.locations import CONFIG_NAME, KEY_NAME, default_directory

_DIRECTORY = "conclave.config_directory"
_VERBOSE = "conclave.verbose"


def set_config_directory(context: click.Context, value: str) -> None:
    context.meta[_DIRECTORY] = Path(value)  # shared by all contexts of one command line


def config_directory() -> Path:
    chosen = click.get_current_context().meta.get(_DIRECTORY)
    return chosen if isinstance(chosen, Path) else default_directory()


def state_directory() -> Path:
    """Return the directory of a bridge's persistent state: beside the configuration if --config-dir is given."""
    if isinstance(click.get_current_context().meta.get(_DIRECTORY), Path):
        return config_directory() / "state"
    from platformdirs import user_state_path  # noqa: PLC0415 - not needed with --config-dir

    return user_state_path("conclave", appauthor=False)


def key_path() -> Path:
    return config_directory() / KEY_NAME


def config_path() -> Path:
    return config_directory() / CONFIG_NAME


def set_verbose(context: click.Context) -> None:
    context.meta[_VERBOSE] = True


def verbose() -> bool:
    return bool(click.get_current_context().meta.get(_VERBOSE))

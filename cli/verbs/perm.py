"""`conclave perm`: the autonomy levels in this machine's configuration. Offline."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from cli import output
from cli.lazy import VerbGroup
from cli.settings import config_path
from conclave.errors import ConfigError
from conclave.machine.config import Level, LocalConfig, Override, load
from conclave.text import visible
from conclave.urls import check_url

WHISPERS = "<whisper>"
"""Stands for whispers in the place of a channel."""

_UPDATED = "permission updated: bridges follow it at once, also those that are running"

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Scope(msgspec.Struct, frozen=True):
    """One channel of a server; without a channel, whispers there."""

    server: str
    channel: str | None

    def __str__(self) -> str:
        return f"{visible(self.server)} {WHISPERS if self.channel is None else visible(self.channel)}"


def permission_lines(config: LocalConfig) -> list[str]:
    """Return the permission table: the default, each override in the file's order, the ceiling."""
    return [
        f"default: {config.default_permission.value}",
        *(f"{Scope(entry.server, entry.channel)} -> {entry.level.value}" for entry in config.overrides),
        f"ceiling: {config.permission_ceiling.value}",
    ]


def permission_value(config: LocalConfig) -> dict[str, Any]:
    """Return the same table for `--json`."""
    return {
        "default_permission": config.default_permission.value,
        "overrides": msgspec.to_builtins(config.overrides),
        "permission_ceiling": config.permission_ceiling.value,
    }


def _scope_options(command: _Command) -> _Command:
    for option in (
        click.option("--whisper", is_flag=True, help="The whispers of the server."),
        click.option("--channel", help="One channel of the server."),
        click.option("--server", metavar="URL", help="The server; with --channel or --whisper."),
        click.option("--ceiling", is_flag=True, help="The highest level that an agent may set for its own session."),
    ):
        command = option(command)
    return command


def _scope(ceiling: bool, server: str | None, channel: str | None, whisper: bool) -> Scope | None:
    """Return the scope that the options name; None stands for the default level or the ceiling.

    Raises:
        ConfigError: for an incomplete scope, or two scopes.
    """
    if ceiling and (server is not None or channel is not None or whisper):
        raise ConfigError("--ceiling holds everywhere: it takes no --server, --channel or --whisper")
    if channel is not None and whisper:
        raise ConfigError("--channel and --whisper are mutually exclusive")
    if server is None:
        if channel is not None or whisper:
            raise ConfigError("--channel / --whisper require --server")
        return None
    if channel is None and not whisper:
        raise ConfigError("--server needs an explicit scope: pass --channel <name> or --whisper")
    return Scope(server, channel)


@click.group("perm", cls=VerbGroup, example="conclave perm set converse --server wss://chat.example --channel ops")
def command() -> None:
    """Permission levels of agents: mute, notify, converse or act. Offline.

    A channel, or the whispers of a server, may have a level of its own; the default level applies to everything else.
    An agent may change the levels of its own session, up to the ceiling or the level that you have set here, whichever
    is higher.
    """


@command.command(
    "set",
    example=[
        "conclave perm set notify",
        "conclave perm set converse --server wss://chat.example --channel ops",
        "conclave perm set mute --server wss://chat.example --whisper",
        "conclave perm set act --ceiling",
    ],
)
@click.argument("level")
@_scope_options
def set_(level: str, ceiling: bool, server: str | None, channel: str | None, whisper: bool) -> None:
    """Set the level of a channel, of whispers, or the default level; or the ceiling.

    mute: the agent does not receive messages. notify: it tells its user about them. converse: it may also answer. act:
    it may also do what they ask.
    """
    from conclave.machine import config_edit  # noqa: PLC0415 - reading takes no editor of TOML

    scope, chosen = _scope(ceiling, server, channel, whisper), Level.parse(level)
    if ceiling:
        config_edit.set_ceiling(config_path(), chosen)
    elif scope is None:
        config_edit.set_default(config_path(), chosen)
    else:
        config_edit.set_override(config_path(), Override(check_url(scope.server), chosen, scope.channel))
    output.success(_UPDATED)


@command.command("unset", example="conclave perm unset --server wss://chat.example --channel ops")
@_scope_options
def unset(ceiling: bool, server: str | None, channel: str | None, whisper: bool) -> None:
    """Remove the level of a channel or of whispers, so that the default applies; without options, reset the default."""
    from conclave.machine import config_edit  # noqa: PLC0415 - reading takes no editor of TOML

    scope = _scope(ceiling, server, channel, whisper)
    if ceiling:
        if not config_edit.unset_ceiling(config_path()):
            raise ConfigError(f"no ceiling is set; it is {LocalConfig().permission_ceiling.value}")
    elif scope is None:
        if not config_edit.unset_default(config_path()):
            raise ConfigError(f"no default level is set; it is {LocalConfig().default_permission.value}")
    elif not config_edit.remove_override(config_path(), scope.server, scope.channel):
        raise ConfigError(f"no override for {scope} (see `conclave perm show`)")
    output.success(_UPDATED)


@command.command("show", example="conclave perm show")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def show(as_json: bool) -> None:
    """Show the default level, every override, and the ceiling."""
    config = load(config_path())
    if as_json:
        output.document(permission_value(config))
        return
    for line in permission_lines(config):
        output.data(line)

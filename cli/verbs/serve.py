"""`conclave serve`: the flags of a node."""

import os
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cli.lazy import Verb
from cli.settings import verbose
from conclave.errors import ConfigError

_STORES = ("redis_url", "data_dir", "ephemeral")


class _Several(click.ParamType[str]):
    """One value per flag; in the environment, several values separated by commas."""

    envvar_list_splitter = ","

    def __init__(self, name: str) -> None:
        self.name = name


@click.command(
    "serve",
    cls=Verb,
    example=[
        "conclave serve --data-dir /var/lib/conclave",
        "conclave serve --redis-url redis://redis:6379/0 --admin ann",
    ],
)
@click.option(
    "--bind",
    envvar="CONCLAVE_BIND",
    default="0.0.0.0:4390",
    show_default=True,
    show_envvar=True,
    metavar="HOST:PORT",
    help="The address to listen on.",
)
@click.option(
    "--data-dir",
    envvar="CONCLAVE_DATA_DIR",
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Run one durable relay without a Redis: all data is in this directory.",
)
@click.option(
    "--redis-url",
    envvar="CONCLAVE_REDIS_URL",
    show_envvar=True,
    metavar="URL",
    help="Run one node of a cluster on this Redis: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://.",
)
@click.option(
    "--redis-read-url",
    envvar="CONCLAVE_REDIS_READ_URL",
    show_envvar=True,
    metavar="URL",
    help="A read replica of that Redis, near this node: live messages and pages of history come from it.",
)
@click.option(
    "--ephemeral", is_flag=True, help="Run one throwaway relay: all data is in memory and ends with the process."
)
@click.option(
    "--admin",
    "admins",
    type=_Several("USER[=PUBKEY]"),
    multiple=True,
    envvar="CONCLAVE_ADMINS",
    show_envvar=True,
    help="An admin of the server, preferably pinned to a key; repeatable, or several separated by commas.",
)
@click.option(
    "--registration",
    type=click.Choice(["open", "closed", "invite"]),
    envvar="CONCLAVE_REGISTRATION",
    default="open",
    show_default=True,
    show_envvar=True,
    help="Who may register: everybody, only the admins named here, or also users with a server invite.",
)
@click.option(
    "--presence",
    type=click.Choice(["everyone", "shared"]),
    envvar="CONCLAVE_PRESENCE",
    default="everyone",
    show_default=True,
    show_envvar=True,
    help="The sessions that `who` shows without a channel: all, or those of users who share a channel with the caller.",
)
@click.option(
    "--public-url",
    "public_urls",
    type=_Several("URL"),
    multiple=True,
    envvar="CONCLAVE_PUBLIC_URLS",
    show_envvar=True,
    help="The URL at which clients reach this relay, such as wss://chat.example; repeatable, or several separated by "
    "commas. If given, a login that was signed for another address is refused.",
)
@click.option(
    "--max-message-bytes",
    type=click.IntRange(min=1),
    default=1024 * 1024,
    show_default=True,
    metavar="BYTES",
    help="The maximum size of a message body, 1024 to 2621440.",
)
@click.option(
    "--workers",
    envvar="CONCLAVE_WORKERS",
    default="1",
    show_default=True,
    show_envvar=True,
    metavar="N|auto",
    help="The number of processes that share the port, each a node of its own; auto is one per core.",
)
@click.option(
    "--metrics-bind",
    envvar="CONCLAVE_METRICS_BIND",
    show_envvar=True,
    metavar="HOST:PORT",
    help="Serve /metrics at this address instead of the WebSocket's; /health and /ready are served at both.",
)
@click.option(
    "--drain-delay",
    type=float,
    envvar="CONCLAVE_DRAIN_DELAY",
    show_default="5 with --redis-url, else 0",
    show_envvar=True,
    metavar="SECONDS",
    help="The time after SIGTERM in which the node still serves but /ready answers 503, so that load balancers notice.",
)
@click.option(
    "--drain-seconds",
    type=float,
    envvar="CONCLAVE_DRAIN_SECONDS",
    show_default="20 with --redis-url, else 0",
    show_envvar=True,
    metavar="SECONDS",
    help="The time over which the sessions are then closed, evenly.",
)
@click.option(
    "--max-gather-ms",
    type=float,
    envvar="CONCLAVE_MAX_GATHER_MS",
    default=10.0,
    show_default=True,
    show_envvar=True,
    metavar="MS",
    help="The longest time for which a busy node gathers events of a session into one write; 0 for none, up to 1000.",
)
@click.option(
    "--key-prefix",
    envvar="CONCLAVE_KEY_PREFIX",
    default="conclave",
    show_default=True,
    show_envvar=True,
    help="The prefix of all keys in Redis; one per cluster.",
)
@click.pass_context
def command(context: click.Context, /, **flags: Any) -> None:
    """Run a relay, or one node of a cluster.

    Exactly one store is required: --data-dir, --redis-url or --ephemeral. A store on the command line overrides those
    in the environment. CONCLAVE_REDIS_PASSWORD, which has no flag, is the password of a Redis URL without one. SIGTERM
    or SIGINT closes the sessions, each with a reason, and ends the relay; a second signal ends it immediately.
    """
    if any(_is_typed(context, store) for store in _STORES):
        for store in _STORES:
            if not _is_typed(context, store):
                flags[store] = False if store == "ephemeral" else None
        if flags["redis_url"] is None and not _is_typed(context, "redis_read_url"):
            flags["redis_read_url"] = None
    _run(flags)


def _is_typed(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _run(flags: dict[str, Any]) -> None:
    """Start the node. The relay is imported only here."""
    from relay.app.config import parse_config  # noqa: PLC0415
    from relay.launch.serve import run  # noqa: PLC0415
    from relay.observability import log_levels, logs  # noqa: PLC0415

    try:
        config = parse_config(**flags, redis_password=os.environ.get("CONCLAVE_REDIS_PASSWORD"))
        log_levels.level(os.environ)
        logs.is_json(os.environ)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    run(config, verbose=verbose())

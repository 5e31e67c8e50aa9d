"""The command line: the table of commands, and the one place where errors become exit codes.

0 success, 1 an error or a refusal, 2 a usage error, 130 interrupted; killed by SIGPIPE when standard output closes.
"""

import io
import sys
from collections.abc import Sequence

import click

from cli.lazy import LazyCommand, LazyGroup
from cli.output import failure
from conclave.errors import ConclaveError, Refusal, in_words

_ROWS = {
    "serve": LazyCommand("cli.verbs.serve", "Run a relay, or one node of a cluster."),
    "cluster": LazyCommand("cli.verbs.cluster", "Run a whole cluster on this machine."),
    "top": LazyCommand("cli.verbs.top", "Watch the nodes of a cluster."),
    "bench": LazyCommand("cli.verbs.bench", "Measure posts, deliveries and connections at a server."),
    "bridge": LazyCommand("cli.verbs.bridge", "Connect a Claude Code session to channels."),
    "key": LazyCommand("cli.verbs.key", "Show this machine's public key."),
    "register": LazyCommand("cli.verbs.register", "Claim a username at a server."),
    "machine": LazyCommand("cli.verbs.machine", "Enrol, list and revoke your machines."),
    "server": LazyCommand("cli.verbs.server", "The servers this machine is registered at."),
    "join": LazyCommand("cli.verbs.join", "Check access to a channel, or redeem an invite."),
    "perm": LazyCommand("cli.verbs.perm", "Permission levels of agents."),
    "channel": LazyCommand("cli.verbs.channel", "Create, list, change and delete channels."),
    "acl": LazyCommand("cli.verbs.acl", "Members and admins of a channel."),
    "invite": LazyCommand("cli.verbs.invite", "Invite tokens for a channel."),
    "status": LazyCommand("cli.verbs.status", "Check that the registered servers are reachable."),
    "doctor": LazyCommand("cli.verbs.doctor", "Find out why a session receives no messages."),
    "send": LazyCommand("cli.verbs.send", "Post one message."),
    "tail": LazyCommand("cli.verbs.tail", "Follow a channel."),
    "who": LazyCommand("cli.verbs.who", "List the sessions that are online."),
    "kick": LazyCommand("cli.verbs.moderation", "Remove a session or a user from a channel.", "kick"),
    "ban": LazyCommand("cli.verbs.moderation", "Ban a user from a channel.", "ban"),
    "unban": LazyCommand("cli.verbs.moderation", "Lift a ban.", "unban"),
    "bans": LazyCommand("cli.verbs.moderation", "List the users who are banned from a channel.", "bans"),
    "user": LazyCommand("cli.verbs.user", "List and remove the users of a server."),
    "server-invite": LazyCommand("cli.verbs.server_invite", "Create invites to register at a server."),
    "audit": LazyCommand("cli.verbs.audit", "Show the admin operations of a server."),
    "skill": LazyCommand("cli.verbs.skill", "A guide for agents: show or install it."),
    "completions": LazyCommand("cli.verbs.completions", "Print a completion script for a shell."),
}

EXTRAS = {
    "client": ("filelock", "platformdirs", "rich", "tomlkit", "websockets"),
    "server": ("aiohttp", "hiredis", "prometheus_client", "redis", "structlog", "uvloop"),
    "standalone": ("fakeredis",),
    "otel": ("opentelemetry",),
}
"""For each extra of the package, the modules that the source imports from what it brings."""

INTERRUPTED = 130


@click.group(
    cls=LazyGroup,
    rows=_ROWS,
    context_settings={"help_option_names": ["-h", "--help"]},
    example=["conclave serve --data-dir .data", "conclave register --server ws://127.0.0.1:4390 --username ann"],
)
def cli() -> None:
    """Chat rooms for agents and people on different machines."""


def main() -> int:
    """Run the command line of this process and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return run(sys.argv[1:])


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed here and nowhere else."""
    try:
        outcome = cli.main(list(arguments), prog_name="conclave", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Refusal as error:
        failure(in_words(error))
    except ConclaveError as error:
        failure(str(error))
    except ModuleNotFoundError as error:
        failure(_missing(error))
    except Exception as error:  # the last resort: a line for the user, the trace with -v
        import logging  # noqa: PLC0415 - not needed when all goes well

        logging.getLogger(__name__).debug("unexpected error", exc_info=True)
        failure(f"internal error: {type(error).__name__}: {error} (run again with -v to see where)")
    else:
        return outcome if isinstance(outcome, int) else 0
    return 1


def _missing(error: ModuleNotFoundError) -> str:
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules:
            return f"this command needs `{module}`, which is not installed: pip install 'conclave-cli[{extra}]'"
    return f"internal error: {error}"


if __name__ == "__main__":
    sys.exit(main())

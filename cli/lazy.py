"""Commands that are imported on use, and global flags that may stand anywhere on the command line."""

import importlib
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import click

from cli.settings import set_config_directory, set_verbose
from conclave import __version__


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"conclave {__version__}")
        context.exit()


def _set_directory(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        set_config_directory(context, value)


def _set_verbose(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        import logging  # noqa: PLC0415 - not needed without the flag

        set_verbose(context)
        logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("asyncio").setLevel(logging.INFO)


class GlobalOption(click.Option):
    """An option that every command takes."""


def _global_options() -> list[click.Parameter]:
    return [
        GlobalOption(
            ["--config-dir"],
            metavar="PATH",
            expose_value=False,
            callback=_set_directory,
            help="Directory of the key and config.toml.",
        ),
        GlobalOption(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_set_verbose,
            help="Log what happens, on standard error.",
        ),
        GlobalOption(
            ["-V", "--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Print the version and exit.",
        ),
    ]


class _Example(click.Command):
    """A verb or group: it takes the global flags, and its help ends with an example."""

    def __init__(self, *args: Any, example: str | Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = [example] if isinstance(example, str) else list(example)
        self.params.extend(_global_options())

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        if self.example:
            with formatter.section("Example"):
                for line in self.example:
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Verb(_Example):
    """A command that does something."""


class VerbGroup(_Example, click.Group):
    """A noun whose subcommands are verbs."""

    command_class: ClassVar[type[click.Command] | None] = Verb  # type: ignore[misc] # click declares no ClassVar


class LazyCommand(NamedTuple):
    """One command of the first level: its module, its line in the help, and its name in that module."""

    module: str
    summary: str
    attribute: str = "command"

    def load(self) -> click.Command:
        command: click.Command = getattr(importlib.import_module(self.module), self.attribute)
        return command


class LazyGroup(VerbGroup):
    """The first level. A command's module is imported when that command runs or shows its own help."""

    def __init__(self, *args: Any, rows: dict[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rows = rows

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        row = self.rows.get(cmd_name)
        return None if row is None else row.load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, row.summary) for name, row in self.rows.items()])

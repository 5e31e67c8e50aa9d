"""The help of all commands as one text, the same on every machine."""

import copy

import click

from cli.lazy import GlobalOption

_WIDTH = 100


def command_reference(root: click.Group) -> str:
    """Return the help of every command of the tree, in the order of the help, as Markdown.

    The text does not depend on the terminal or the environment. Options that every command takes are left out.
    """
    context = click.Context(root, info_name="conclave", terminal_width=_WIDTH, max_content_width=_WIDTH)
    return "\n".join(_sections(root, context))


def _sections(group: click.Group, context: click.Context) -> list[str]:
    sections = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, parent=context, info_name=name)
        sections.append(f"### `{inner.command_path}`\n\n```text\n{_help(command, inner)}\n```\n")
        if isinstance(command, click.Group):
            sections += _sections(command, inner)
    return sections


def _help(command: click.Command, context: click.Context) -> str:
    bare = copy.copy(command)
    bare.add_help_option = False
    bare.params = [parameter for parameter in command.params if not isinstance(parameter, GlobalOption)]
    return bare.get_help(context)

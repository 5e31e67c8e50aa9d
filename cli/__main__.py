"""The program `conclave`, also as `python -m cli`: the version, or the command line."""

import sys

from conclave import __version__


def main() -> int:
    """Run the command line of this process and return its exit code.

    The version alone is printed before the command line is imported, which takes three times as long as the rest.
    """
    if sys.argv[1:] in (["--version"], ["-V"]):
        sys.stdout.write(f"conclave {__version__}\n")
        return 0
    from cli.main import main as command_line  # noqa: PLC0415

    return command_line()


if __name__ == "__main__":
    sys.exit(main())

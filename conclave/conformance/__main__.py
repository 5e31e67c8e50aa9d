"""The program `conclave-conformance`, and `python -m conclave.conformance` where that is not installed."""

import sys


def run() -> None:
    """Run it, or say which part of the installation it needs."""
    try:
        from conclave.conformance.command import main  # noqa: PLC0415 - of the extra `client`
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{error.name} is missing; it comes with: pip install 'conclave-cli[client]'\n")
        sys.exit(2)
    main()


if __name__ == "__main__":
    run()

"""The log level, by our variable and by the original's."""

import logging

import pytest

from conclave.errors import ConfigError
from relay.observability.log_levels import OFF, level


@pytest.mark.parametrize(
    ("environment", "verbose", "expected"),
    [
        ({}, False, logging.INFO),
        ({}, True, logging.DEBUG),
        ({"CONCLAVE_LOG": ""}, True, logging.DEBUG),
        ({"CONCLAVE_LOG": "Warning"}, False, logging.WARNING),
        ({"CONCLAVE_LOG": "warn"}, False, logging.WARNING),
        ({"CONCLAVE_LOG": "TRACE"}, False, logging.DEBUG),
        ({"CONCLAVE_LOG": "off", "RUST_LOG": "debug"}, True, OFF),
        ({"CONCLAVE_LOG": "error", "RUST_LOG": "debug"}, False, logging.ERROR),
        ({"RUST_LOG": "warn"}, True, logging.WARNING),
        ({"RUST_LOG": " "}, True, logging.DEBUG),
    ],
)
def test_the_environment_decides_before_the_flag(environment: dict[str, str], verbose: bool, expected: int) -> None:
    """As it did in the original; our own variable before the one that other programs share."""
    assert level(environment, verbose=verbose) == expected


@pytest.mark.parametrize("word", ["loud", "everything", "info,debug", "20"])
def test_an_unknown_level_is_refused_with_a_list_of_the_levels(word: str) -> None:
    """A typing error must not silence a relay, nor fill its disk."""
    with pytest.raises(ConfigError, match=r"\(expected debug, info, warning, error, off\)"):
        level({"CONCLAVE_LOG": word})


@pytest.mark.parametrize(
    ("directives", "expected"),
    [
        ("trace", logging.DEBUG),
        ("OFF", OFF),
        ("info,conclavelib=debug", logging.DEBUG),
        ("conclave=debug,warn", logging.DEBUG),
        ("debug,conclave=error", logging.ERROR),
        ("conclave=warn , conclave_cli=info", logging.INFO),
        ("warn,hyper=trace", logging.WARNING),
        ("hyper=trace", logging.INFO),
        ("conclave::store=trace", logging.INFO),
        ("conclave[post]=trace,error", logging.ERROR),
        ("conclave=loud,error", logging.ERROR),
        ("error,warn", logging.WARNING),
        ("=,,x=y=z,hyper", logging.INFO),
    ],
)
def test_of_rust_log_what_concerns_this_program_is_taken(directives: str, expected: int) -> None:
    """A user of the original keeps the setting; directives for other programs are no error."""
    assert level({"RUST_LOG": directives}) == expected

"""Logs: what a peer sent stays inside its field, and what it trusted us with stays out."""

import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog

from relay import logs

SECRET = "the body of a message"


@pytest.fixture(params=["text", "json"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Configured logging in either form, and afterwards what was before."""
    monkeypatch.setenv("CONCLAVE_LOG_FORMAT", request.param)
    before = logging.getLogger().handlers[:]
    yield request.param
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = before


def fail_with_a_secret_in_hand() -> None:
    body = SECRET
    raise ValueError(len(body))


@pytest.mark.usefixtures("form")
def test_a_trace_shows_no_local_values(capsys: pytest.CaptureFixture[str]) -> None:
    """A defect in a handler must not put the message that it was handling into the operator's logs."""
    logs.configure()
    try:
        fail_with_a_secret_in_hand()
    except ValueError:
        structlog.get_logger().exception("request.failed")
        logging.getLogger("elsewhere").exception("failed")
    written = capsys.readouterr().err
    assert written.count("ValueError") >= 2
    assert SECRET not in written


def test_a_value_cannot_forge_a_line(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name with a line break or an escape sequence is one field of one line."""
    logs.configure()
    structlog.get_logger().info("login.refused", user="ann\n[error] forged \x1b[31m")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "\x1b" not in lines[0]
    if form == "json":
        assert orjson.loads(lines[0])["user"] == "ann\n[error] forged \x1b[31m"

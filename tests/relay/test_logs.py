"""Logs: what a peer sent stays inside its field, and what it trusted us with stays out."""

import asyncio
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import structlog
from aiohttp.http_exceptions import BadHttpMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conclave.errors import Code, ConfigError, Refusal
from relay.observability import logs

SECRET = "the body of a message"
FORGERY = "ann\n2026-01-01T00:00:00Z [error    ] forged \x1b[31m\r\x85\u2028\u202e\x9b"


@pytest.fixture(params=["text", "JSON"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Configured logging in either form, and afterwards what was before."""
    monkeypatch.setenv("CONCLAVE_LOG_FORMAT", request.param)
    monkeypatch.delenv("CONCLAVE_LOG", raising=False)
    monkeypatch.delenv("RUST_LOG", raising=False)
    handlers, level, strays = logging.getLogger().handlers[:], logging.getLogger().level, sys.unraisablehook
    yield request.param
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.captureWarnings(False)
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    sys.unraisablehook = strays


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


def _log_event(value: str) -> None:
    structlog.get_logger().info("login.refused", user=value, several=[value])


def _as_a_library(value: str) -> None:
    logging.getLogger("aiohttp.server").error("Error handling %s", value)


def _as_a_warning(value: str) -> None:
    warnings.warn(value, stacklevel=1)


def _refuse(value: str) -> None:
    raise Refusal(Code.CONFLICT, value)


def _as_an_exception(value: str) -> None:
    try:
        _refuse(value)
    except Refusal:
        structlog.get_logger().exception("request.failed")


@pytest.mark.parametrize("speak", [_log_event, _as_a_library, _as_a_warning, _as_an_exception])
@pytest.mark.filterwarnings("default")
def test_a_value_cannot_forge_a_line(
    form: str, speak: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A name with a line break or an escape sequence is one field of one line, in events of any source."""
    logs.configure()
    speak(FORGERY)
    written = capsys.readouterr().err
    assert written.removesuffix("\n").replace("\n", "").isprintable()
    lines = written.splitlines()
    assert [line for line in lines if "forged" in line]
    assert not [line for line in lines[1:] if not line.startswith("    ")], "only a trace goes on, set in"
    if form == "JSON":
        (line,) = lines
        fields = orjson.loads(line)
        shown = (fields["event"], fields.get("user"), fields.get("exception", {}).get("message"))
        assert any(text and FORGERY in text for text in shown)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(st.characters()) | st.binary().map(lambda raw: raw.decode(errors="surrogateescape")))
def test_any_text_is_one_line(form: str, capsys: pytest.CaptureFixture[str], value: str) -> None:
    """Half a surrogate pair included: what cannot be encoded must not end in an exception out of a log call."""
    logs.configure()
    structlog.get_logger().info("said", value=value)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].isprintable()
    if form == "JSON" and value.isprintable() and len(value) <= 1000:
        assert orjson.loads(lines[0])["value"] == value


@pytest.mark.usefixtures("form")
def test_a_value_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """A value from a peer may be as long as a frame; its line in the log is not."""
    logs.configure()
    structlog.get_logger().info("said", value="x" * 100_000, several=["y" * 100_000])
    assert len(capsys.readouterr().err) < 3000


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("kind", [ValueError, KeyError, RuntimeError, TypeError, UnicodeError, Exception])
def test_values_in_an_exception_are_not_shown(kind: type[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    """A converter's complaint names the value that it could not convert: that value may be anything."""
    logs.configure()
    several = ExceptionGroup(SECRET, [kind(SECRET)])
    several.__cause__ = kind(SECRET)
    try:
        _raise(several)
    except ExceptionGroup:
        structlog.get_logger().exception("request.failed")
        logging.getLogger("elsewhere").exception("failed")
    written = capsys.readouterr().err
    assert written.count(kind.__name__) >= 4
    assert "in _raise" in written, "where it happened is shown"
    assert SECRET not in written


@pytest.mark.usefixtures("form")
def test_texts_of_python_and_of_the_system_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Their texts consist of names in the code, or come from a list."""
    logs.configure()
    for fail in (lambda: None.missing, lambda: open("/does/not/exist")):  # type: ignore[attr-defined] # noqa: SIM115, PTH123
        try:
            fail()
        except (AttributeError, OSError):
            structlog.get_logger().exception("request.failed")
    written = capsys.readouterr().err
    assert "has no attribute" in written
    assert "No such file or directory" in written


@pytest.mark.usefixtures("form")
async def test_an_uncaught_exception_is_logged_without_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    """The event loop's own text quotes the arguments of a callback, which may be sent by a peer."""
    logs.configure()
    loop = asyncio.get_running_loop()
    logs.log_uncaught(loop)

    def handle(body: str) -> None:
        raise ValueError(body)

    loop.call_soon(handle, SECRET)
    await asyncio.sleep(0)
    task = asyncio.create_task(_fail(SECRET))
    await asyncio.wait([task])
    del task
    written = capsys.readouterr().err
    assert written.count("loop.error") == 2
    assert written.count("ValueError") >= 2
    assert SECRET not in written


async def _fail(body: str) -> None:
    raise ValueError(body)


@pytest.mark.usefixtures("form")
def test_a_librarys_mistake_in_logging_shows_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    """The standard library would print the arguments, with a trace, past every form."""
    logs.configure()
    logging.getLogger("elsewhere").warning("%d bytes", SECRET)
    logging.getLogger("aiohttp.server").error("bad", exc_info=(BadHttpMessage, BadHttpMessage(SECRET), None))
    written = capsys.readouterr().err
    assert "%d bytes" in written
    assert SECRET not in written


@pytest.mark.parametrize(("word", "expected"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1), ("off", 0)])
@pytest.mark.usefixtures("form")
def test_the_level_is_one_for_all(
    word: str, expected: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For our own events, and for what libraries have to complain about."""
    monkeypatch.setenv("CONCLAVE_LOG", word)
    logs.configure()
    log: Any = structlog.get_logger()
    for say in (log.debug, log.info, log.warning, log.error):
        say("ours")
    assert capsys.readouterr().err.count("ours") == expected
    logging.getLogger("elsewhere").info("theirs")
    logging.getLogger("elsewhere").warning("theirs")
    logging.getLogger("elsewhere").log(35, "theirs")
    assert capsys.readouterr().err.count("theirs") == (2 if expected >= 2 else 0)


def test_an_unknown_level_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is served."""
    monkeypatch.setenv("CONCLAVE_LOG", "loud")
    with pytest.raises(ConfigError, match="invalid CONCLAVE_LOG `loud`"):
        logs.configure()


@pytest.mark.parametrize(
    ("word", "expected"), [(None, False), ("", False), (" Text ", False), ("json", True), ("JSON", True)]
)
def test_the_form_is_text_unless_json_is_set(word: str | None, expected: bool) -> None:
    """An empty variable is none, as a chart may set it."""
    assert logs.is_json({} if word is None else {"CONCLAVE_LOG_FORMAT": word}) is expected


def test_an_unknown_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that expects JSON loses text, and the operator would notice it too late."""
    monkeypatch.setenv("CONCLAVE_LOG_FORMAT", "jsno")
    monkeypatch.setenv("CONCLAVE_LOG", "off")
    with pytest.raises(ConfigError, match=r"invalid CONCLAVE_LOG_FORMAT `jsno` \(expected text, json\)"):
        logs.configure()


async def test_a_line_of_a_task_names_its_node_and_session(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines without node and session cannot be correlated; the node may change its name."""
    assert form
    logs.configure()
    names = iter(["first", "second"])

    async def serve() -> None:
        logs.bind_session("ann/laptop/main", "c1")
        structlog.get_logger().info("audit")
        structlog.get_logger().info("audit")

    async def run() -> None:
        logs.bind_node(lambda: next(names))
        await asyncio.create_task(serve())

    await asyncio.create_task(run())
    structlog.get_logger().info("outside")
    first, second, outside = capsys.readouterr().err.splitlines()
    assert ("first" in first, "second" in second) == (True, True)
    assert all("ann/laptop/main" in line and "c1" in line for line in (first, second))
    assert "node" not in outside

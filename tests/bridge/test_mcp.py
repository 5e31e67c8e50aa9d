"""The server's side of MCP, without a stream: what is answered, what is started, and what waits."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.mcp.jsonrpc import Notification, Request, Response, parse
from bridge.mcp.outgoing import EVENT_BYTES, EVENTS, Outgoing
from bridge.mcp.protocol import INSTRUCTION_BYTES, Endpoint, Outlet, Start, Stop, ToolCall, ToolResult
from conclave import __version__

TOOL = {"name": "echo", "description": "Say it again.", "inputSchema": {"type": "object", "properties": {}}}
EVERYTHING = 1 << 40


class Client:
    """Writes to an endpoint, and reads its output."""

    def __init__(self) -> None:
        self.tools: list[dict[str, Any]] = [TOOL]
        self.outgoing = Outgoing()
        self.due = 0
        self.outlet = Outlet(self.outgoing, self._on_due)
        self.endpoint = Endpoint(self._listed, self.outgoing, "how to")

    def ask(self, method: str, params: Any = None, id_: str | int = 1) -> Any:
        """Return the one answer that there must be."""
        assert self.endpoint.receive(Request(id_, method, params)) is None
        (answer,) = self.read()
        assert answer["id"] == id_
        return answer.get("result", answer.get("error"))

    def call(self, id_: str | int = 1, name: str = "echo", arguments: Any = None) -> ToolCall:
        """Begin a call, which is not answered yet."""
        start = self.endpoint.receive(Request(id_, "tools/call", {"name": name, "arguments": arguments}))
        assert isinstance(start, Start)
        assert self.read() == []
        return start.call

    def begin(self) -> None:
        self.ask("initialize", {"protocolVersion": "2025-11-25"})
        self.tell("notifications/initialized")

    def tell(self, method: str, params: Any = None) -> Start | Stop | None:
        return self.endpoint.receive(Notification(method, params))

    def read(self) -> list[Any]:
        lines = self.outgoing.take(EVERYTHING).splitlines()
        return [orjson.loads(line) for line in lines]

    def contents(self) -> list[str]:
        return [line["params"]["content"] for line in self.read()]

    def _on_due(self) -> None:
        self.due += 1

    def _listed(self) -> list[dict[str, Any]]:
        return self.tools


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"protocolVersion": "2025-06-18"}, "2025-06-18"),
        ({"protocolVersion": "2025-11-25"}, "2025-11-25"),
        ({"protocolVersion": "2026-07-28"}, "2025-11-25"),
        ({"protocolVersion": "2024-11-05"}, "2025-11-25"),
        ({"protocolVersion": "🐙"}, "2025-11-25"),
        ({"protocolVersion": ["2025-06-18"]}, "2025-11-25"),
        ({}, "2025-11-25"),
        (["2025-06-18"], "2025-11-25"),
        (None, "2025-11-25"),
    ],
)
def test_an_unknown_revision_is_answered_with_our_newest(params: Any, expected: str) -> None:
    """A client that gets its later revision back takes us for a server without channels, and drops every event."""
    assert Client().ask("initialize", params)["protocolVersion"] == expected


def test_the_greeting_makes_us_a_channel_and_no_judge() -> None:
    """`claude/channel` is what makes the channel; the permission relay would let the gated agent approve itself."""
    greeting = Client().ask("initialize", {"protocolVersion": "2025-11-25"})
    assert greeting == {
        "protocolVersion": "2025-11-25",
        "capabilities": {"experimental": {"claude/channel": {}}, "tools": {"listChanged": True}},
        "serverInfo": {"name": "conclave", "version": __version__},
        "instructions": "how to",
    }


@pytest.mark.parametrize("method", ["server/discover", "resources/list", "prompts/list", "tools/ToolCall", "", "🐙"])
def test_an_unknown_method_is_not_found(method: str) -> None:
    """A client that probes with `server/discover` goes on with `initialize` for exactly this error."""
    client = Client()
    assert client.ask(method, {"a": 1}) == {"code": -32601, "message": "method not found"}
    assert client.ask(method, [1]) == {"code": -32601, "message": "method not found"}


def test_ping_and_list_work_at_any_time() -> None:
    """Some clients list before they initialize; initialize may come again."""
    client = Client()
    assert client.ask("ping") == {}
    assert client.ask("tools/list") == {"tools": [TOOL]}
    client.begin()
    assert client.ask("ping", id_="x") == {}
    client.tools = []
    assert client.ask("tools/list", {"cursor": "1"}) == {"tools": []}
    assert client.ask("initialize")["serverInfo"]["name"] == "conclave"


def test_a_list_that_fails_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    """The client must not wait for ever, and the log must have the reason."""
    client = Client()
    client.tools = [{"name": object()}]
    assert client.ask("tools/list") == {"code": -32603, "message": "internal error"}
    assert "the tools cannot be listed" in caplog.text


def test_a_call_is_answered_once_when_it_is_finished() -> None:
    """Success and failure are both results; an error of JSON-RPC would hide the text from the model."""
    client = Client()
    first, second = client.call(1, "echo", {"a": 1}), client.call("1", "other")
    assert (first.name, first.arguments, second.arguments) == ("echo", {"a": 1}, {})
    client.endpoint.finish(second, ToolResult("no", is_error=True))
    client.endpoint.finish(first, ToolResult("yes"))
    client.endpoint.finish(first, ToolResult("again"))
    assert client.read() == [
        {"jsonrpc": "2.0", "id": "1", "result": {"content": [{"type": "text", "text": "no"}], "isError": True}},
        {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "yes"}]}},
    ]


@pytest.mark.parametrize(
    "params",
    [
        None,
        [],
        ["echo"],
        {},
        {"name": 7},
        {"name": None},
        {"name": "echo", "arguments": []},
        {"name": "echo", "arguments": "x"},
    ],
)
def test_a_call_of_the_wrong_shape_is_refused(params: Any) -> None:
    """-32602 is the code that clients know; the original answered that there is no such method."""
    assert Client().ask("tools/call", params)["code"] == -32602


def test_a_cancelled_call_gets_no_answer() -> None:
    """MCP: the client does not wait any more, and may use the id again at once."""
    client = Client()
    call = client.call(7)
    assert client.tell("notifications/cancelled", {"requestId": 7, "reason": "enough"}) == Stop(call)
    again = client.call(7)
    client.endpoint.finish(call, ToolResult("late"))
    assert client.read() == []
    client.endpoint.finish(again, ToolResult("in time"))
    assert [answer["result"]["content"][0]["text"] for answer in client.read()] == ["in time"]


@pytest.mark.parametrize(
    "params",
    [
        None,
        [1],
        {},
        {"requestId": None},
        {"requestId": True},
        {"requestId": 1.0},
        {"requestId": "1"},
        {"requestId": [1]},
    ],
)
def test_a_cancellation_of_nothing_is_ignored(params: Any) -> None:
    """The answer may be on its way already; and `true` is not 1."""
    client = Client()
    call = client.call(1)
    assert client.tell("notifications/cancelled", params) is None
    client.endpoint.finish(call, ToolResult("done"))
    assert len(client.read()) == 1


@pytest.mark.parametrize("method", ["tools/call", "ping", "initialize", "nonsense"])
def test_the_id_of_an_open_call_is_not_used_twice(method: str) -> None:
    """Two answers under one id would settle the wrong request."""
    client = Client()
    call = client.call(1)
    assert client.ask(method, {"name": "echo"})["code"] == -32600
    client.endpoint.finish(call, ToolResult("done"))
    assert len(client.read()) == 1
    client.call(1)


@pytest.mark.parametrize(
    "method", ["notifications/progress", "notifications/claude/channel/permission_request", "ping", "tools/call", "🐙"]
)
def test_other_notifications_get_no_answer(method: str) -> None:
    """Not even one whose name is a request's."""
    client = Client()
    assert client.tell(method, {"name": "echo"}) is None
    assert client.endpoint.receive(Response(1)) is None
    assert client.read() == []


@given(
    st.lists(
        st.binary()
        | st.fixed_dictionaries(
            {
                "jsonrpc": st.just("2.0"),
                "method": st.sampled_from(["initialize", "ping", "tools/list", "tools/call", "x"]),
            },
            optional={
                "id": st.integers(0, 2) | st.text(max_size=1) | st.none() | st.floats(),
                "params": st.none() | st.just({"name": "echo"}) | st.just({"protocolVersion": 1}) | st.just([]),
            },
        ).map(orjson.dumps),
        max_size=8,
    )
)
def test_any_line_leads_to_nothing_or_exactly_one_line(lines: list[bytes]) -> None:
    """A request is answered once or started; apart from errors nothing else is answered, in any state."""
    client = Client()
    for line in lines:
        message = parse(line)
        started = client.endpoint.receive(message) if message is not None else None
        answers = client.read()
        if isinstance(message, Request):
            assert len(answers) + isinstance(started, Start) == 1
            assert all(answer["id"] == message.id for answer in answers)
        else:
            assert len(answers) == (message is not None and not isinstance(message, Notification | Response))


def test_instructions_fit_what_claude_code_reads() -> None:
    """It truncates them silently; bytes are counted, to be safe."""
    Endpoint(list, Outgoing(), "x" * INSTRUCTION_BYTES)
    with pytest.raises(ValueError, match="2048"):
        Endpoint(list, Outgoing(), "ä" * (INSTRUCTION_BYTES // 2) + "x")


def test_events_wait_for_initialized_in_order() -> None:
    """Before that a client drops them; the original wrote them all the same, and they were lost."""
    client = Client()
    client.outlet.push("one", {"kind": "link"})
    client.outlet.tools_changed()
    client.outlet.push("two", {})
    assert not client.outgoing.due()
    assert client.ask("ping") == {}
    assert client.ask("initialize")["serverInfo"]
    assert client.read() == []
    client.tell("notifications/initialized")
    assert client.outgoing.due()
    assert client.read() == [
        {
            "jsonrpc": "2.0",
            "method": "notifications/claude/channel",
            "params": {"content": "one", "meta": {"kind": "link"}},
        },
        {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"},
        {"jsonrpc": "2.0", "method": "notifications/claude/channel", "params": {"content": "two", "meta": {}}},
    ]
    assert not client.outgoing.due()


def test_events_and_answers_leave_in_the_order_in_which_they_came() -> None:
    """An event that followed an answer must not arrive before it."""
    client = Client()
    client.begin()
    client.outlet.push("before", {})
    client.endpoint.receive(Request(5, "ping", None))
    client.outlet.push("after", {})
    assert [line.get("id") or line["params"]["content"] for line in client.read()] == ["before", 5, "after"]


def test_a_change_of_the_tools_is_notified_once_after_the_waiting_events() -> None:
    """The client reads the list at each notification; a second one at the same time is of no use."""
    client = Client()
    client.begin()
    client.outlet.tools_changed()
    client.outlet.push("news", {})
    client.outlet.tools_changed()
    assert [line["method"] for line in client.read()] == [
        "notifications/claude/channel",
        "notifications/tools/list_changed",
    ]
    client.outlet.tools_changed()
    assert len(client.read()) == 1


def test_too_many_events_leave_one_notice_of_how_many_are_gone() -> None:
    """Memory is bounded, the newest matter most, and a notice tells the model that some are missing."""
    client = Client()
    for number in range(EVENTS + 3):
        client.outlet.push(str(number), {})
    client.outlet.tools_changed()
    client.begin()
    notice, *rest = client.read()
    assert notice["params"]["content"].startswith("3 events were dropped here")
    assert notice["params"]["meta"] == {"kind": "error"}
    assert [line["params"]["content"] for line in rest[:-1]] == [str(number) for number in range(3, EVENTS + 3)]
    assert rest[-1]["method"] == "notifications/tools/list_changed"


def test_large_events_are_bounded_by_their_bytes() -> None:
    """A thousand messages of a megabyte are a gigabyte."""
    client = Client()
    megabyte = EVENT_BYTES // 4
    for letter in "abcdef":
        client.outlet.push(letter * megabyte, {})
    client.begin()
    notice, *rest = client.contents()
    assert notice.startswith("3 events were dropped here")
    assert [content[0] for content in rest] == ["d", "e", "f"]
    client.outlet.push("a", {})
    client.outlet.push("g" * EVENT_BYTES, {})
    assert [content[:9] for content in client.contents()] == ["1 event w", "ggggggggg"]


def test_every_gap_is_reported_in_its_place() -> None:
    """A count that comes late, or is added to a later one, would be a wrong report of the missed events."""
    client = Client()
    client.begin()
    for burst in ("a", "b"):
        for _ in range(EVENTS + 1):
            client.outlet.push(burst, {})
        contents = client.contents()
        assert contents[0].startswith("1 event was dropped here")
        assert contents[1:] == [burst] * EVENTS


def test_taken_output_is_whole_lines_and_counted() -> None:
    """The writer takes what fits; reading waits for `reply_bytes` to go down."""
    client = Client()
    for id_ in range(100):
        client.endpoint.receive(Request(id_, "ping", None))
    total = client.outgoing.reply_bytes
    first = client.outgoing.take(50)
    assert first.count(b"\n") == 2
    rest = client.outgoing.take(EVERYTHING)
    assert len(first) + len(rest) == total
    assert (client.outgoing.reply_bytes, client.outgoing.take(50)) == (0, b"")


@pytest.mark.parametrize("key", ["", "a-b", "a.b", "a b", "ä", "source", "a\n"])
def test_an_attribute_that_would_be_lost_is_a_mistake(key: str) -> None:
    """Claude Code drops such keys silently, and `source` would be there twice."""
    client = Client()
    with pytest.raises(ValueError, match="attribute"):
        client.outlet.push("x", {"server": "s", key: "v"})
    client.begin()
    assert client.read() == []


def test_every_push_tells_the_writer() -> None:
    """Otherwise it would sleep on."""
    client = Client()
    client.outlet.push("x", {"from_1": "y"})
    client.outlet.tools_changed()
    assert client.due == 2


def test_an_event_of_any_text_is_one_line() -> None:
    """Text from a peer must not be able to forge a second message."""
    client = Client()
    client.begin()
    text = 'a\n{"jsonrpc":"2.0"}\r\u2028\ud800'
    client.outlet.push(text, {"from": "\udfff"})
    line = client.outgoing.take(EVERYTHING)
    assert len(line.decode().splitlines()) == 1
    assert orjson.loads(line)["params"] == {"content": text.replace("\ud800", "\ufffd"), "meta": {"from": "\ufffd"}}

"""Tools, without a server: what is asked of it, what is said about its answers, and what is refused before."""

from pathlib import Path
from typing import Any

import pytest

from bridge.errors import AboveCeiling, BadArguments, ToolError
from bridge.session.levels import Levels
from bridge.session.servers import Server
from bridge.session.session import COUNTED_ROWS, SHOWN_ROWS, BridgeSession
from bridge.session.watermarks import Watermarks
from bridge.tools import arguments, dispatch
from bridge.tools.table import TOOLS
from bridge.tools.tool import Offer
from conclave.errors import Code, Refusal
from conclave.machine.config import Level, LocalConfig
from conclave.model import Visibility
from conclave.protocol.body import Body
from conclave.protocol.events import Gap, Left, Message, Renamed, Role, Whispered
from conclave.protocol.requests import (
    AclList,
    ChannelRow,
    Channels,
    History,
    Join,
    Joined,
    Page,
    Request,
    Row,
    Send,
    Users,
)
from tests.support.hostile import NAMES, opens_a_tag

ONE, TWO = "ws://one.example", "ws://two.example"

ORDER = [
    *("join_channel", "leave_channel", "list_channels", "who", "catch_up", "set_perm", "send_channel", "whisper"),
    *("create_channel", "delete_channel", "set_visibility", "acl_add", "acl_remove", "invite_create", "invite_revoke"),
    *("kick", "ban", "unban", "rename_channel", "acl_list", "ban_list", "invite_list"),
]


class Screen:
    """Keeps what the user would see."""

    def __init__(self) -> None:
        self.contents: list[str] = []
        self.metas: list[dict[str, str]] = []

    def push(self, content: str, meta: dict[str, str]) -> None:
        self.contents.append(content)
        self.metas.append(meta)


class Desk:
    """A session at two servers, of which the second is not needed by most."""

    def __init__(self, state: Path, *urls: str, level: Level = Level.CONVERSE) -> None:
        self.screen = Screen()
        self.servers = [Server(url) for url in urls]
        for server in self.servers:
            server.path, server.version = "ann/laptop/me", 2
        config = LocalConfig(default_permission=level)
        self.session = BridgeSession(self.servers, Levels(config), Watermarks(state), self.screen)

    def run(self, name: str, answers: list[Any], **arguments: Any) -> tuple[str, list[Request[Any]]]:
        """Carry out a tool with these answers of the server; return its text and what it asked."""
        steps = dispatch.begin(self.session, name, arguments).effects
        return walked(steps, answers)


def walked(steps: Any, answers: list[Any]) -> tuple[Any, list[Request[Any]]]:
    asked: list[Request[Any]] = []
    left = iter(answers)
    try:
        asked.append(next(steps))
        while True:
            answer = next(left)
            asked.append(steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer))
    except StopIteration as done:
        return done.value, asked


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, ONE)


def rows(first: int, last: int) -> tuple[Row, ...]:
    return tuple(Row(f"{n}-0", n, "bob/laptop/main", Body(text=f"text {n}")) for n in range(first, last + 1))


def message(number: int) -> Message:
    return Message("ops", "bob/laptop/main", Body(text=f"text {number}"), f"{number}-0", number)


def test_the_tools_come_in_one_order() -> None:
    """Scripts and prompts that were written for the original find them where they were."""
    assert list(TOOLS) == ORDER


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_a_schema_is_an_object_with_described_properties(tool: Any) -> None:
    """Hosts show it to the model as it is, and cut descriptions at 2 KB."""
    schema = arguments.schema(tool.takes)
    assert schema["type"] == "object"
    assert "required" not in schema or set(schema["required"]) <= set(schema["properties"])
    assert all(entry["type"] in {"string", "boolean", "integer"} for entry in schema["properties"].values())
    assert len(tool.description.encode()) < 2048


def test_the_server_comes_before_the_arguments(tmp_path: Path) -> None:
    """A call without either argument is told which one to decide first."""
    desk = Desk(tmp_path, ONE, TWO)
    with pytest.raises(ToolError, match="multiple servers connected; pass `server`"):
        desk.run("join_channel", [])
    with pytest.raises(ToolError, match=r"not connected to server `ws://three.example`"):
        desk.run("join_channel", [], server="ws://three.example")
    with pytest.raises(BadArguments, match="`channel` is required"):
        desk.run("join_channel", [], server="WS://one.example:80/")


def test_a_refused_join_changes_no_level(desk: Desk) -> None:
    """The level was meant for a channel that one is in."""
    with pytest.raises(Refusal):
        desk.run("join_channel", [Refusal(Code.NOT_FOUND, "channel `ops` not found")], channel="ops", perm="mute")
    assert desk.session.level(desk.servers[0], "ops") is Level.CONVERSE
    with pytest.raises(AboveCeiling):
        desk.run("join_channel", [], channel="ops", perm="act")


def test_the_first_join_misses_nothing(desk: Desk) -> None:
    """A session hears from then on, as the server says where that is."""
    text, asked = desk.run("join_channel", [Joined("ops", "5-0", admin=True), Page((), more=False)], channel="ops")
    assert text == "joined ops"
    assert asked == [Join("ops")]
    assert Offer.ADMIN in dispatch.offered(desk.session)


def test_a_second_run_shows_what_was_said_in_between(tmp_path: Path) -> None:
    """The watermark outlives the process."""
    desk = Desk(tmp_path, ONE)
    desk.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    desk.session._watermarks.save()
    desk = Desk(tmp_path, ONE)
    answers = [Joined("ops", "9-0", admin=False), Page(rows(6, 8), more=False)]
    _, asked = desk.run("join_channel", answers, channel="ops")
    assert asked[1] == History("ops", after="5-0")
    assert "3 messages missed in #ops" in desk.screen.contents[0]
    assert [content.rsplit("\n", 1)[1] for content in desk.screen.contents[1:]] == ["text 6", "text 7", "text 8"]
    assert desk.session.unread_from(desk.servers[0], "ops") == "8-0"


@pytest.mark.parametrize(
    ("count", "said"), [(SHOWN_ROWS + 1, "51 messages"), (COUNTED_ROWS, "More than 5000 messages")]
)
def test_too_much_is_announced_in_one_line(desk: Desk, count: int, said: str) -> None:
    """A session's context is dear; what it does not want to read it does not have to."""
    server = desk.servers[0]
    desk.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    more = count == COUNTED_ROWS
    walked(desk.session.rejoin(server), [Joined("ops", "90000-0", admin=False), Page(rows(6, 5 + count), more=more)])
    assert desk.screen.contents == [f"{said} missed in #ops, catch_up to read them."]
    desk.session.receive(server, message(90_001))
    assert desk.session.unread_from(server, "ops") == "5-0", "a live message must not jump over what was missed"


def test_catching_up_reads_page_after_page(desk: Desk) -> None:
    """The second call begins where the first one ended."""
    desk.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    tracker = desk.servers[0].channels["ops"]
    tracker.skip(tracker.missed("", 0), "300-0")
    text, asked = desk.run("catch_up", [Page(rows(6, 105), more=True)], channel="ops")
    assert asked == [History("ops", after="5-0", limit=100)]
    assert text.endswith("call catch_up again, to read on.")
    text, asked = desk.run("catch_up", [Page(rows(106, 120), more=False)], channel="ops")
    assert asked == [History("ops", after="105-0", limit=100)]
    assert "call catch_up again" not in text


def test_what_was_lost_is_said_where_it_is_missing(desk: Desk) -> None:
    """A page begins behind a loss, or ends before one, which the next one then begins with."""
    desk.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    tracker = desk.servers[0].channels["ops"]
    tracker.skip(tracker.missed("", 0), "300-0")
    cut = [Page(rows(8, 10), more=True, lost=True), Page(rows(20, 30), more=False, lost=True)]
    first, asked = desk.run("catch_up", cut, channel="ops")
    assert asked == [History("ops", after="5-0", limit=100), History("ops", after="10-0", limit=97)]
    assert first.startswith("Messages in #ops are lost")
    assert "text 10" in first
    assert "text 20" not in first
    assert first.endswith("call catch_up again, to read on.")
    second, asked = desk.run("catch_up", [Page(rows(20, 30), more=False, lost=True)], channel="ops")
    assert asked == [History("ops", after="10-0", limit=100)]
    assert second.startswith("Messages in #ops are lost")
    assert "call catch_up again" not in second
    third, _ = desk.run("catch_up", [Page((), more=False)], channel="ops")
    assert third == "#ops: no retained messages in that window"


def test_a_window_is_read_without_moving_the_watermark(desk: Desk) -> None:
    """Looking at the last hour does not mean that everything before it was read."""
    desk.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    text, _ = desk.run("catch_up", [Page(rows(50, 149), more=True)], channel="ops", since="1h")
    assert "`after` = `149-0`" in text
    assert desk.session.unread_from(desk.servers[0], "ops") == "5-0"
    with pytest.raises(ToolError, match="invalid `since`: invalid duration `soon`"):
        desk.run("catch_up", [], channel="ops", since="soon")


@pytest.mark.parametrize("after", ["@abc", "@0", "@"])
def test_a_window_begins_where_an_earlier_page_ended(desk: Desk, after: str) -> None:
    """The bridge's own marks for times are nobody else's, and an agent's guess is answered in words."""
    with pytest.raises(ToolError, match="`after` must be what an earlier page said"):
        desk.run("catch_up", [], channel="ops", after=after)


def test_levels_decide_what_is_shown_and_said(tmp_path: Path) -> None:
    """Mute hides messages; below converse the agent cannot post, at anybody's request."""
    desk = Desk(tmp_path, ONE, level=Level.NOTIFY)
    server = desk.servers[0]
    desk.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    with pytest.raises(ToolError, match=r"permission denied: `ops` on `ws://one.example` is below `converse`"):
        desk.run("send_channel", [], channel="ops", text="hello")
    with pytest.raises(ToolError, match=r"permission denied: whispers on `ws://one.example` are below `converse`"):
        desk.run("whisper", [], target="bob/laptop/main", text="hello")
    desk.run("set_perm", [], channel="ops", level="mute")
    desk.session.receive(server, message(6))
    assert not desk.screen.contents
    desk.run("set_perm", [], channel="ops", level="converse")
    text, (sent,) = desk.run("send_channel", [None], channel="ops", text="hello")
    assert text == "sent to ops"
    assert isinstance(sent, Send)
    assert (sent.channel, sent.body) == ("ops", Body(text="hello"))
    assert sent.key, "so that it can be sent again if the answer is lost"
    desk.session.receive(server, Whispered("bob/laptop/main", Body(text="psst")))
    assert desk.screen.metas == [{"server": ONE, "from": "bob/laptop/main", "kind": "whisper"}]


def test_a_level_that_is_lowered_while_a_call_waits_counts(desk: Desk) -> None:
    """A connection may take its time; the permission is checked once more when there is one."""
    calls = [
        dispatch.begin(desk.session, "send_channel", {"channel": "ops", "text": "hello"}),
        dispatch.begin(desk.session, "whisper", {"target": "bob/laptop/main", "text": "hello"}),
    ]
    for call in calls:
        next(call.effects)
        call.permit()
    desk.run("set_perm", [], level="mute")
    for call in calls:
        with pytest.raises(ToolError, match="permission denied"):
            call.permit()


def test_a_channel_that_is_gone_is_forgotten(desk: Desk) -> None:
    """After a kick, a deletion, or a refused re-join the bridge must not believe that it still listens."""
    server = desk.servers[0]
    for reason in ("kicked", "deleted", "a reason of a later version"):
        desk.run("join_channel", [Joined("ops", "5-0", admin=True), Page((), more=False)], channel="ops")
        desk.session.receive(server, Left("ops", reason))
        assert not server.channels
        assert Offer.ADMIN not in dispatch.offered(desk.session)
    desk.run("join_channel", [Joined("ops", "5-0", admin=True), Page((), more=False)], channel="ops")
    walked(desk.session.rejoin(server), [Refusal(Code.UNAUTHORIZED, "banned from channel `ops`")])
    assert not server.channels
    assert len(desk.screen.contents) == 4


@pytest.mark.parametrize("name", [pytest.param(name, id=f"{n}") for n, name in enumerate(NAMES)])
def test_notices_about_channels_of_any_name_are_harmless(desk: Desk, name: str) -> None:
    """That one was taken away, renamed, has lost messages, or cannot be joined again: one line of ours each."""
    server = desk.servers[0]
    for event in (Left(name, "kicked"), Left("ops", name), Gap(name, "5-0"), Renamed(name, f"{name}x")):
        desk.run("join_channel", [Joined(name, "5-0", admin=False), Page((), more=False)], channel=name)
        desk.session.receive(server, event)
    walked(desk.session.rejoin(server), [Refusal(Code.UNAUTHORIZED, name) for _ in server.channels])
    assert len(desk.screen.contents) >= 5
    for content in desk.screen.contents:
        assert content.isprintable()
        assert not opens_a_tag(content)


def test_a_server_that_cannot_just_now_is_asked_again(desk: Desk) -> None:
    """Its store is away: that must not cost the session its channels."""
    server = desk.servers[0]
    desk.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    with pytest.raises(Refusal):
        walked(desk.session.rejoin(server), [Refusal(Code.UNAVAILABLE, "the relay cannot reach its store")])
    assert "ops" in server.channels


def test_a_renamed_channel_goes_on_under_its_new_name(desk: Desk) -> None:
    """With its level and its watermark."""
    server = desk.servers[0]
    desk.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops", perm="notify")
    desk.session.receive(server, Renamed("ops", "operations"))
    assert desk.session.level(server, "operations") is Level.NOTIFY
    assert desk.session.unread_from(server, "operations") == "5-0"


def test_what_was_on_its_way_when_a_channel_was_left_is_no_new_name(desk: Desk) -> None:
    """A server that tells positions tells new names, too: nothing has to be guessed there."""
    server = desk.servers[0]
    desk.run("join_channel", [Joined("dev", "5-0", admin=False)], channel="dev")
    desk.session.receive(server, message(6))
    assert list(server.channels) == ["dev"]
    assert not desk.screen.contents


def test_a_server_that_changes_its_version_is_read_on_from_a_time(desk: Desk) -> None:
    """Positions of one version mean nothing in the other; the session must not stumble over its own mark."""
    server = desk.servers[0]
    desk.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    walked(desk.session.rejoin(server), [Joined("ops", "5-0", admin=False), Page((), more=False)])
    desk.session.receive(server, message(6))
    server.version = 1
    answers = [Joined("ops"), Users(("ann",)), Page(rows(6, 7), more=True), Page((), more=False)]
    _, asked = walked(desk.session.rejoin(server), answers)
    assert asked[2] == History("ops", after_ts=5)
    assert desk.screen.contents[-1].count("text 7") == 1


def test_a_list_of_channels_says_what_one_has_to_do_with_each(desk: Desk) -> None:
    """As far as the server tells."""
    listed = Channels(
        (
            ChannelRow("a", Visibility.PUBLIC, member=False),
            ChannelRow("b", Visibility.PRIVATE, member=True, joined=True, admin=True),
            ChannelRow("c", Visibility.PUBLIC, member=True, joined=False, admin=False),
        )
    )
    text, _ = desk.run("list_channels", [listed])
    assert text == "a (public)\nb (private, member, joined, admin)\nc (public, member)"


def test_who_rules_a_channel_is_found_out_where_joining_does_not_tell(desk: Desk) -> None:
    """Over v1 only the ACL tells: those who do not administer a channel may not see it."""
    nothing = Page((), more=False)
    desk.run("join_channel", [Joined("ops"), Users(("ann",)), nothing], channel="ops")
    assert desk.servers[0].administered == {"ops"}
    no = Refusal(Code.UNAUTHORIZED, "no")
    _, asked = desk.run("join_channel", [Joined("dev"), no, nothing], channel="dev")
    assert asked[1] == AclList("dev")
    assert desk.servers[0].administered == {"ops"}


def test_who_rules_a_channel_may_change(desk: Desk) -> None:
    """v1 has no event for a promotion, so the server is asked, and its answer is remembered."""
    server = desk.servers[0]
    desk.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    no = Refusal(Code.UNAUTHORIZED, "not an admin of channel `ops`")
    with pytest.raises(ToolError, match=r"not an admin on `ws://one.example`"):
        desk.run("kick", [no], channel="ops", target="bob")
    assert desk.run("kick", [None], channel="ops", target="bob")[0] == "bob"
    assert Offer.ADMIN in dispatch.offered(desk.session)
    with pytest.raises(ToolError):
        desk.run("acl_list", [no], channel="ops")
    assert Offer.ADMIN not in dispatch.offered(desk.session)
    desk.session.receive(server, Role(admin=True))
    desk.run("acl_list", [Users(())], channel="ops")
    desk.session.receive(server, Role(admin=False))
    assert Offer.ADMIN not in dispatch.offered(desk.session), "that was the administrator of the server"

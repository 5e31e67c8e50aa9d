"""Tools without a connection: their requests, their texts for the replies, and refusals before any request."""

from pathlib import Path
from typing import Any

import pytest

from bridge.errors import AboveCeiling, BadArguments, ToolError
from bridge.session.session import COUNTED_ROWS, SHOWN_ROWS
from bridge.tools import arguments, dispatch
from bridge.tools.table import TOOLS
from bridge.tools.tool import Offer
from conclave.errors import Code, Refusal
from conclave.machine.config import Level
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
    Send,
    Users,
)
from tests.bridge.offline_bridge import ONE, TWO, OfflineBridge, rows, run_offline
from tests.support.hostile import NAMES, opens_a_tag

ORDER = [
    *("join_channel", "leave_channel", "list_channels", "who", "catch_up", "set_perm", "send_channel", "whisper"),
    *("create_channel", "delete_channel", "set_visibility", "acl_add", "acl_remove", "invite_create", "invite_revoke"),
    *("kick", "ban", "unban", "rename_channel", "acl_list", "ban_list", "invite_list"),
]


@pytest.fixture
def offline(tmp_path: Path) -> OfflineBridge:
    return OfflineBridge(tmp_path, ONE)


def message(number: int) -> Message:
    return Message("ops", "bob/laptop/main", Body(text=f"text {number}"), f"{number}-0", number)


def test_the_tools_have_a_fixed_order() -> None:
    """Scripts and prompts of the original rely on it."""
    assert list(TOOLS) == ORDER


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_a_schema_is_an_object_with_described_properties(tool: Any) -> None:
    """Hosts show it to the model as it is, and cut descriptions at 2 KB."""
    schema = arguments.schema(tool.takes)
    assert schema["type"] == "object"
    assert "required" not in schema or set(schema["required"]) <= set(schema["properties"])
    assert all(entry["type"] in {"string", "boolean", "integer"} for entry in schema["properties"].values())
    assert len(tool.description.encode()) < 2048


def test_a_missing_server_is_reported_before_the_arguments(tmp_path: Path) -> None:
    """A call without either argument is told which one to decide first."""
    offline = OfflineBridge(tmp_path, ONE, TWO)
    with pytest.raises(ToolError, match="multiple servers connected; pass `server`"):
        offline.run("join_channel", [])
    with pytest.raises(ToolError, match=r"not connected to server `ws://three.example`"):
        offline.run("join_channel", [], server="ws://three.example")
    with pytest.raises(BadArguments, match="`channel` is required"):
        offline.run("join_channel", [], server="WS://one.example:80/")


def test_a_refused_join_changes_no_level(offline: OfflineBridge) -> None:
    """The level was meant for a channel that one is in."""
    with pytest.raises(Refusal):
        offline.run("join_channel", [Refusal(Code.NOT_FOUND, "channel `ops` not found")], channel="ops", perm="mute")
    assert offline.session.level(offline.servers[0], "ops") is Level.CONVERSE
    with pytest.raises(AboveCeiling):
        offline.run("join_channel", [], channel="ops", perm="act")


def test_the_first_join_misses_nothing(offline: OfflineBridge) -> None:
    """A session receives every message from the position in the reply on."""
    text, asked = offline.run("join_channel", [Joined("ops", "5-0", admin=True), Page((), more=False)], channel="ops")
    assert text == "joined ops"
    assert asked == [Join("ops")]
    assert Offer.ADMIN in dispatch.offered(offline.session)


def test_a_second_run_shows_the_messages_in_between(tmp_path: Path) -> None:
    """The watermark outlives the process."""
    offline = OfflineBridge(tmp_path, ONE)
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    offline.session._watermarks.save()
    offline = OfflineBridge(tmp_path, ONE)
    answers = [Joined("ops", "9-0", admin=False), Page(rows(6, 8), more=False)]
    _, asked = offline.run("join_channel", answers, channel="ops")
    assert asked[1] == History("ops", after="5-0")
    assert "3 messages missed in #ops" in offline.events.contents[0]
    assert [content.rsplit("\n", 1)[1] for content in offline.events.contents[1:]] == ["text 6", "text 7", "text 8"]
    assert offline.session.unread_from(offline.servers[0], "ops") == "8-0"


@pytest.mark.parametrize(
    ("count", "notice"), [(SHOWN_ROWS + 1, "51 messages"), (COUNTED_ROWS, "More than 5000 messages")]
)
def test_too_much_is_announced_in_one_line(offline: OfflineBridge, count: int, notice: str) -> None:
    """A session's context is precious; the agent decides to read them or not."""
    server = offline.servers[0]
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    more = count == COUNTED_ROWS
    run_offline(
        offline.session.rejoin(server), [Joined("ops", "90000-0", admin=False), Page(rows(6, 5 + count), more=more)]
    )
    assert offline.events.contents == [f"{notice} missed in #ops, catch_up to read them."]
    offline.session.receive(server, message(90_001))
    assert offline.session.unread_from(server, "ops") == "5-0", "a live message must not jump over what was missed"


def test_catching_up_reads_page_after_page(offline: OfflineBridge) -> None:
    """The second call begins where the first one ended."""
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    tracker = offline.servers[0].channels["ops"]
    tracker.skip(tracker.missed("", 0), "300-0")
    text, asked = offline.run("catch_up", [Page(rows(6, 105), more=True)], channel="ops")
    assert asked == [History("ops", after="5-0", limit=100)]
    assert text.endswith("call catch_up again, to read on.")
    text, asked = offline.run("catch_up", [Page(rows(106, 120), more=False)], channel="ops")
    assert asked == [History("ops", after="105-0", limit=100)]
    assert "call catch_up again" not in text


def test_a_gap_is_shown_in_its_place(offline: OfflineBridge) -> None:
    """A page begins behind a loss, or ends before one, which the next one then begins with."""
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    tracker = offline.servers[0].channels["ops"]
    tracker.skip(tracker.missed("", 0), "300-0")
    cut = [Page(rows(8, 10), more=True, lost=True), Page(rows(20, 30), more=False, lost=True)]
    first, asked = offline.run("catch_up", cut, channel="ops")
    assert asked == [History("ops", after="5-0", limit=100), History("ops", after="10-0", limit=97)]
    assert first.startswith("Messages in #ops are lost")
    assert "text 10" in first
    assert "text 20" not in first
    assert first.endswith("call catch_up again, to read on.")
    second, asked = offline.run("catch_up", [Page(rows(20, 30), more=False, lost=True)], channel="ops")
    assert asked == [History("ops", after="10-0", limit=100)]
    assert second.startswith("Messages in #ops are lost")
    assert "call catch_up again" not in second
    third, _ = offline.run("catch_up", [Page((), more=False)], channel="ops")
    assert third == "#ops: no retained messages in that window"


def test_a_window_is_read_without_moving_the_watermark(offline: OfflineBridge) -> None:
    """Looking at the last hour does not mean that everything before it was read."""
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    text, _ = offline.run("catch_up", [Page(rows(50, 149), more=True)], channel="ops", since="1h")
    assert "`after` = `149-0`" in text
    assert offline.session.unread_from(offline.servers[0], "ops") == "5-0"
    with pytest.raises(ToolError, match="invalid `since`: invalid duration `soon`"):
        offline.run("catch_up", [], channel="ops", since="soon")


@pytest.mark.parametrize("after", ["@abc", "@0", "@"])
def test_a_window_begins_where_an_earlier_page_ended(offline: OfflineBridge, after: str) -> None:
    """The bridge's own marks for times are refused from others, and a guess of the agent is answered with a text."""
    with pytest.raises(ToolError, match="`after` must be what an earlier page said"):
        offline.run("catch_up", [], channel="ops", after=after)


def test_levels_decide_what_is_shown_and_sent(tmp_path: Path) -> None:
    """Mute hides messages; below converse the agent cannot post at all."""
    offline = OfflineBridge(tmp_path, ONE, level=Level.NOTIFY)
    server = offline.servers[0]
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    with pytest.raises(ToolError, match=r"permission denied: `ops` on `ws://one.example` is below `converse`"):
        offline.run("send_channel", [], channel="ops", text="hello")
    with pytest.raises(ToolError, match=r"permission denied: whispers on `ws://one.example` are below `converse`"):
        offline.run("whisper", [], target="bob/laptop/main", text="hello")
    offline.run("set_perm", [], channel="ops", level="mute")
    offline.session.receive(server, message(6))
    assert not offline.events.contents
    offline.run("set_perm", [], channel="ops", level="converse")
    text, (sent,) = offline.run("send_channel", [None], channel="ops", text="hello")
    assert text == "sent to ops"
    assert isinstance(sent, Send)
    assert (sent.channel, sent.body) == ("ops", Body(text="hello"))
    assert sent.key, "so that it can be sent again if the answer is lost"
    offline.session.receive(server, Whispered("bob/laptop/main", Body(text="psst")))
    assert offline.events.metas == [{"server": ONE, "from": "bob/laptop/main", "kind": "whisper"}]


def test_a_level_that_is_lowered_while_a_call_waits_counts(offline: OfflineBridge) -> None:
    """A connection may take its time; the permission is checked once more when there is one."""
    calls = [
        dispatch.begin(offline.session, "send_channel", {"channel": "ops", "text": "hello"}),
        dispatch.begin(offline.session, "whisper", {"target": "bob/laptop/main", "text": "hello"}),
    ]
    for call in calls:
        next(call.effects)
        call.permit()
    offline.run("set_perm", [], level="mute")
    for call in calls:
        with pytest.raises(ToolError, match="permission denied"):
            call.permit()


def test_a_channel_that_is_gone_is_forgotten(offline: OfflineBridge) -> None:
    """After a kick, a deletion, or a refused re-join the bridge must not believe that it is still in the channel."""
    server = offline.servers[0]
    for reason in ("kicked", "deleted", "a reason of a later version"):
        offline.run("join_channel", [Joined("ops", "5-0", admin=True), Page((), more=False)], channel="ops")
        offline.session.receive(server, Left("ops", reason))
        assert not server.channels
        assert Offer.ADMIN not in dispatch.offered(offline.session)
    offline.run("join_channel", [Joined("ops", "5-0", admin=True), Page((), more=False)], channel="ops")
    run_offline(offline.session.rejoin(server), [Refusal(Code.UNAUTHORIZED, "banned from channel `ops`")])
    assert not server.channels
    assert len(offline.events.contents) == 4


def test_a_gap_among_missed_messages_is_shown_in_its_place(offline: OfflineBridge) -> None:
    """After a reconnect, the history of what was missed ends a page where a failover has lost messages."""
    server = offline.servers[0]
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    pages = [Page(rows(6, 7), more=True), Page(rows(20, 20), more=True, lost=True), Page((), more=False, lost=True)]
    run_offline(offline.session.rejoin(server), [Joined("ops", "30-0", admin=False), *pages])
    shown = [content.splitlines()[-1] for content in offline.events.contents]
    lost = "Messages in #ops are lost: the server does not have them any more."
    assert shown == ["3 messages missed in #ops; shown now.", "text 6", "text 7", lost, "text 20", lost]


@pytest.mark.parametrize("name", [pytest.param(name, id=f"{n}") for n, name in enumerate(NAMES)])
def test_notices_about_channels_of_any_name_are_harmless(offline: OfflineBridge, name: str) -> None:
    """That one was taken away, renamed, has lost messages, or cannot be joined again: one line of ours each."""
    server = offline.servers[0]
    for event in (Left(name, "kicked"), Left("ops", name), Gap(name, "5-0"), Renamed(name, f"{name}x")):
        offline.run("join_channel", [Joined(name, "5-0", admin=False), Page((), more=False)], channel=name)
        offline.session.receive(server, event)
    run_offline(offline.session.rejoin(server), [Refusal(Code.UNAUTHORIZED, name) for _ in server.channels])
    assert len(offline.events.contents) >= 5
    for content in offline.events.contents:
        assert content.isprintable()
        assert not opens_a_tag(content)


def test_a_server_that_fails_for_the_moment_is_asked_again(offline: OfflineBridge) -> None:
    """Its store is away: that must not cost the session its channels."""
    server = offline.servers[0]
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    with pytest.raises(Refusal):
        run_offline(offline.session.rejoin(server), [Refusal(Code.UNAVAILABLE, "the relay cannot reach its store")])
    assert "ops" in server.channels


def test_a_renamed_channel_continues_under_its_new_name(offline: OfflineBridge) -> None:
    """With its level and its watermark."""
    server = offline.servers[0]
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops", perm="notify")
    offline.session.receive(server, Renamed("ops", "operations"))
    assert offline.session.level(server, "operations") is Level.NOTIFY
    assert offline.session.unread_from(server, "operations") == "5-0"


def test_a_message_of_a_channel_that_was_left_is_no_new_name(offline: OfflineBridge) -> None:
    """A server with positions also reports renames: nothing has to be guessed there."""
    server = offline.servers[0]
    offline.run("join_channel", [Joined("dev", "5-0", admin=False)], channel="dev")
    offline.session.receive(server, message(6))
    assert list(server.channels) == ["dev"]
    assert not offline.events.contents


def test_a_server_that_changes_its_version_is_read_on_from_a_time(offline: OfflineBridge) -> None:
    """Positions of one version mean nothing in the other; the session must not stumble over its own mark."""
    server = offline.servers[0]
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    run_offline(offline.session.rejoin(server), [Joined("ops", "5-0", admin=False), Page((), more=False)])
    offline.session.receive(server, message(6))
    server.version = 1
    answers = [Joined("ops"), Users(("ann",)), Page(rows(6, 7), more=True), Page((), more=False)]
    _, asked = run_offline(offline.session.rejoin(server), answers)
    assert asked[2] == History("ops", after_ts=5)
    assert offline.events.contents[-1].count("text 7") == 1


def test_a_list_of_channels_has_the_roles_in_each(offline: OfflineBridge) -> None:
    """As far as the server reports them."""
    listed = Channels(
        (
            ChannelRow("a", Visibility.PUBLIC, member=False),
            ChannelRow("b", Visibility.PRIVATE, member=True, joined=True, admin=True),
            ChannelRow("c", Visibility.PUBLIC, member=True, joined=False, admin=False),
        )
    )
    text, _ = offline.run("list_channels", [listed])
    assert text == "a (public)\nb (private, member, joined, admin)\nc (public, member)"


def test_the_role_is_found_out_over_v1(offline: OfflineBridge) -> None:
    """A join over v1 does not report it: only admins of a channel may see its ACL."""
    nothing = Page((), more=False)
    offline.run("join_channel", [Joined("ops"), Users(("ann",)), nothing], channel="ops")
    assert offline.servers[0].administered == {"ops"}
    no = Refusal(Code.UNAUTHORIZED, "no")
    _, asked = offline.run("join_channel", [Joined("dev"), no, nothing], channel="dev")
    assert asked[1] == AclList("dev")
    assert offline.servers[0].administered == {"ops"}


def test_the_role_in_a_channel_may_change(offline: OfflineBridge) -> None:
    """v1 has no event for a promotion, so the server is asked, and its answer is remembered."""
    server = offline.servers[0]
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    no = Refusal(Code.UNAUTHORIZED, "not an admin of channel `ops`")
    with pytest.raises(ToolError, match=r"not an admin on `ws://one.example`"):
        offline.run("kick", [no], channel="ops", target="bob")
    assert offline.run("kick", [None], channel="ops", target="bob")[0] == "bob"
    assert Offer.ADMIN in dispatch.offered(offline.session)
    with pytest.raises(ToolError):
        offline.run("acl_list", [no], channel="ops")
    assert Offer.ADMIN not in dispatch.offered(offline.session)
    offline.session.receive(server, Role(admin=True))
    offline.run("acl_list", [Users(())], channel="ops")
    offline.session.receive(server, Role(admin=False))
    assert Offer.ADMIN not in dispatch.offered(offline.session), "that was the administrator of the server"

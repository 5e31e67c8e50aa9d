"""The channels and events of a session in any order of events, without a connection."""

from pathlib import Path
from typing import Any

import pytest

from bridge.connection.effects import run_effects
from bridge.errors import JoinInProgress
from bridge.session.early_messages import KEPT_MESSAGES
from bridge.tools import dispatch
from conclave.errors import Code, LinkLost, Refusal
from conclave.machine.config import Level
from conclave.protocol.body import Body
from conclave.protocol.events import Message, Renamed
from conclave.protocol.requests import AclList, History, Join, Joined, Leave, Page, Request, Row
from tests.bridge.offline_bridge import ONE, OfflineBridge, rows, run_offline

UP_TO_DATE = Page((), more=False)
NOT_FOUND = Refusal(Code.NOT_FOUND, "channel not found")
BUSY = Refusal(Code.UNAVAILABLE, "the relay cannot reach its store")
NO_ADMIN = Refusal(Code.UNAUTHORIZED, "not an admin")


@pytest.fixture
def offline(tmp_path: Path) -> OfflineBridge:
    """A session at a v1 server, which reports neither positions nor renames."""
    offline = OfflineBridge(tmp_path, ONE, level=Level.NOTIFY)
    connect(offline, 1)
    return offline


def connect(offline: OfflineBridge, version: int) -> None:
    """Make the first connection, with this version of the protocol."""
    offline.servers[0].version = version
    run_offline(offline.session.rejoin(offline.servers[0]), [None])


def live_message(text: str, channel: str = "ops", id_: str | None = None) -> Message:
    return Message(channel, "bob/laptop/main", Body(text=text), id_)


def shown(offline: OfflineBridge) -> list[str]:
    return [content.rsplit("\n", 1)[-1] for content in offline.events.contents]


def join(offline: OfflineBridge, channel: str) -> None:
    offline.run("join_channel", [Joined(channel), NO_ADMIN, UP_TO_DATE], channel=channel)


def begun(offline: OfflineBridge, name: str, **arguments: Any) -> Any:
    return dispatch.begin(offline.session, name, arguments).effects


# --- What was missed ---


@pytest.mark.parametrize("version", [1, 2])
async def test_a_connection_lost_while_counting_loses_no_message(offline: OfflineBridge, version: int) -> None:
    """The rows of the first page were counted only; the next connection counts again."""
    server = offline.servers[0]
    connect(offline, version)
    placed = "5-0" if version == 2 else None
    offline.run("join_channel", [Joined("ops", placed, admin=False), Page(rows(4, 5), more=False)], channel="ops")
    answers = iter([Joined("ops", placed and "40-0", admin=False), Page(rows(6, 20), more=True)])

    async def ask(_: Request[Any]) -> Any:
        answer = next(answers, None)
        if answer is None:
            raise LinkLost("gone")
        return answer

    with pytest.raises(LinkLost):
        await run_effects(begun(offline, "join_channel", channel="ops"), ask)
    offline.session.receive(server, live_message("still in the queue", id_=placed and "41-0"))
    back = [Joined("ops", placed and "41-0", admin=False), Page(rows(6, 30), more=False)]
    _, asked = run_offline(offline.session.rejoin(server), back)
    assert asked[1] == History("ops", after="5-0")
    assert shown(offline) == ["25 messages missed in #ops; shown now.", *(f"text {number}" for number in range(6, 31))]


def test_a_refusal_while_counting_leaves_it_to_catch_up(offline: OfflineBridge) -> None:
    """The session is in the channel; a new message must not mark the missed ones as shown."""
    server = offline.servers[0]
    connect(offline, 2)
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    answers = [Joined("ops", "9-0", admin=False), Page(rows(6, 7), more=True), BUSY]
    assert offline.run("join_channel", answers, channel="ops")[0] == "joined ops"
    assert "could not be read" in offline.events.contents[0]
    offline.session.receive(server, live_message("live", id_="10-0"))
    assert shown(offline)[1:] == ["live"]
    assert offline.session.unread_from(server, "ops") == "5-0"


def test_messages_that_arrive_while_counting_are_shown_once_after_it(offline: OfflineBridge) -> None:
    """In the order of the channel, though the count takes its time."""
    server = offline.servers[0]
    join(offline, "ops")
    steps = begun(offline, "join_channel", channel="ops")
    next(steps)
    steps.send(Joined("ops", admin=False))
    offline.session.receive(server, live_message("text 8"))
    offline.session.receive(server, live_message("text 9"))
    with pytest.raises(JoinInProgress):
        next(begun(offline, "join_channel", channel="ops"))
    with pytest.raises(StopIteration):
        steps.send(Page(rows(6, 8), more=False))
    assert shown(offline)[1:] == ["text 6", "text 7", "text 8", "text 9"]


def test_a_first_join_starts_after_earlier_messages(offline: OfflineBridge) -> None:
    """The start is exact to a second only. A row that never comes live would hold the watermark for ever."""
    server = offline.servers[0]
    steps = begun(offline, "join_channel", channel="ops")
    next(steps)
    assert steps.send(Joined("ops")) == AclList("ops")
    offline.session.receive(server, live_message("text 7"))
    steps.throw(NO_ADMIN)
    steps.send(Page(rows(6, 8), more=True))
    with pytest.raises(StopIteration):
        steps.send(UP_TO_DATE)
    offline.session.receive(server, live_message("text 8"))
    offline.session.receive(server, live_message("text 9"))
    assert shown(offline) == ["text 7", "text 8", "text 9"]
    _, asked = run_offline(offline.session.look_up(server), [Page(rows(9, 9), more=False)])
    assert asked == [History("ops", after="8-0")]
    assert offline.session.unread_from(server, "ops") == "9-0"


def test_a_first_join_at_mute_leaves_the_first_second_to_catch_up(offline: OfflineBridge) -> None:
    """A raised level must not make the messages in between disappear."""
    server = offline.servers[0]
    offline.run("join_channel", [Joined("ops"), NO_ADMIN, Page(rows(6, 8), more=False)], channel="ops", perm="mute")
    assert offline.session.unread_from(server, "ops").startswith("@")
    assert server.channels["ops"].received == "8-0"


def test_a_channel_that_is_left_while_counting(offline: OfflineBridge) -> None:
    """A client may call both at once; the count ends silently."""
    server = offline.servers[0]
    join(offline, "ops")
    steps = begun(offline, "join_channel", channel="ops")
    next(steps)
    steps.send(Joined("ops", admin=False))
    offline.run("leave_channel", [None], channel="ops")
    with pytest.raises(StopIteration):
        steps.send(Page(rows(6, 8), more=False))
    assert (list(server.channels), server.joining, shown(offline)) == ([], set(), [])


def test_a_channel_that_is_renamed_while_counting(offline: OfflineBridge) -> None:
    """It continues under its new name, with the messages that waited for the end of the count."""
    server = offline.servers[0]
    connect(offline, 2)
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    steps = begun(offline, "join_channel", channel="ops")
    next(steps)
    steps.send(Joined("ops", "7-0", admin=False))
    offline.session.receive(server, Renamed("ops", "works"))
    offline.session.receive(server, live_message("text 8", "works", "8-0"))
    with pytest.raises(StopIteration):
        steps.send(Page(rows(6, 7), more=False))
    assert shown(offline)[-3:] == ["text 6", "text 7", "text 8"]
    assert server.joining == set()
    assert offline.session.unread_from(server, "works") == "8-0"


def test_the_messages_that_wait_are_bounded(offline: OfflineBridge) -> None:
    """A server may send for ever without completing the join. Dropped messages are reported."""
    server = offline.servers[0]
    steps = begun(offline, "join_channel", channel="ops")
    next(steps)
    for number in range(KEPT_MESSAGES + 1):
        offline.session.receive(server, live_message(f"text {number}"))
    steps.send(Joined("ops", admin=False))
    with pytest.raises(StopIteration):
        steps.send(UP_TO_DATE)
    assert len(offline.events.contents) == KEPT_MESSAGES + 1
    assert "catch_up to read them" in offline.events.contents[-1]
    assert offline.session.unread_from(server, "ops").startswith("@")


# --- What a channel is called ---


def test_joining_one_channel_does_not_rename_another(offline: OfflineBridge) -> None:
    """Its first messages come before the session knows of its join. They are shown then."""
    server = offline.servers[0]
    join(offline, "alpha")
    offline.run("set_perm", [], channel="alpha", level="converse")
    steps = begun(offline, "join_channel", channel="beta")
    assert next(steps) == Join("beta")
    offline.session.receive(server, live_message("early", "beta"))
    assert not server.has_unknown_channels
    assert steps.send(Joined("beta")) == AclList("beta")
    offline.session.receive(server, live_message("late", "beta"))
    steps.throw(NO_ADMIN)
    with pytest.raises(StopIteration):
        steps.send(UP_TO_DATE)
    assert list(server.channels) == ["alpha", "beta"]
    assert offline.session.level(server, "beta") is Level.NOTIFY
    assert shown(offline) == ["early", "late"]


def test_a_refused_join_leaves_nothing_behind(offline: OfflineBridge) -> None:
    """And may be tried again."""
    for _ in range(2):
        with pytest.raises(Refusal):
            offline.run("join_channel", [NOT_FOUND], channel="ops")
    assert not offline.servers[0].has_unknown_channels


def test_leaving_one_channel_does_not_rename_another(offline: OfflineBridge) -> None:
    """Its last messages come while the session leaves, and afterwards; the first are still shown."""
    server = offline.servers[0]
    join(offline, "alpha")
    join(offline, "beta")
    steps = begun(offline, "leave_channel", channel="beta")
    assert next(steps) == Leave("beta")
    offline.session.receive(server, live_message("one", "beta"))
    with pytest.raises(StopIteration):
        steps.send(None)
    offline.session.receive(server, live_message("two", "beta"))
    assert not server.has_unknown_channels
    assert list(server.channels) == ["alpha"]
    assert shown(offline) == ["one"]


def test_a_new_name_is_adopted_when_the_old_one_is_not_found(offline: OfflineBridge) -> None:
    """A v1 server does not report a rename. The level and the messages in between move to the new name."""
    server = offline.servers[0]
    for channel in ("ops", "dev"):
        join(offline, channel)
    offline.run("set_perm", [], channel="ops", level="converse")
    offline.session.receive(server, live_message("hi", "works"))
    assert server.has_unknown_channels
    assert not shown(offline), "nobody knows yet at which level"
    _, asked = run_offline(offline.session.look_up(server), [NOT_FOUND, Joined("dev"), UP_TO_DATE])
    assert asked[:2] == [Join("ops"), Join("dev")]
    assert list(server.channels) == ["dev", "works"]
    assert offline.session.level(server, "works") is Level.CONVERSE
    assert shown(offline) == ["#ops is now called #works.", "hi"]


@pytest.mark.parametrize(
    ("answers", "names"),
    [
        ([Joined("ops"), Joined("dev")], ["ops", "dev", "works"]),
        ([NOT_FOUND, NOT_FOUND], ["works"]),
        ([NO_ADMIN, Joined("dev")], ["dev", "works"]),
    ],
    ids=["none is gone", "two are gone", "one was taken away"],
)
def test_no_level_moves_to_a_name_in_doubt(offline: OfflineBridge, answers: list[Any], names: list[str]) -> None:
    """The owner granted it to another channel. Messages have the level of any channel."""
    server = offline.servers[0]
    for channel in ("ops", "dev"):
        join(offline, channel)
        offline.run("set_perm", [], channel=channel, level="converse")
    offline.session.receive(server, live_message("hi", "works"))
    run_offline(offline.session.look_up(server), [*answers, UP_TO_DATE])
    assert list(server.channels) == names
    assert offline.session.level(server, "works") is Level.NOTIFY
    assert shown(offline)[-1] == "hi"


def test_a_server_that_fails_during_a_lookup_is_asked_later(offline: OfflineBridge) -> None:
    """Until then the name stays in doubt."""
    server = offline.servers[0]
    join(offline, "ops")
    offline.session.receive(server, live_message("hi", "works"))
    run_offline(offline.session.look_up(server), [BUSY])
    assert server.has_unknown_channels
    run_offline(offline.session.look_up(server), [NOT_FOUND, UP_TO_DATE])
    assert list(server.channels) == ["works"]


def test_where_renames_are_reported_an_unknown_channel_was_never_joined(offline: OfflineBridge) -> None:
    """It is the last of one that was taken away."""
    server = offline.servers[0]
    connect(offline, 2)
    offline.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    offline.session.receive(server, live_message("hi", "works", "9-0"))
    assert (list(server.channels), server.has_unknown_channels) == (["ops"], False)


# --- Settling ---


def test_a_lost_channel_is_given_up_at_the_next_lookup(offline: OfflineBridge) -> None:
    """A v1 server does not report a kick. The other channels continue, and the session does not join again."""
    server = offline.servers[0]
    for channel in ("ops", "dev"):
        join(offline, channel)
        offline.session.receive(server, live_message("hi", channel))
    dev = Page((Row("7-0", 7, "bob/laptop/main", Body(text="hi")),), more=False)
    run_offline(offline.session.look_up(server), [Refusal(Code.UNAUTHORIZED, "not subscribed"), dev])
    assert list(server.channels) == ["dev"]
    assert "does not hear #ops any more" in offline.events.contents[-1]
    assert not server.channels["dev"].unplaced


def test_a_lookup_that_fails_for_the_moment_is_repeated(offline: OfflineBridge) -> None:
    """Its store is away: the connection is as good as before."""
    server = offline.servers[0]
    join(offline, "ops")
    offline.session.receive(server, live_message("hi"))
    run_offline(offline.session.look_up(server), [BUSY])
    assert server.channels["ops"].unplaced

"""The channels and events of a session under any order of events: pure, with the server's answers in a list."""

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
from tests.bridge.test_dispatch import ONE, Desk, rows, walked

UP_TO_DATE = Page((), more=False)
NOT_FOUND = Refusal(Code.NOT_FOUND, "channel not found")
BUSY = Refusal(Code.UNAVAILABLE, "the relay cannot reach its store")
NO_ADMIN = Refusal(Code.UNAUTHORIZED, "not an admin")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A session at a server of the first version, which tells neither positions nor what is renamed."""
    desk = Desk(tmp_path, ONE, level=Level.NOTIFY)
    speak(desk, 1)
    return desk


def speak(desk: Desk, version: int) -> None:
    """Have the server speak a version of the protocol, on its first connection."""
    desk.servers[0].version = version
    walked(desk.session.rejoin(desk.servers[0]), [None])


def said(text: str, channel: str = "ops", id_: str | None = None) -> Message:
    return Message(channel, "bob/laptop/main", Body(text=text), id_)


def shown(desk: Desk) -> list[str]:
    return [content.rsplit("\n", 1)[-1] for content in desk.screen.contents]


def join(desk: Desk, channel: str) -> None:
    desk.run("join_channel", [Joined(channel), NO_ADMIN, UP_TO_DATE], channel=channel)


def begun(desk: Desk, name: str, **arguments: Any) -> Any:
    return dispatch.begin(desk.session, name, arguments).effects


# --- What was missed ---


@pytest.mark.parametrize("version", [1, 2])
async def test_a_connection_lost_while_counting_loses_no_message(desk: Desk, version: int) -> None:
    """The rows of the first page were in nobody's hands but the count's; the next connection counts again."""
    server = desk.servers[0]
    speak(desk, version)
    placed = "5-0" if version == 2 else None
    desk.run("join_channel", [Joined("ops", placed, admin=False), Page(rows(4, 5), more=False)], channel="ops")
    answers = iter([Joined("ops", placed and "40-0", admin=False), Page(rows(6, 20), more=True)])

    async def ask(_: Request[Any]) -> Any:
        answer = next(answers, None)
        if answer is None:
            raise LinkLost("gone")
        return answer

    with pytest.raises(LinkLost):
        await run_effects(begun(desk, "join_channel", channel="ops"), ask)
    desk.session.receive(server, said("still in the queue", id_=placed and "41-0"))
    back = [Joined("ops", placed and "41-0", admin=False), Page(rows(6, 30), more=False)]
    _, asked = walked(desk.session.rejoin(server), back)
    assert asked[1] == History("ops", after="5-0")
    assert shown(desk) == ["25 messages missed in #ops; shown now.", *(f"text {number}" for number in range(6, 31))]


def test_a_refusal_while_counting_leaves_it_to_catch_up(desk: Desk) -> None:
    """The session is in the channel; what it missed must not be taken for shown because of what comes now."""
    server = desk.servers[0]
    speak(desk, 2)
    desk.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    answers = [Joined("ops", "9-0", admin=False), Page(rows(6, 7), more=True), BUSY]
    assert desk.run("join_channel", answers, channel="ops")[0] == "joined ops"
    assert "could not be read" in desk.screen.contents[0]
    desk.session.receive(server, said("live", id_="10-0"))
    assert shown(desk)[1:] == ["live"]
    assert desk.session.unread_from(server, "ops") == "5-0"


def test_what_comes_while_counting_is_shown_once_and_after_it(desk: Desk) -> None:
    """In the order of the channel, though the count takes its time."""
    server = desk.servers[0]
    join(desk, "ops")
    steps = begun(desk, "join_channel", channel="ops")
    next(steps)
    steps.send(Joined("ops", admin=False))
    desk.session.receive(server, said("text 8"))
    desk.session.receive(server, said("text 9"))
    with pytest.raises(JoinInProgress):
        next(begun(desk, "join_channel", channel="ops"))
    with pytest.raises(StopIteration):
        steps.send(Page(rows(6, 8), more=False))
    assert shown(desk)[1:] == ["text 6", "text 7", "text 8", "text 9"]


def test_a_first_join_starts_behind_what_was_said_before(desk: Desk) -> None:
    """The clock says when that was to a second only. A row that never comes live would hold the watermark for ever."""
    server = desk.servers[0]
    steps = begun(desk, "join_channel", channel="ops")
    next(steps)
    assert steps.send(Joined("ops")) == AclList("ops")
    desk.session.receive(server, said("text 7"))
    steps.throw(NO_ADMIN)
    steps.send(Page(rows(6, 8), more=True))
    with pytest.raises(StopIteration):
        steps.send(UP_TO_DATE)
    desk.session.receive(server, said("text 8"))
    desk.session.receive(server, said("text 9"))
    assert shown(desk) == ["text 7", "text 8", "text 9"]
    _, asked = walked(desk.session.settle(server), [Page(rows(9, 9), more=False)])
    assert asked == [History("ops", after="8-0")]
    assert desk.session.unread_from(server, "ops") == "9-0"


def test_a_first_join_at_mute_leaves_the_first_second_to_catch_up(desk: Desk) -> None:
    """Raising the level must not make what was said meanwhile disappear."""
    server = desk.servers[0]
    desk.run("join_channel", [Joined("ops"), NO_ADMIN, Page(rows(6, 8), more=False)], channel="ops", perm="mute")
    assert desk.session.unread_from(server, "ops").startswith("@")
    assert server.channels["ops"].received == "8-0"


def test_a_channel_that_is_left_while_counting(desk: Desk) -> None:
    """A client may call both at once; the count ends without a word."""
    server = desk.servers[0]
    join(desk, "ops")
    steps = begun(desk, "join_channel", channel="ops")
    next(steps)
    steps.send(Joined("ops", admin=False))
    desk.run("leave_channel", [None], channel="ops")
    with pytest.raises(StopIteration):
        steps.send(Page(rows(6, 8), more=False))
    assert (list(server.channels), server.joining, shown(desk)) == ([], set(), [])


def test_a_channel_that_is_renamed_while_counting(desk: Desk) -> None:
    """It goes on under its new name, with what waited for the end of the count."""
    server = desk.servers[0]
    speak(desk, 2)
    desk.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    steps = begun(desk, "join_channel", channel="ops")
    next(steps)
    steps.send(Joined("ops", "7-0", admin=False))
    desk.session.receive(server, Renamed("ops", "works"))
    desk.session.receive(server, said("text 8", "works", "8-0"))
    with pytest.raises(StopIteration):
        steps.send(Page(rows(6, 7), more=False))
    assert shown(desk)[-3:] == ["text 6", "text 7", "text 8"]
    assert server.joining == set()
    assert desk.session.unread_from(server, "works") == "8-0"


def test_the_messages_that_wait_are_bounded(desk: Desk) -> None:
    """A server that never lets one in may send for ever. What has no room is said to be missing."""
    server = desk.servers[0]
    steps = begun(desk, "join_channel", channel="ops")
    next(steps)
    for number in range(KEPT_MESSAGES + 1):
        desk.session.receive(server, said(f"text {number}"))
    steps.send(Joined("ops", admin=False))
    with pytest.raises(StopIteration):
        steps.send(UP_TO_DATE)
    assert len(desk.screen.contents) == KEPT_MESSAGES + 1
    assert "catch_up to read them" in desk.screen.contents[-1]
    assert desk.session.unread_from(server, "ops").startswith("@")


# --- What a channel is called ---


def test_joining_one_channel_does_not_rename_another(desk: Desk) -> None:
    """Its first messages come before the session knows that it is in. They are shown when it does."""
    server = desk.servers[0]
    join(desk, "alpha")
    desk.run("set_perm", [], channel="alpha", level="converse")
    steps = begun(desk, "join_channel", channel="beta")
    assert next(steps) == Join("beta")
    desk.session.receive(server, said("early", "beta"))
    assert not server.has_unknown_channels
    assert steps.send(Joined("beta")) == AclList("beta")
    desk.session.receive(server, said("late", "beta"))
    steps.throw(NO_ADMIN)
    with pytest.raises(StopIteration):
        steps.send(UP_TO_DATE)
    assert list(server.channels) == ["alpha", "beta"]
    assert desk.session.level(server, "beta") is Level.NOTIFY
    assert shown(desk) == ["early", "late"]


def test_a_refused_join_leaves_nothing_behind(desk: Desk) -> None:
    """And may be tried again."""
    for _ in range(2):
        with pytest.raises(Refusal):
            desk.run("join_channel", [NOT_FOUND], channel="ops")
    assert not desk.servers[0].has_unknown_channels


def test_leaving_one_channel_does_not_rename_another(desk: Desk) -> None:
    """Its last messages come while the session leaves, and afterwards; the first are still heard."""
    server = desk.servers[0]
    join(desk, "alpha")
    join(desk, "beta")
    steps = begun(desk, "leave_channel", channel="beta")
    assert next(steps) == Leave("beta")
    desk.session.receive(server, said("one", "beta"))
    with pytest.raises(StopIteration):
        steps.send(None)
    desk.session.receive(server, said("two", "beta"))
    assert not server.has_unknown_channels
    assert list(server.channels) == ["alpha"]
    assert shown(desk) == ["one"]


def test_a_new_name_is_adopted_when_the_old_one_is_not_found(desk: Desk) -> None:
    """A v1 server does not say that a channel was renamed. Its level and what was said meanwhile come along."""
    server = desk.servers[0]
    for channel in ("ops", "dev"):
        join(desk, channel)
    desk.run("set_perm", [], channel="ops", level="converse")
    desk.session.receive(server, said("hi", "works"))
    assert server.has_unknown_channels
    assert not shown(desk), "nobody knows yet at which level"
    _, asked = walked(desk.session.settle(server), [NOT_FOUND, Joined("dev"), UP_TO_DATE])
    assert asked[:2] == [Join("ops"), Join("dev")]
    assert list(server.channels) == ["dev", "works"]
    assert desk.session.level(server, "works") is Level.CONVERSE
    assert shown(desk) == ["#ops is now called #works.", "hi"]


@pytest.mark.parametrize(
    ("answers", "names"),
    [
        ([Joined("ops"), Joined("dev")], ["ops", "dev", "works"]),
        ([NOT_FOUND, NOT_FOUND], ["works"]),
        ([NO_ADMIN, Joined("dev")], ["dev", "works"]),
    ],
    ids=["none is gone", "two are gone", "one was taken away"],
)
def test_no_level_moves_to_a_name_in_doubt(desk: Desk, answers: list[Any], names: list[str]) -> None:
    """The owner granted it to another channel. What is heard has the level of any channel."""
    server = desk.servers[0]
    for channel in ("ops", "dev"):
        join(desk, channel)
        desk.run("set_perm", [], channel=channel, level="converse")
    desk.session.receive(server, said("hi", "works"))
    walked(desk.session.settle(server), [*answers, UP_TO_DATE])
    assert list(server.channels) == names
    assert desk.session.level(server, "works") is Level.NOTIFY
    assert shown(desk)[-1] == "hi"


def test_a_server_that_cannot_tell_just_now_is_asked_later(desk: Desk) -> None:
    """Until then the name stays in doubt."""
    server = desk.servers[0]
    join(desk, "ops")
    desk.session.receive(server, said("hi", "works"))
    walked(desk.session.settle(server), [BUSY])
    assert server.has_unknown_channels
    walked(desk.session.settle(server), [NOT_FOUND, UP_TO_DATE])
    assert list(server.channels) == ["works"]


def test_where_renames_are_told_an_unknown_channel_is_none_of_ours(desk: Desk) -> None:
    """It is the last of one that was taken away."""
    server = desk.servers[0]
    speak(desk, 2)
    desk.run("join_channel", [Joined("ops", "5-0", admin=False)], channel="ops")
    desk.session.receive(server, said("hi", "works", "9-0"))
    assert (list(server.channels), server.has_unknown_channels) == (["ops"], False)


# --- Settling ---


def test_a_channel_that_is_taken_away_is_given_up_when_settling(desk: Desk) -> None:
    """A v1 server does not say that it kicks somebody. The others go on, and nobody comes back by themselves."""
    server = desk.servers[0]
    for channel in ("ops", "dev"):
        join(desk, channel)
        desk.session.receive(server, said("hi", channel))
    dev = Page((Row("7-0", 7, "bob/laptop/main", Body(text="hi")),), more=False)
    walked(desk.session.settle(server), [Refusal(Code.UNAUTHORIZED, "not subscribed"), dev])
    assert list(server.channels) == ["dev"]
    assert "does not hear #ops any more" in desk.screen.contents[-1]
    assert not server.channels["dev"].unplaced


def test_a_server_that_cannot_settle_just_now_is_asked_later(desk: Desk) -> None:
    """Its store is away: the connection is as good as before."""
    server = desk.servers[0]
    join(desk, "ops")
    desk.session.receive(server, said("hi"))
    walked(desk.session.settle(server), [BUSY])
    assert server.channels["ops"].unplaced

"""Which frame answers which request, on a wire without request ids."""

import pytest

from conclave.closing import IDLE, KEY_REVOKED, SLOW, SUPERSEDED, LinkLost, LoginRefused, in_words, may_retry
from conclave.errors import Code, LinkError, Refusal
from conclave.exchange import CLOSED, UNKNOWN_OPERATION, Answer, Ending, Exchange, Heard, OutOfStep
from conclave.model import Plain, SessionPath, Visibility
from conclave.v1.admin import (
    AclAdd,
    AclList,
    AclPromote,
    Audit,
    BanList,
    CreateChannel,
    InviteCreate,
    InviteListOp,
    ServerInviteCreate,
)
from conclave.v1.frames import (
    Ack,
    Admin,
    AuditList,
    ChannelList,
    ChannelMsg,
    Error,
    Frame,
    History,
    Internal,
    InviteList,
    InviteToken,
    Join,
    Joined,
    Leave,
    ListChannels,
    ListMachines,
    ListUsers,
    MachineList,
    NotFound,
    Ping,
    Pong,
    Presence,
    ReadSince,
    ServerInfo,
    Unauthorized,
    UserList,
    Whisper,
    Who,
)

ANN = SessionPath("ann", "laptop", "x")
POST = ChannelMsg("ops", ANN, Plain("hi"))

PAIRS: list[tuple[Frame, Frame]] = [
    (Join("ops"), Joined("ops")),
    (Leave("ops"), Ack("ops")),
    (Who(), Presence(None, ())),
    (Who("ops"), Presence("ops", ())),
    (ListChannels(), ChannelList(())),
    (ListMachines(), MachineList(())),
    (ListUsers(), UserList(())),
    (POST, Ack()),
    (Whisper(ANN, ANN, Plain("hi")), Ack()),
    (ReadSince("ops", 0), History("ops", ())),
    (Ping(), Pong()),
    (Admin(CreateChannel("ops", Visibility.PUBLIC)), Ack("ops")),
    (Admin(AclAdd("ops", "bob")), Ack("bob")),
    (Admin(AclList("ops")), UserList(())),
    (Admin(BanList("ops")), UserList(())),
    (Admin(InviteCreate("ops")), InviteToken("t")),
    (Admin(InviteListOp("ops")), InviteList(())),
    (Admin(AclPromote("ops", "bob")), Ack("bob")),
    (Admin(ServerInviteCreate()), InviteToken("t")),
    (Admin(Audit(9)), AuditList(())),
]


def exchange(*requests: Frame) -> Exchange[int]:
    made: Exchange[int] = Exchange()
    for number, request in enumerate(requests):
        made.ask(request, number)
    return made


@pytest.mark.parametrize(("request_", "reply"), PAIRS)
def test_a_request_takes_its_kind_of_reply(request_: Frame, reply: Frame) -> None:
    """Every request has exactly one kind of reply."""
    assert exchange(request_).receive(reply) == Answer(0, reply)


@pytest.mark.parametrize(("request_", "reply"), PAIRS)
def test_a_request_takes_no_other_reply(request_: Frame, reply: Frame) -> None:
    """One lost reply would shift every later answer to the wrong question."""
    for _, other in PAIRS:
        if type(other) is not type(reply) and not isinstance(other, Pong):
            with pytest.raises(OutOfStep, match="unexpected response"):
                exchange(request_).receive(other)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [(Join("ops"), Joined("dev")), (ReadSince("ops", 0), History("dev", ())), (Who("ops"), Presence(None, ()))],
)
def test_a_reply_about_another_channel_is_no_answer(request_: Frame, reply: Frame) -> None:
    """Two joins in a row are told apart by their channel."""
    with pytest.raises(OutOfStep):
        exchange(request_).receive(reply)


def test_replies_answer_requests_oldest_first() -> None:
    """The server handles them one by one."""
    pending = exchange(Join("a"), Join("b"), Who())
    assert pending.receive(Joined("a")) == Answer(0, Joined("a"))
    assert pending.receive(POST) == Heard(POST)
    assert pending.receive(Joined("b")) == Answer(1, Joined("b"))
    assert pending.open_tickets() == [2]


@pytest.mark.parametrize("event", [POST, Whisper(ANN, ANN, Plain("")), ServerInfo(admin=True)])
def test_an_event_answers_nothing(event: ChannelMsg | Whisper | ServerInfo) -> None:
    """A message that arrives between a request and its reply is not the reply."""
    pending = exchange(POST)
    assert pending.receive(event) == Heard(event)
    assert pending.receive(Ack()) == Answer(0, Ack())


def test_a_pong_that_nobody_waits_for_means_nothing() -> None:
    """It answers a question that is no longer of interest."""
    assert exchange().receive(Pong()) is None
    assert exchange(Who()).receive(Pong()) is None


def test_a_reply_that_nobody_waits_for_is_out_of_step() -> None:
    """The next request would take the wrong one."""
    with pytest.raises(OutOfStep):
        exchange().receive(Ack())


def test_an_error_refuses_the_oldest_request() -> None:
    """With its kind and text."""
    answer = exchange(Join("a"), Join("b")).receive(Error(NotFound("channel `a` not found")))
    assert isinstance(answer, Answer)
    assert answer.ticket == 0
    assert isinstance(answer.reply, Refusal)
    assert in_words(answer.reply) == "not found: channel `a` not found"


@pytest.mark.parametrize("reason", [SUPERSEDED, IDLE, SLOW, KEY_REVOKED, "session terminated"])
def test_a_kill_answers_no_request(reason: str) -> None:
    """The request may have succeeded: the kill is about the session."""
    assert exchange(POST).receive(Error(Unauthorized(reason))) == Ending(reason, f"unauthorized: {reason}")


def test_an_error_that_refuses_nothing_announces_the_close() -> None:
    """With nothing open, or only a ping, which no server refuses."""
    ending = Ending("going away", "internal error: going away")
    assert exchange().receive(Error(Internal("going away"))) == ending
    assert exchange(Ping()).receive(Error(Internal("going away"))) == ending


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (LinkLost("gone"), True),
        (LinkLost("x", IDLE), True),
        (LinkLost("x", SLOW), True),
        (LinkLost("x", "session terminated"), True),
        (LinkLost("x", "a text of a later version"), True),
        (LinkLost("x", SUPERSEDED), False),
        (LinkLost("x", KEY_REVOKED), False),
        (LinkLost("x", "user removed from this server"), False),
        (LoginRefused("x", Refusal(Code.UNAUTHORIZED, "unknown machine key")), False),
        (LoginRefused("x", Refusal(Code.VERSION, "incompatible")), False),
        (LoginRefused("x", Refusal(Code.UNAUTHORIZED, "handshake timed out")), True),
        (LoginRefused("x", Refusal(Code.INTERNAL, "no")), True),
        (LinkError("failed to connect"), True),
    ],
)
def test_the_reason_decides_whether_to_come_back(error: LinkError, retry: bool) -> None:
    """Coming back after a supersede starts a war; giving up after an idle kill loses a listener."""
    assert may_retry(error) is retry


@pytest.mark.parametrize(
    ("requests", "orderly", "meaning"),
    [
        ([], True, CLOSED),
        ([Join("ops")], True, CLOSED),
        ([Admin(AclAdd("ops", "bob"))], True, CLOSED),
        ([Admin(AclPromote("ops", "bob"))], True, UNKNOWN_OPERATION),
        ([Ping(), Admin(Audit(9))], True, UNKNOWN_OPERATION),
        ([Admin(AclPromote("ops", "bob"))], False, CLOSED),
    ],
)
def test_a_silent_close_after_an_appended_operation_means_an_older_server(
    requests: list[Frame], orderly: bool, meaning: str
) -> None:
    """It could not read the request; a server that dies does not close in good order."""
    assert exchange(*requests).closed(orderly=orderly) == meaning

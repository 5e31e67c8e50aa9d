"""Following a channel, against a simulated server that delivers late, cuts connections and repeats the same texts.

The simulation has no socket and no clock: a seed decides when messages are posted, when their live copies arrive and
when the connection breaks, and every run of it can be repeated.
"""

import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any, Self, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.follower import SINCE_SLACK_MS, Change, Follower
from conclave.backoff import Backoff
from conclave.client.link import Link
from conclave.client.v1.exchange import V1Exchange
from conclave.errors import Code, ConclaveError, LinkError, LinkLost, LoginRefused, Refusal
from conclave.model import Plain, SessionPath
from conclave.protocol.body import Body
from conclave.protocol.close_texts import KEY_REVOKED
from conclave.protocol.events import Event, Gap, Left, Message, Renamed, Role, Whispered
from conclave.protocol.requests import History, Join, Joined, Page, Request, Row
from conclave.protocol.v1 import frames
from conclave.protocol.v2 import CloseCode
from tests.support.v1_answers import answered

ME = SessionPath("ann", "laptop", "cli-1")
SENDERS = [SessionPath("bob", "desktop", "y"), SessionPath("cy", "phone", "z")]
BOB = str(SENDERS[0])
START_MS = 1_800_000_000_000


class Done(Exception):
    """All posts have been delivered."""


class Server:
    """A channel with a history, and live copies that arrive late."""

    def __init__(self, seed: int, posts: int, *, page: int = 3, in_order: bool = True, retained: int = 5) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a simulation
        self.page = page
        self.in_order = in_order
        self.now_ms = START_MS
        self.rows: list[frames.HistoryMessage] = []
        self.may_cut = False
        self.reads = 0
        self.posts_left = retained
        while self.posts_left:
            self.post()
        self.posts_left = posts

    def post(self) -> None:
        if not self.posts_left:
            return
        self.posts_left -= 1
        self.now_ms += self.random.choice([0, 0, 0, 1, 7, 400])
        body = Plain(self.random.choice(["ok", "ok", "no", "see you"]))
        self.rows.append(frames.HistoryMessage(self.random.choice(SENDERS), self.now_ms, body))

    def history(self, since_ms: int) -> tuple[frames.HistoryMessage, ...]:
        """Answer a page that ends with a whole millisecond, as a relay does."""
        self.reads += 1
        newer = [row for row in self.rows if row.ts_ms > since_ms]
        last = newer[min(self.page, len(newer)) - 1].ts_ms if newer else 0
        return tuple(row for row in newer if row.ts_ms <= last)

    async def dial(self) -> Link:
        return cast("Link", FakeLink(self))


class FakeLink:
    """A link with the real exchange and a simulated server. Events may happen before and after every step."""

    path = str(ME)
    version = 1

    def __init__(self, server: Server) -> None:
        self.server = server
        self.cut = False
        self.joined = False
        self.under_way: list[frames.HistoryMessage] = []
        self.sent = 0
        self.arrived: deque[Event] = deque([Role(admin=False)])
        self.exchange: V1Exchange[None] = V1Exchange(ME)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def server_ms(self) -> int:
        return self.server.now_ms // 1000 * 1000

    @property
    def queued(self) -> int:
        return len(self.arrived)

    async def request(self, request: Request[Any]) -> Any:
        return self.answer(request)

    def answer(self, request: Request[Any]) -> Any:
        return answered(self.exchange, request, self._serve)

    def message(self, row: frames.HistoryMessage) -> Message:
        return Message("ops", str(row.from_), body(row))

    async def next_event(self) -> Event:
        while not self.arrived:
            self.happen()
            self.fail_if_cut()
            if not (self.server.posts_left or self.under_way or self.arrived or self.sent < len(self.server.rows)):
                raise Done
        return self.arrived.popleft()

    def _serve(self, frame: frames.Frame) -> frames.Frame:
        self.happen()
        if isinstance(frame, frames.Join):
            self.join()
            reply: frames.Frame = frames.Joined(frame.channel)
        else:
            assert isinstance(frame, frames.ReadSince)
            reply = frames.History(frame.channel, self.server.history(frame.since_ms))
        self.happen()
        self.fail_if_cut()
        return reply

    def join(self) -> None:
        self.joined, self.sent = True, len(self.server.rows)

    def fail_if_cut(self) -> None:
        if self.cut:
            raise LinkLost("connection closed before a response arrived")

    def happen(self) -> None:
        draw = self.server.random.random
        while draw() < 0.4:
            self.server.post()
        if self.joined:
            self.under_way += self.server.rows[self.sent :]
            self.sent = len(self.server.rows)
        if not self.server.in_order:
            self.server.random.shuffle(self.under_way)
        while self.under_way and draw() < 0.5:
            self.arrived.append(self.message(self.under_way.pop(0)))
        if self.server.may_cut and self.server.posts_left and draw() < 0.04:
            self.cut = True


class PlacedLink(FakeLink):
    """A link of protocol v2: messages have positions, and a join with one continues from there."""

    version = 2

    def message(self, row: frames.HistoryMessage) -> Message:
        place = next(number for number, other in enumerate(self.server.rows) if other is row)
        return Message("ops", str(row.from_), body(row), f"at {place}", row.ts_ms)

    def answer(self, request: Request[Any]) -> Any:
        self.happen()
        if isinstance(request, Join):
            result: Any = self._enter(request)
        else:
            assert isinstance(request, History)
            result = self._page(request)
        self.happen()
        self.fail_if_cut()
        return result

    def _enter(self, request: Join) -> Joined:
        self.join()
        position = f"at {self.sent - 1}"
        if request.since is None:
            return Joined(request.channel, position)
        self.sent = int(request.since[3:]) + 1
        return Joined(request.channel, position, recovered=True)

    def _page(self, request: History) -> Page:
        newer = [
            Row(f"at {place}", row.ts_ms, str(row.from_), body(row))
            for place, row in enumerate(self.server.rows)
            if (row.ts_ms > (request.after_ts or 0) if request.after is None else place > int(request.after[3:]))
        ]
        return Page(tuple(newer[: self.server.page]), more=len(newer) > self.server.page)


def body(row: frames.HistoryMessage) -> Body:
    assert isinstance(row.payload, Plain)
    return Body(text=row.payload.text)


class Screen:
    """Records what was shown."""

    def __init__(self, server: Server | None = None) -> None:
        self.server = server
        self.messages: list[tuple[str, Body]] = []
        self.times: list[int | None] = []
        self.log: list[str] = []
        self.posted_at_start = 0

    def started(self, channel: str, path: str) -> None:
        self.log.append(f"started {channel} as {path}")
        if self.server is not None:
            self.posted_at_start = len(self.server.rows)
            self.server.may_cut = True

    def message(self, channel: str, sender: str, body: Body, ts_ms: int | None) -> None:
        self.messages.append((sender, body))
        self.times.append(ts_ms)
        self.log.append(f"[{channel}] {body.text}")

    def whisper(self, sender: str, body: Body) -> None:
        self.log.append(f"[whisper] {sender.partition('/')[0]}: {body.text}")

    def changed(self, change: Change, channel: str) -> None:
        self.log.append(f"{change.value} {channel}")

    def renamed(self, old: str, new: str) -> None:
        self.log.append(f"{old} is now {new}")

    def gap(self, channel: str) -> None:
        self.log.append(f"gap in {channel}")


def follower(
    dial: Callable[[], Awaitable[Link]], screen: Screen, since: int | None, check_seconds: float = 30
) -> Follower:
    backoff = Backoff(draw=lambda _low, _high: 0.0)
    return Follower(dial, "ops", since, screen, backoff=backoff, check_seconds=check_seconds)


def sent(rows: list[frames.HistoryMessage]) -> list[tuple[str, Body]]:
    return [(str(row.from_), body(row)) for row in rows]


@given(seed=st.integers(0, 2**32), check_seconds=st.sampled_from([30.0, 0.0]), retained=st.sampled_from([0, 1, 5, 40]))
async def test_from_the_join_on_every_message_is_shown_once_and_in_order(
    seed: int, check_seconds: float, retained: int
) -> None:
    """Connections are cut, live copies are late, most messages are equal, and many share a millisecond."""
    server = Server(seed, posts=60, retained=retained)
    screen = Screen(server)
    with pytest.raises(Done):
        await follower(server.dial, screen, None, check_seconds).run()
    assert screen.messages == sent(server.rows[len(server.rows) - len(screen.messages) :])
    assert len(screen.messages) >= len(server.rows) - screen.posted_at_start


@given(seed=st.integers(0, 2**32), check_seconds=st.sampled_from([30.0, 0.0]), page=st.sampled_from([1, 3, 500]))
async def test_since_shows_the_history_and_continues_live_without_gap_or_repeat(
    seed: int, check_seconds: float, page: int
) -> None:
    """The history has several pages."""
    server = Server(seed, posts=60, retained=30, page=page)
    screen = Screen(server)
    with pytest.raises(Done):
        await follower(server.dial, screen, 3600, check_seconds).run()
    assert screen.messages == sent(server.rows)


@given(seed=st.integers(0, 2**32))
async def test_no_message_is_missing_from_a_server_without_a_global_order(seed: int) -> None:
    """The original may deliver two posts in another order than in its history: a repeat is possible, a gap is not."""
    server = Server(seed, posts=60, in_order=False)
    screen = Screen(server)
    with pytest.raises(Done):
        await follower(server.dial, screen, 3600).run()
    assert Counter(screen.messages) >= Counter(sent(server.rows))


@given(
    seed=st.integers(0, 2**32),
    check_seconds=st.sampled_from([30.0, 0.0]),
    page=st.sampled_from([1, 3, 500]),
    since=st.sampled_from([None, 3600]),
)
async def test_live_messages_with_positions_are_shown_once_and_in_order(
    seed: int, check_seconds: float, page: int, since: int | None
) -> None:
    """A message may arrive first live or first from the history."""
    server = Server(seed, posts=60, page=page)
    screen = Screen(server)

    async def dial() -> Link:
        return cast("Link", PlacedLink(server))

    with pytest.raises(Done):
        await follower(dial, screen, since, check_seconds).run()
    assert screen.messages == sent(server.rows[len(server.rows) - len(screen.messages) :])
    assert len(screen.messages) >= len(server.rows) - (screen.posted_at_start if since is None else 0)


async def test_reading_continues_after_a_live_message_with_a_position() -> None:
    """Its time is shown, too. After a lost connection nothing before it is requested."""
    placed = [Message("ops", BOB, Body(text="ok"), f"place {number}", number) for number in (7, 8)]
    again = Scripted([], Done())
    screen = Screen()
    with pytest.raises(Done):
        await follower(dialling(Scripted([*placed], LOST), again), screen, 60).run()
    assert again.asked == [History("ops", after="place 8", limit=500)]
    assert screen.times == [7, 8]


async def test_since_counts_back_from_the_servers_clock() -> None:
    """The clock of a laptop may be hours off."""
    server = Server(1, posts=0, retained=0)
    for age_s in (100, 61, 30):
        server.rows.append(frames.HistoryMessage(SENDERS[0], START_MS - age_s * 1000, Plain(f"{age_s}")))
    screen = Screen(server)
    with pytest.raises(Done):
        await follower(server.dial, screen, 60).run()
    assert SINCE_SLACK_MS == 5000
    assert [said.text for _, said in screen.messages] == ["61", "30"]


@pytest.mark.parametrize("age_ms", [1, 61_000, 3_600_000, 6 * 86_400_000])
async def test_the_starting_position_is_found_after_a_long_silence(age_ms: int) -> None:
    """The search takes few requests. The reader's clock affects only their number."""
    server = Server(1, posts=0, retained=0)
    for number in range(2000):
        server.rows.append(frames.HistoryMessage(SENDERS[0], START_MS - age_ms - 3 * (2000 - number), Plain("old")))
    server.page = 500
    screen = Screen(server)
    with pytest.raises(Done):
        await follower(server.dial, screen, None).run()
    assert screen.messages == []
    assert server.reads < 40


# --- Single events, one after the other ---


END = Page((), more=False)


class Scripted:
    """A link that answers from a list and then ends."""

    path = str(ME)
    version = 1

    def __init__(
        self, events: list[Event], end: Exception, answers: dict[type, list[Page | Joined | Exception]] | None = None
    ) -> None:
        self.events = list(events)
        self.end = end
        self.answers = answers or {}
        self.joined = ""
        self.since: str | None = None
        self.asked: list[History] = []

    @property
    def queued(self) -> int:
        return len(self.events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def server_ms(self) -> int:
        return START_MS

    async def request(self, request: Request[Any]) -> Any:
        if isinstance(request, History):
            self.asked.append(request)
        if isinstance(request, Join):
            self.since = request.since
        prepared = self.answers.get(type(request))
        if prepared:
            answer = prepared.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        if isinstance(request, Join):
            self.joined = request.channel
            return Joined(request.channel)
        assert isinstance(request, History)
        return END

    async def next_event(self) -> Event:
        if not self.events:
            raise self.end
        return self.events.pop(0)


def dialling(*links: Scripted | Exception) -> Callable[[], Awaitable[Link]]:
    waiting = list(links)

    async def dial() -> Link:
        link = waiting.pop(0)
        if isinstance(link, Exception):
            raise link
        return cast("Link", link)

    return dial


def post(text: str, channel: str = "ops") -> Message:
    return Message(channel, BOB, Body(text=text))


LOST = LinkLost("connection closed before a response arrived")


async def test_a_lost_connection_is_reported_once_and_resumed() -> None:
    """Failed attempts in between are not reported."""
    screen = Screen()
    links = (Scripted([post("a")], LOST), LinkError("failed"), LinkError("failed"), Scripted([post("b")], Done()))
    with pytest.raises(Done):
        await follower(dialling(*links), screen, None).run()
    assert screen.log == ["started ops as ann/laptop/cli-1", "[ops] a", "lost ops", "resumed ops", "[ops] b"]


async def test_whispers_are_shown_as_they_arrive() -> None:
    """The history does not contain them."""
    screen = Screen()
    with pytest.raises(Done):
        await follower(dialling(Scripted([Whispered(BOB, Body(text="psst"))], Done())), screen, None).run()
    assert screen.log[1:] == ["[whisper] bob: psst"]


async def test_a_rename_is_noticed_and_followed_over_a_reconnect() -> None:
    """The session stays in the channel under the new name; by then the old one may belong to another channel."""
    screen = Screen()
    again = Scripted([], Done())
    links = (Scripted([post("a"), post("b", "dev")], LOST), again)
    with pytest.raises(Done):
        await follower(dialling(*links), screen, None).run()
    assert screen.log[1:] == ["[ops] a", "ops is now dev", "[dev] b", "lost dev", "resumed dev"]
    assert again.joined == "dev"


async def test_a_removal_from_the_channel_is_noticed_without_any_message() -> None:
    """Over v1 only the refusal of the next read shows a kick, a ban or a deletion."""
    gone = Refusal(Code.UNAUTHORIZED, "not a member of channel `ops`")
    link = Scripted([Role(admin=False)] * 9, Done(), {History: [END, END, gone]})
    with pytest.raises(ConclaveError) as caught:
        await follower(dialling(link), Screen(), 60, check_seconds=0).run()
    assert str(caught.value) == "server terminated the stream: unauthorized: not a member of channel `ops`"


async def test_a_history_that_is_unavailable_for_a_moment_is_retried() -> None:
    """The sessions of a relay outlive an outage of its store."""
    away = Refusal(Code.INTERNAL, "the store is away")
    link = Scripted([post("a")], Done(), {History: [END, END, away]})
    screen = Screen()
    task = follower(dialling(link), screen, 60, check_seconds=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cli.follower.Backoff", lambda **_: Backoff(draw=lambda _l, _h: 0.0))
        with pytest.raises(Done):
            await task.run()
    assert screen.log[1:] == ["[ops] a"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            LinkLost(f"unauthorized: {KEY_REVOKED}", KEY_REVOKED),
            f"server terminated the stream: unauthorized: {KEY_REVOKED}",
        ),
    ],
)
async def test_a_final_close_ends_the_stream(error: LinkLost, text: str) -> None:
    """A reconnect would be refused, or would supersede the session that took the path."""
    screen = Screen()
    with pytest.raises(ConclaveError) as caught:
        await follower(dialling(Scripted([post("a")], error)), screen, None).run()
    assert str(caught.value) == text
    assert "lost ops" not in screen.log


async def test_a_passing_close_is_a_lost_connection() -> None:
    """An idle timeout or a slow reader is no reason to stop following."""
    idle = LinkLost("unauthorized: idle timeout: no heartbeat", "idle timeout: no heartbeat")
    screen = Screen()
    with pytest.raises(Done):
        await follower(dialling(Scripted([], idle), Scripted([], Done())), screen, None).run()
    assert screen.log[1:] == ["lost ops", "resumed ops"]


async def test_a_login_refused_on_a_reconnect_ends_the_stream() -> None:
    """A revoked key must not be retried for ever."""
    refused = LoginRefused("authentication rejected: unauthorized: x", Refusal(Code.UNAUTHORIZED, "x"))
    with pytest.raises(LoginRefused):
        await follower(dialling(Scripted([], LOST), refused), Screen(), None).run()


async def test_a_first_connection_that_fails_is_not_retried() -> None:
    """A typo in the URL must not look like waiting."""
    with pytest.raises(LinkError, match="failed to connect"):
        await follower(dialling(LinkError("failed to connect")), Screen(), None).run()


async def test_a_refused_join_ends_the_stream() -> None:
    """The error has the server's text."""
    link = Scripted([], Done(), {Join: [Refusal(Code.NOT_FOUND, "channel `ops` not found")]})
    with pytest.raises(ConclaveError) as caught:
        await follower(dialling(link), Screen(), None).run()
    assert str(caught.value) == "join rejected: not found: channel `ops` not found"


async def test_a_join_that_fails_in_passing_is_retried_after_a_reconnect() -> None:
    """The store may still be unavailable when the node is back."""
    away = Refusal(Code.INTERNAL, "the store is away")
    links = (Scripted([], LOST), Scripted([], Done(), {Join: [away]}), Scripted([post("b")], Done()))
    screen = Screen()
    with pytest.raises(Done):
        await follower(dialling(*links), screen, None).run()
    assert screen.log[1:] == ["lost ops", "resumed ops", "[ops] b"]


async def test_a_burst_of_ambiguous_copies_costs_one_read_of_the_history() -> None:
    """One read of the history recognises every copy that arrived before it."""
    rows = tuple(Row(f"{START_MS}:{number}", START_MS, BOB, Body(text="ok")) for number in range(1, 51))
    link = Scripted([post("ok")] * 50, Done(), {History: [Page(rows, more=True)]})
    screen = Screen()
    with pytest.raises(Done):
        await follower(dialling(link), screen, 60).run()
    assert len(screen.messages) == 50
    assert len(link.asked) < 10


async def test_a_message_that_was_never_stored_causes_no_repeat() -> None:
    """The original delivers messages that it fails to store; those around one were shown from the history."""
    kept = Row(f"{START_MS}:1", START_MS, BOB, Body(text="kept"))
    link = Scripted([post("lost"), post("kept")], Done(), {History: [END, Page((kept,), more=True)]})
    screen = Screen()
    with pytest.raises(Done):
        await follower(dialling(link), screen, 60, check_seconds=0).run()
    assert screen.log[1:] == ["[ops] kept", "[ops] lost"]


async def test_each_outage_starts_with_the_shortest_wait() -> None:
    """A success in between shows that the server is back."""
    ceilings: list[float] = []

    def draw(_low: float, high: float) -> float:
        ceilings.append(high)
        return 0.0

    links = (Scripted([], LOST), LinkError("no"), LinkError("no"), Scripted([], LOST), Scripted([], Done()))
    with pytest.raises(Done):
        await Follower(dialling(*links), "ops", 60, Screen(), backoff=Backoff(draw=draw)).run()
    assert ceilings == [1, 2, 4, 1]


# --- Version 2: the server goes on where the last message was, and says what happens ---


class Scripted2(Scripted):
    """The same for protocol v2; `joined` is the reply to the join."""

    version = 2

    def __init__(self, joined: Joined, events: list[Event], end: Exception, *pages: Page) -> None:
        super().__init__(events, end, {Join: [joined], History: [*pages]})


def placed(number: int, channel: str = "ops") -> Message:
    return Message(channel, BOB, Body(text=f"text {number}"), f"{number}-0", number)


def back(position: int, *, recovered: bool = True) -> Joined:
    return Joined("ops", f"{position}-0", recovered=recovered, admin=False)


async def test_a_reconnect_continues_from_the_last_message_without_reading_history() -> None:
    """The server knows what is missing, and replays it before the live messages."""
    first = Scripted2(Joined("ops", "4-0"), [placed(5), placed(6)], LOST)
    second, third = Scripted2(back(8), [placed(7)], LOST), Scripted2(back(9), [placed(8), placed(9)], Done())
    screen = Screen()
    with pytest.raises(Done):
        await follower(dialling(first, second, third), screen, None).run()
    assert [link.since for link in (first, second, third)] == [None, "6-0", "7-0"]
    assert [body.text for _, body in screen.messages] == [f"text {number}" for number in range(5, 10)]
    assert first.asked == second.asked == third.asked == []


async def test_without_a_message_a_reconnect_continues_from_the_join() -> None:
    """Messages before the join stay unseen, and none after it is missing."""
    second = Scripted2(back(4), [], Done())
    with pytest.raises(Done):
        await follower(dialling(Scripted2(Joined("ops", "4-0"), [], LOST), second), Screen(), None).run()
    assert second.since == "4-0"


async def test_a_gap_is_shown_in_its_place() -> None:
    """A reader must not take the remaining messages for all."""
    row = Row("3-0", 3, BOB, Body(text="text 3"))
    first = Scripted2(Joined("ops", "3-0"), [placed(4)], LOST, Page((row,), more=False, lost=True))
    second = Scripted2(back(9, recovered=False), [Gap("ops", "4-0"), placed(9)], Done())
    screen = Screen()
    with pytest.raises(Done):
        await follower(dialling(first, second), screen, 60).run()
    assert screen.log[1:] == [
        *("gap in ops", "[ops] text 3", "[ops] text 4"),
        *("lost ops", "resumed ops", "gap in ops", "[ops] text 9"),
    ]


async def test_a_rename_event_is_followed_immediately_and_over_a_reconnect() -> None:
    """The event arrives without any message."""
    again = Scripted2(Joined("dev", "5-0", recovered=True), [placed(6, "dev")], Done())
    links = (Scripted2(Joined("ops", "4-0"), [placed(5), Renamed("ops", "dev")], LOST), again)
    screen = Screen()
    with pytest.raises(Done):
        await follower(dialling(*links), screen, None).run()
    assert screen.log[1:] == ["[ops] text 5", "ops is now dev", "lost dev", "resumed dev", "[dev] text 6"]


@pytest.mark.parametrize(
    ("reason", "words"),
    [("banned", "you were banned"), ("deleted", "was deleted"), ("unheard-of", "is not in the channel any more")],
)
async def test_a_lost_channel_ends_the_stream_with_its_reason(reason: str, words: str) -> None:
    """No further message is needed to notice it."""
    link = Scripted2(Joined("ops", "4-0"), [Left("ops", reason)], Done())
    with pytest.raises(ConclaveError, match=f"^server terminated the stream: .*{words}"):
        await follower(dialling(link), Screen(), None).run()


async def test_no_reconnect_happens_before_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """An overloaded server must not get the next login too early."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    later = LinkLost("overloaded", "overloaded", code=CloseCode.LATER, retry_after=7)
    links = (Scripted2(Joined("ops", "4-0"), [], later), Scripted2(back(4), [], Done()))
    monkeypatch.setattr("cli.follower.asyncio.sleep", sleep)
    with pytest.raises(Done):
        await follower(dialling(*links), Screen(), None).run()
    assert waits == [7]


async def test_a_change_of_the_protocol_version_loses_no_message() -> None:
    """Positions of one version are meaningless in the other; the time of the last message replaces them."""
    older, newer = Scripted([post("text 6")], LOST), Scripted2(Joined("ops", "5-0"), [placed(5)], LOST)
    rows = tuple(Row(f"{number}:1", number, BOB, Body(text=f"text {number}")) for number in (5, 6))
    older.answers = {History: [Page(rows, more=True), END]}
    last = Scripted2(Joined("ops", "6-0"), [], Done())
    screen = Screen()
    with pytest.raises(Done):
        await follower(dialling(newer, older, last), screen, None).run()
    assert older.asked[0] == History("ops", after_ts=4, limit=500)
    assert last.since is None
    assert last.asked == [History("ops", after_ts=5, limit=500)]
    assert screen.log[1:] == [
        *("[ops] text 5", "lost ops", "resumed ops"),
        *("[ops] text 5", "[ops] text 6", "lost ops", "resumed ops"),
    ]

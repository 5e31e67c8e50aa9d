"""Delivery by groups of outboxes compared with the rule for one subscriber, in any order of events."""

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from conclave.model import SessionPath
from relay.channels.catch_up import CatchUp
from relay.channels.recipients import Recipients, Subscriber
from relay.model.message import Message
from relay.protocol.v1 import V1Codec
from relay.sessions.outbox import Flusher, FlushPolicy, Outbox
from relay.sessions.session import Session

PATHS = [SessionPath(user, "laptop", "main") for user in ("ann", "bob")]
LATEST = 2
"""The latest start of a subscriber, in messages from the present one."""


class Encoder(V1Codec):
    """Encodes a message as its id, and counts."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def message(self, channel: str, message: Message) -> bytes:
        self.encoded.append(message.id)
        return f"{channel}:{message.id};".encode()


class Written(bytearray):
    """A transport whose client reads everything."""

    def write(self, data: bytes) -> None:
        self.extend(data)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


async def _never_behind() -> None:
    """Take the place of a wait for a client that reads."""


class Listener:
    """A session, the rule by which it gets messages, and what it got."""

    def __init__(self, number: int, path: SessionPath, encoder: Encoder, flusher: Flusher) -> None:
        self.written = Written()
        self.expected = b""
        self.subscriber: Subscriber | None = None
        outbox = Outbox(self.written, flusher, limit=1 << 20, on_overflow=lambda: None)
        outbox.open()
        self.session = Session(
            path=path,
            pubkey="",
            admin=False,
            connection=str(number),
            encoder=encoder,
            outbox=outbox,
            interrupt=lambda: None,
            drained=_never_behind,
        )

    def gets(self, message: Message) -> bool:
        """The rule: open sessions in the channel, after their start, and never the sender."""
        return (
            self.subscriber is not None
            and self.subscriber.catch_up is None
            and int(self.subscriber.after.partition("-")[0]) < message.ts_ms
            and self.session.path_text != message.sender
        )


class Channel:
    """Recipients, and every listener that was or may be among them: two users, two versions, two connections each."""

    def __init__(self) -> None:
        self.number = 10
        self.encoders = Encoder(), Encoder()
        self._flushes: list[Callable[[], None]] = []
        flusher = Flusher(lambda _: None, FlushPolicy(0), schedule=lambda _, flush: self._flushes.append(flush))
        self.recipients = Recipients(flusher)
        places = [(path, encoder) for encoder in self.encoders for path in PATHS for _ in range(2)]
        self.listeners = [Listener(number, *place, flusher) for number, place in enumerate(places)]

    def join(self, listener: Listener, starts_in: int, *, catches_up: bool) -> None:
        self.leave(listener)
        after = f"{self.number + starts_in}-0"
        subscriber = listener.subscriber = Subscriber(listener.session, joined_at=1, after=after)
        if catches_up:
            subscriber.catch_up = CatchUp(after, after, after)
        self.recipients.add(subscriber, f"{self.number}-0")

    def end_catch_up(self, listener: Listener, starts_in: int) -> None:
        subscriber = listener.subscriber
        if subscriber is not None and subscriber.catch_up is not None:
            subscriber.catch_up = None
            subscriber.after = f"{self.number + starts_in}-0"
            self.recipients.add(subscriber, f"{self.number}-0")

    def leave(self, listener: Listener) -> None:
        listener.subscriber = None
        self.recipients.remove(listener.session)

    def deliver(self, sender: Listener) -> None:
        self.number += 1
        message = Message(f"{self.number}-0", self.number, "", sender.session.path_text, b"")
        getting = [listener for listener in self.listeners if listener.gets(message)]
        for listener in getting:
            listener.expected += f"ops:{message.id};".encode()
        assert self.recipients.deliver("ops", message) == len(getting)
        while self._flushes:
            self._flushes.pop()()
        for listener in self.listeners:
            assert bytes(listener.written) == listener.expected


WHO = st.integers(0, 4 * len(PATHS) - 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["join", "catch up", "end catch-up"]), WHO, st.integers(-1, LATEST)),
        st.tuples(st.sampled_from(["leave", "deliver", "deliver"]), WHO, st.just(0)),
    ),
    min_size=10,
    max_size=60,
)


@given(STEPS)
def test_groups_deliver_by_the_rule_for_each_subscriber(steps: list[tuple[str, int, int]]) -> None:
    """Joins, resumes, leaves, later starts, supersessions of a path and senders of all kinds, in any order."""

    async def check() -> None:
        channel = Channel()
        for step, number, starts_in in steps:
            listener = channel.listeners[number]
            match step:
                case "join" | "catch up":
                    channel.join(listener, starts_in, catches_up=step == "catch up")
                case "end catch-up":
                    channel.end_catch_up(listener, starts_in)
                case "leave":
                    channel.leave(listener)
                case _:
                    channel.deliver(listener)

    asyncio.run(check())


async def test_a_message_is_encoded_once_for_all_sessions_of_a_version() -> None:
    """And not at all for a version without a listener."""
    channel = Channel()
    first, second = channel.encoders
    for number, listener in enumerate(channel.listeners):
        if listener.session.encoder is first and number % 2 == 0:
            channel.join(listener, 0, catches_up=False)
    channel.deliver(channel.listeners[-1])
    channel.deliver(channel.listeners[-1])
    assert first.encoded == ["11-0", "12-0"]
    assert second.encoded == []


async def test_a_message_that_only_its_sender_would_get_is_not_encoded() -> None:
    """Most channels of two have one session per node."""
    channel = Channel()
    channel.join(channel.listeners[0], 0, catches_up=False)
    channel.deliver(channel.listeners[0])
    assert channel.encoders[0].encoded == []

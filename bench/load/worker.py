"""A process of a load: sessions on one epoll, posts by a plan, and a count of everything that arrives."""

import contextlib
import math
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from bench.load.dialects import Conversation, Dialect, Identity, ReadingDialect
from bench.load.frames import MARK, MARK_BYTES, Reader, body

DEADLINE_SECONDS = 90.0
PING_SECONDS = 20.0
_READ_BYTES = 1 << 18
_LONGEST_TURN_SECONDS = 0.5
_QUIET_SECONDS = 0.1
_EVENTS = 1024
_COUNT = struct.Struct("!q")


class Plan(msgspec.Struct, frozen=True):
    """A session: its user, the number of its node, the channels that it creates, those that it joins or posts to."""

    user: str
    node: int
    create: tuple[str, ...]
    join: tuple[str, ...]
    post: tuple[str, ...]


class Sender(msgspec.Struct, frozen=True):
    """A session of the leading process that posts, by its number, to each of these channels in turn."""

    session: int
    channels: tuple[str, ...]


class Times(msgspec.Struct, frozen=True):
    """The outcome of posts: their number, the seconds until all had arrived, and latencies in milliseconds.

    `replied` is from the post to its reply; `arrived` from there to the session that was chosen, or to the last one.
    """

    posts: int
    seconds: float
    replied: list[float]
    arrived: list[float]


class Session:
    """One connection: it talks until it is in its channels, then it counts."""

    def __init__(self, address: tuple[str, int], dialect: Dialect, plan: Plan, identity: Identity) -> None:
        self.plan = plan
        self.identity = identity
        self.positions: dict[str, str] = {}
        self.replies = 0
        self.messages = 0
        self._address = address
        self._dialect = dialect
        self._talk: Conversation | None = None
        self._tail = b""
        self._reader = Reader()
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        connected = socket.create_connection(self._address)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    @property
    def talks(self) -> bool:
        """True while a conversation is under way."""
        return self._talk is not None

    def start(self, talk: Conversation) -> None:
        """Begin a conversation. Afterwards marks are counted, from the next byte on."""
        self._talk = talk
        self.send(next(talk))

    def enter(self) -> Conversation:
        """Return the way into the channels: the first time, or from where the session has been."""
        yield from self._dialect.log_in(self._address, self.identity)
        if not self.positions:
            for channel in self.plan.create:
                yield from self._dialect.create(channel)
        outside = self._dialect.posts_from_outside
        for channel in self.plan.join if outside else (*self.plan.join, *self.plan.post):
            self.positions[channel] = yield from self._dialect.join(channel, self.positions.get(channel))
        return ""

    def reconnect(self) -> None:
        """Connect again, after `leave`. `enter` has to follow."""
        self._reader, self._tail = Reader(), b""
        self.socket = self._connect()

    def leave(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        if data:
            self.socket.sendall(data)

    def receive(self) -> int:
        """Take what has arrived, and return how many messages were in it."""
        try:
            data = self.socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        if not data:
            raise ConnectionError(f"the server has cut off {self.plan.user}")
        found = self._count(data) if self._talk is None else self._hear(data)
        self.messages += found
        return found

    def _hear(self, data: bytes) -> int:
        found = 0
        for message in self._reader.feed(data):
            if self._talk is None:
                raise AssertionError("the conversation goes on")
            found += message.count(MARK)
            try:
                self.send(self._talk.send(message))
            except StopIteration:
                self._talk = None
                rest, self._reader.rest = self._reader.rest, b""
                found += self._count(rest)
                break
        return found

    def _count(self, data: bytes) -> int:
        data = self._tail + data
        found = data.count(MARK)
        self.replies += data.count(self._dialect.reply_mark)
        self._tail = data[1 - MARK_BYTES :]
        return found


class Stream:
    """The posts of one session, so many of them without a reply at any time."""

    def __init__(self, session: Session, frames: list[bytes]) -> None:
        self.session = session
        self.sent = 0
        self._frames = frames
        self._before = session.replies

    @property
    def open(self) -> int:
        return self.sent - (self.session.replies - self._before)

    def post(self, count: int = 1) -> None:
        """Send the next posts, in one write."""
        size = len(self._frames)
        self.session.send(b"".join(self._frames[(self.sent + at) % size] for at in range(count)))
        self.sent += count


class Worker:
    """The sessions of one process. One process leads: it posts, and the others report to it what has arrived."""

    def __init__(
        self, dialect: Dialect, addresses: list[tuple[str, int]], *, reports: list[int], report_to: int | None
    ) -> None:
        """`reports` are the pipes of the other processes; `report_to` is the pipe of one that does not lead."""
        self._dialect = dialect
        self._addresses = addresses
        self._report_to = report_to
        self._sessions: list[Session] = []
        self._by_descriptor: dict[int, Session] = {}
        self._epoll = select.epoll()
        self._arrived = 0
        """The messages that have arrived here and, in the leading process, everywhere."""
        self._received = 0
        self._pinged = time.monotonic()
        self._deadline = math.inf
        self._reports = frozenset(reports)
        for descriptor in reports:
            self._epoll.register(descriptor, select.EPOLLIN)

    def serve(self, commands: Connection) -> None:
        """Carry out one command after the other, until there are no more; sockets are read all the time."""
        self._epoll.register(commands.fileno(), select.EPOLLIN)
        with contextlib.suppress(EOFError):
            while True:
                self._turn(_LONGEST_TURN_SECONDS)
                if commands.poll():
                    name, arguments = commands.recv()
                    commands.send(self._outcome(name, arguments))

    def _outcome(self, name: str, arguments: dict[str, Any]) -> Any:
        self._deadline = time.monotonic() + DEADLINE_SECONDS
        try:
            return getattr(self, name)(**arguments)
        except Exception as error:  # noqa: BLE001 - raised again by the one who asked
            return error
        finally:
            self._deadline = math.inf

    # --- Commands ---

    def open(self, plans: list[Plan], at_once: int) -> float:
        """Open sessions, so many at once; return the seconds until the last one is in its channels."""
        began = time.perf_counter()
        waiting = deque(plans)
        talking: list[Session] = []
        while waiting or talking:
            while waiting and len(talking) < at_once:
                plan = waiting.popleft()
                session = Session(self._addresses[plan.node], self._dialect, plan, Identity(plan.user))
                self._sessions.append(session)
                self._watch(session)
                session.start(session.enter())
                talking.append(session)
            self._turn(_LONGEST_TURN_SECONDS)
            talking = [each for each in talking if each.talks]
        return time.perf_counter() - began

    def leave(self, first: int) -> None:
        """Close the connections of all sessions from this one on."""
        for session in self._sessions[first:]:
            self._forget(session)
            session.leave()

    def come_back(self, messages: int, first: int) -> float:
        """Connect these sessions again, all at once; return the seconds until each has received what it has missed."""
        began = time.perf_counter()
        sessions = self._sessions[first:]
        wanted = self._received + messages * len(sessions)
        for session in sessions:
            session.reconnect()
            self._watch(session)
            session.start(session.enter())
        self._until(lambda: self._received >= wanted)
        return time.perf_counter() - began

    def close(self, first: int) -> None:
        """End all sessions from this one on."""
        self.leave(first)
        del self._sessions[first:]

    def stay(self) -> None:
        """Keep the sessions from being idle, if it is time, and read what comes of it."""
        if time.monotonic() - self._pinged < PING_SECONDS:
            return
        self.ping()

    def ping(self) -> None:
        """Have each session ping its node once, and read what comes of it."""
        self._pinged = time.monotonic()
        for session in self._sessions:
            session.send(self._dialect.ping())
        while self._turn(_QUIET_SECONDS):
            pass

    def posts(self, sender: Sender, count: int) -> Times:
        """Post so many messages, wherever they go."""
        stream = self._stream(sender, 16)
        began = time.perf_counter()
        while stream.sent < count:
            stream.post(min(count - stream.sent, 16 - stream.open))
            self._turn(_LONGEST_TURN_SECONDS)
        self._until(lambda: not stream.open)
        return Times(count, time.perf_counter() - began, [], [])

    def window(self, senders: list[Sender], in_flight: int, seconds: float, listeners: int) -> Times:
        """Post for some seconds, so many posts in flight per sender. `listeners` is what a post is delivered to."""
        streams = [self._stream(sender, in_flight) for sender in senders]
        began, before = time.perf_counter(), self._arrived
        end = began + seconds
        while time.perf_counter() < end:
            for stream in streams:
                if free := in_flight - stream.open:
                    stream.post(free)
            self._turn(0.1)
        posts = sum(stream.sent for stream in streams)
        self._until(lambda: not any(stream.open for stream in streams))
        self._until_arrived(before + posts * listeners)
        return Times(posts, time.perf_counter() - began, [], [])

    def one_by_one(self, senders: list[Sender], seconds: float, listeners: int) -> Times:
        """Post for some seconds, by turns: each when the last one was replied to and has arrived everywhere."""
        streams = [self._stream(sender, 1) for sender in senders]
        began, expected = time.perf_counter(), self._arrived
        posts, arrived = 0, []
        while (now := time.perf_counter()) < began + seconds:
            stream = streams[posts % len(streams)]
            stream.post()
            posts += 1
            expected += listeners
            self._until(lambda: self._arrived >= expected and not stream.open)  # noqa: B023 - called here
            arrived.append((time.perf_counter() - now) * 1000)
        self._until_arrived(expected)
        return Times(posts, time.perf_counter() - began, [], arrived)

    def ping_pong(self, pair: list[Sender], seconds: float) -> Times:
        """Two sessions answer each other: each posts when the other's post has arrived, whether replied to or not."""
        streams = [self._stream(sender, 16) for sender in pair]
        began, posts = time.perf_counter(), 0
        while time.perf_counter() < began + seconds:
            here, there = streams[posts % 2], streams[1 - posts % 2].session
            before = there.messages
            here.post()
            posts += 1
            self._until(lambda: there.messages > before)  # noqa: B023 - called here
        self._until(lambda: not any(stream.open for stream in streams))
        return Times(posts, time.perf_counter() - began, [], [])

    def paced(self, senders: list[Sender], to: int, rate: float, seconds: float, listeners: int) -> Times:
        """Post so many times a second, the senders in turn, and time the arrivals at one session that receives all.

        The n-th post is taken to be the n-th reply and the n-th arrival; two senders' may have changed places.
        """
        streams, target = [self._stream(sender, 64) for sender in senders], self._sessions[to]
        count = max(1, int(rate * seconds))
        heard = target.messages
        sent: list[float] = []
        arrivals: list[float] = []
        replies: list[float] = []
        began, before = time.perf_counter(), self._arrived
        while len(arrivals) < count or len(replies) < count:
            now, due = time.perf_counter(), began + len(sent) / rate
            if len(sent) < count and now >= due:
                streams[len(sent) % len(streams)].post()
                sent.append(now)
                continue
            self._turn(due - now if len(sent) < count else _LONGEST_TURN_SECONDS)
            now = time.perf_counter()
            arrivals += [now] * (target.messages - heard - len(arrivals))
            replies += [now] * (sum(stream.sent - stream.open for stream in streams) - len(replies))
        self._until_arrived(before + count * listeners)
        return Times(count, time.perf_counter() - began, _ms(sent, replies), _ms(sent, arrivals))

    def ask(self, session: int, what: str, channel: str, limit: int, count: int) -> Times:
        """Ask for a page of history, or who is there, several times, one after the other."""
        asking, dialect = self._sessions[session], self._dialect
        if not isinstance(dialect, ReadingDialect):
            raise TypeError(f"a session cannot ask for {what} by this protocol")
        replied = []
        began = time.perf_counter()
        for _ in range(count):
            asked = time.perf_counter()
            asking.start(dialect.who(channel) if what == "who" else dialect.history(channel, limit))
            self._until(lambda: not asking.talks)
            replied.append((time.perf_counter() - asked) * 1000)
        return Times(count, time.perf_counter() - began, replied, [])

    # --- Inside ---

    def _stream(self, sender: Sender, in_flight: int) -> Stream:
        text, channels = body(), sender.channels
        frames = [
            self._dialect.post(channels[number % len(channels)], text, number)
            for number in range(math.lcm(in_flight, len(channels)))
        ]
        return Stream(self._sessions[sender.session], frames)

    def _watch(self, session: Session) -> None:
        descriptor = session.socket.fileno()
        self._by_descriptor[descriptor] = session
        self._epoll.register(descriptor, select.EPOLLIN)

    def _forget(self, session: Session) -> None:
        descriptor = session.socket.fileno()
        if descriptor >= 0 and self._by_descriptor.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def _turn(self, seconds: float) -> bool:
        """Read what has arrived, or arrives within this time; return whether there was anything.

        Raises:
            TimeoutError: if the command takes too long.
        """
        if time.monotonic() > self._deadline:
            raise TimeoutError(f"{len(self._sessions)} sessions, {self._arrived} deliveries so far")
        before = self._arrived
        events = self._epoll.poll(seconds, _EVENTS)
        for descriptor, _ in events:
            session = self._by_descriptor.get(descriptor)
            if session is not None:
                found = session.receive()
                self._received += found
                self._arrived += found
            elif descriptor in self._reports:
                self._take_reports(os.read(descriptor, _COUNT.size * _EVENTS))
        if self._report_to is not None and self._arrived > before:
            os.write(self._report_to, _COUNT.pack(self._arrived - before))
        return bool(events)

    def _take_reports(self, data: bytes) -> None:
        self._arrived += sum(count for (count,) in _COUNT.iter_unpack(data))

    def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._turn(_LONGEST_TURN_SECONDS)

    def _until_arrived(self, expected: int) -> None:
        """Wait for the last deliveries. Raises: RuntimeError if there are more: one came twice."""
        self._until(lambda: self._arrived >= expected)
        if self._arrived > expected:
            raise RuntimeError(f"{self._arrived - expected} deliveries too many")


def _ms(begins: list[float], ends: list[float]) -> list[float]:
    return [(end - begin) * 1000 for begin, end in zip(begins, ends, strict=True)]

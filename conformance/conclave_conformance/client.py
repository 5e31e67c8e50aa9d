"""One connection to the server under examination: JSON over a WebSocket, and the rules that hold for every message."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from conclave_conformance.verdict import Failed, Json, expect, shown

SUBPROTOCOL = "conclave.v2"
WAIT_SECONDS = 10.0
"""The time limit for an expected reply or event, in seconds."""

_CODES = frozenset(
    ("malformed", "version", "unauthorized", "not_found", "conflict", "too_large", "rate_limited", "unavailable")
) | {"internal"}

_SHOWN = 200
"""The length, in characters, at which a verdict cuts a request off."""

T = TypeVar("T")


class Unreachable(Exception):
    """There is no WebSocket server, or it refuses the upgrade."""


class Asked:
    """A request that is not answered yet; its number is None if it has no usable one."""

    def __init__(self, number: int | None, text: str) -> None:
        self.number = number
        self.text = text
        self.reply: asyncio.Future[Json] = asyncio.get_running_loop().create_future()

    def __str__(self) -> str:
        return self.text if len(self.text) <= _SHOWN else f"{self.text[:_SHOWN]}…"

    def fail(self, why: Failed) -> None:
        """The reply will not come."""
        if not self.reply.done():
            self.reply.set_exception(why)
            self.reply.exception()  # nobody may be waiting


class Client:
    """Sends what it is told to, and collects what comes.

    Whatever is checked, every message has to be a text with a JSON object that is a reply or an event; replies have to
    come in the order of the requests, one for each; and no message may come twice or be the session's own. The first
    break of one of these rules is a fault: each wait raises it, and so does `assure`.
    """

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.path = ""
        self.ready: Json = {}
        self.log: list[Json] = []
        """Replies and events, in the order in which they came."""
        self.ended: tuple[int | None, str] | None = None
        """The code and the reason of the close, once it is closed."""
        self._fault: Failed | None = None
        self._number = 0
        self._open: deque[Asked] = deque()
        self._heard: dict[str, set[str]] = {}
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def dial(cls, url: str, subprotocols: Sequence[str] = (SUBPROTOCOL,)) -> Self:
        """Connect, without a login.

        Raises:
            Unreachable: if the upgrade fails.
        """
        try:
            ws = await connect(
                url,
                subprotocols=[Subprotocol(each) for each in subprotocols] or None,
                compression=None,
                proxy=None,
                open_timeout=WAIT_SECONDS,
                close_timeout=2,
                ping_interval=None,
                max_size=None,
            )
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI, EOFError) as error:
            raise Unreachable(str(error) or type(error).__name__) from None
        return cls(ws)

    # --- What comes ---

    async def _read(self) -> None:
        try:
            async for message in self.ws:
                try:
                    self._take(message)
                except Failed as fault:
                    self._fault = self._fault or fault
                self._news.set()
        except ConnectionClosed:
            pass  # without a close, or with a code that is no good end: `ended` tells
        finally:
            self.ended = (self.ws.close_code, self.ws.close_reason or "")
            for asked in self._open:
                asked.fail(Failed(f"a reply to {asked}", self._end()))
            self._news.set()

    def _take(self, message: str | bytes) -> None:
        expect(isinstance(message, str), "text messages only", "a binary message")
        try:
            frame = json.loads(message)
        except ValueError:
            raise Failed("JSON in every message", repr(message[:200])) from None
        expect(isinstance(frame, dict), "a JSON object in every message", frame)
        expect(("re" in frame) != ("ev" in frame), "either a reply with `re` or an event with `ev`", frame)
        self.log.append(frame)
        if "re" in frame:
            self._take_reply(frame)
        elif frame["ev"] == "message":
            self._take_message(frame)

    def _take_reply(self, frame: Json) -> None:
        if "error" in frame:
            error = frame["error"]
            well = isinstance(error, dict) and error.get("code") in _CODES and isinstance(error.get("message"), str)
            expect(well, "an `error` with a `code` of the table and a `message`", frame)
        expect(self._open, "no reply but to an open request, and one for each", frame)
        asked = self._open.popleft()
        if shown(frame["re"]) != shown(asked.number):
            fault = Failed(f"the reply to the oldest open request, {asked}, with `re` {shown(asked.number)}", frame)
            asked.fail(fault)
            raise fault
        if not asked.reply.done():
            asked.reply.set_result(frame)

    def _take_message(self, frame: Json) -> None:
        for field, kind in (("channel", str), ("id", str), ("ts", int), ("from", str), ("body", dict)):
            expect(isinstance(frame.get(field), kind), f"a `message` event with `{field}`", frame)
        expect(frame["from"] != self.path, f"no message of the session's own path, `{self.path}`", frame)
        heard = self._heard.setdefault(frame["channel"], set())
        expect(frame["id"] not in heard, "every message once", frame)
        heard.add(frame["id"])

    def forget(self, channel: str) -> None:
        """Messages of this channel may come again: the session joins it anew."""
        self._heard.pop(channel, None)

    def assure(self) -> None:
        """Raise the first break of a rule that holds for every message."""
        if self._fault is not None:
            raise self._fault

    # --- Waiting ---

    async def until(self, found: Callable[[], T | None], what: str, seconds: float = WAIT_SECONDS) -> T:
        """Wait until `found` returns something that is true, and return it. Raises: Failed, `what` was expected."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self.assure()
                    result = found()
                    if result:
                        return result
                    if self.ended is not None:
                        raise Failed(what, self._end())
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise Failed(what, f"nothing like that within {seconds:g} s; {self._last()}") from None

    def _last(self) -> str:
        return f"what came last is {shown(self.log[-1])}" if self.log else "nothing came at all"

    def _end(self) -> str:
        code, reason = self.ended or (None, "")
        return f"a close with code {code} and the reason {shown(reason)}; {self._last()}"

    def events(self, kind: str, **fields: str) -> list[Json]:
        """Return the events of a kind that have come so far."""
        return [
            frame
            for frame in self.log
            if frame.get("ev") == kind and all(frame.get(name) == value for name, value in fields.items())
        ]

    async def event(self, kind: str, **fields: str) -> Json:
        """Wait for the first event of a kind."""
        wanted = shown({"ev": kind, **fields})
        await self.until(lambda: self.events(kind, **fields), f"the event {wanted}")
        return self.events(kind, **fields)[0]

    async def hears(self, channel: str, ids: Sequence[str], what: str = "every message, once and in order") -> None:
        """Wait until the last of these messages has come; they must be all that was said in the channel."""

        def heard() -> list[str]:
            return [event["id"] for event in self.events("message", channel=channel)]

        expected = list(ids)
        last, often = expected[-1], expected.count(expected[-1])
        await self.until(lambda: heard().count(last) >= often, f"{what}: {shown(expected)}")
        if heard() != expected:
            raise Failed(f"{what}: {shown(expected)}", heard())

    async def closes(self, code: int, *, error: str | None = None, event: bool = True, seconds: float = 0.0) -> Json:
        """Wait for the close with this code, and for a `closing` event before it that says the same; returns that."""
        what = f"a close with code {code}"
        try:
            async with asyncio.timeout(WAIT_SECONDS + seconds):
                await asyncio.shield(self._reading)
        except TimeoutError:
            raise Failed(what, f"the connection is still open; {self._last()}") from None
        self.assure()
        got, reason = self.ended or (None, "")
        if got != code:
            raise Failed(what, self._end())
        if not event:
            return {}
        last = self.log[-1] if self.log else {}
        expected = {"ev": "closing", "code": code, **({} if error is None else {"error": error})}
        if any(last.get(name) != value for name, value in expected.items()) or not isinstance(last.get("reason"), str):
            raise Failed(f"a last event with {shown(expected)} and a `reason`", self._last())
        expect(last["reason"].startswith(reason), "the beginning of the event's reason in the close frame", reason)
        return last

    # --- What is sent ---

    async def say(self, message: Json | str | bytes) -> None:
        """Send a message of the login, or something that is not to be answered."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self.ws.send(json.dumps(message) if isinstance(message, dict) else message)
        except (ConnectionClosed, TimeoutError):
            return  # the server had enough before it had read it all: what it said about it is what counts

    def request(self, op: str, **fields: object) -> Asked:
        """Make a request with the next number; to be sent by `say` with its `text`, in the order of these calls."""
        self._number += 1
        if op == "join" and "since" in fields:
            self.forget(str(fields["channel"]))
        text = json.dumps({"id": self._number, "op": op, **fields}, ensure_ascii=False)
        return self.expect_reply(text, self._number)

    def expect_reply(self, text: str, number: int | None) -> Asked:
        """Note that this is about to be sent, and that its reply must have this number."""
        asked = Asked(number, text)
        self._open.append(asked)
        return asked

    async def raw(self, text: str, number: int | None) -> Json:
        """Send a text, and return the reply, which must have this number."""
        asked = self.expect_reply(text, number)
        await self.say(text)
        return await self.reply(asked)

    async def reply(self, asked: Asked) -> Json:
        """Wait for the reply to what was sent."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await asyncio.shield(asked.reply)
        except TimeoutError:
            self.assure()
            raise Failed(f"a reply to {asked}", f"none within {WAIT_SECONDS:g} s; {self._last()}") from None

    async def ask(self, op: str, **fields: object) -> Json:
        """Send a request and return its result. Raises: Failed, if it is refused."""
        reply = await self._answered(op, fields)
        if "error" in reply:
            raise Failed(f"a result of {shown({'op': op, **fields})}", reply)
        return {name: value for name, value in reply.items() if name != "re"}

    async def refused(self, op: str, *codes: str, **fields: object) -> Json:
        """Send a request that must be refused with one of these codes; returns the error."""
        reply = await self._answered(op, fields)
        code = reply.get("error", {}).get("code")
        if code not in codes:
            raise Failed(f"{shown({'op': op, **fields})} to be refused with {' or '.join(codes)}", reply)
        error: Json = reply["error"]
        return error

    async def _answered(self, op: str, fields: Json) -> Json:
        asked = self.request(op, **fields)
        await self.say(asked.text)
        return await self.reply(asked)

    async def close(self) -> None:
        """Close, if the server has not."""
        await self.ws.close()
        self._reading.cancel()

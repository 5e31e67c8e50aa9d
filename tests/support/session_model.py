"""A small model of three sessions of protocol v2: the expected replies to any requests in any order.

Ann has two sessions and created the channels; bob has one. The model knows which session receives what; `SessionModel`
sends the same requests to the relay and compares. Before a session joins a channel or loses it, all messages must have
arrived, because a message that is on its way at that moment may arrive or not.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any

from conclave_conformance.client import Client
from conclave_conformance.company import Company, Scene, username
from conclave_conformance.verdict import Json, same

SESSIONS = ("ann", "again", "bob")
OWNER = {"ann": "ann", "again": "ann", "bob": "bob"}
_numbers = itertools.count()


@dataclass
class Channel:
    """The messages of a channel in order, and the users who may not join it."""

    name: str
    log: list[tuple[str, str, str]] = field(default_factory=list)
    """Id, sender's path and text."""
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    """The ids of messages by user and idempotency key."""
    banned: bool = False
    """True if bob is banned."""
    exists: bool = True


class SessionModel:
    """The sessions, and what each of them must have received."""

    def __init__(self, company: Company) -> None:
        self._company = company
        self._scene = Scene(company)
        self.clients: dict[str, Client] = {}
        self.channels = [Channel(f"c{next(_numbers)}") for _ in range(2)]
        self.joined: dict[str, set[int]] = {who: set() for who in SESSIONS}
        self._expected: dict[tuple[str, int], list[str]] = {}
        self._reasons: dict[tuple[str, int], list[str]] = {}

    async def open(self) -> None:
        """Log every session in, and create the channels; all join the first one."""
        for who in SESSIONS:
            self.clients[who] = await self._scene.enter(OWNER[who])
        for channel in self.channels:
            await self.clients["ann"].ask("channel.create", channel=channel.name)
        for who in SESSIONS:
            await self.join(who, 0, None)

    async def close(self) -> None:
        """Check the deliveries and the history, and close the connections."""
        try:
            await self.check_deliveries()
            for who, number in itertools.product(SESSIONS, range(len(self.channels))):
                await self.history(who, number, None, 2)
                await self.history(who, number, 0, 3)
        finally:
            await self._scene.__aexit__()

    # --- What each session must have received ---

    async def check_deliveries(self) -> None:
        """Wait until every session has received what it must, and check that it has received nothing else."""
        for who, client in self.clients.items():
            for number, channel in enumerate(self.channels):
                expected = self._expected.get((who, number), [])
                if expected:
                    await client.hears(channel.name, expected)
                reasons = self._reasons.get((who, number), [])
                await client.until(
                    lambda c=client, n=channel.name, r=reasons: len(c.events("left", channel=n)) >= len(r),  # type: ignore[misc]
                    f"{len(reasons)} events `left` of {channel.name}",
                )
            await client.ask("ping")
        for who, client in self.clients.items():
            for number, channel in enumerate(self.channels):
                ids = [event["id"] for event in client.events("message", channel=channel.name)]
                same(ids, self._expected.get((who, number), []), f"what {who} has received")
                reasons = [event["reason"] for event in client.events("left", channel=channel.name)]
                same(reasons, self._reasons.get((who, number), []), f"what {who} was told")

    def _posted(self, number: int, who: str, message_id: str, text: str) -> None:
        path = self.clients[who].path
        self.channels[number].log.append((message_id, path, text))
        for other in SESSIONS:
            if other != who and number in self.joined[other]:
                self._expected.setdefault((other, number), []).append(message_id)

    def _left_channel(self, number: int, who: str, reason: str) -> None:
        if number in self.joined[who]:
            self.joined[who].discard(number)
            self._reasons.setdefault((who, number), []).append(reason)

    # --- Valid requests ---

    async def join(self, who: str, number: int, since: int | None) -> None:
        """With `since`, the index of a message in the log; -1 is the beginning."""
        await self.check_deliveries()
        channel, client = self.channels[number], self.clients[who]
        if not channel.exists:
            await client.refused("join", "not_found", channel=channel.name)
            return
        if channel.banned and OWNER[who] == "bob":
            await client.refused("join", "unauthorized", "not_found", channel=channel.name)
            return
        last = channel.log[-1][0] if channel.log else "0-0"
        if since is None:
            reply = await client.ask("join", channel=channel.name)
        else:
            at = min(since, len(channel.log) - 1)
            reply = await client.ask("join", channel=channel.name, since=channel.log[at][0] if at >= 0 else "0-0")
            same(reply["recovered"], True, "`recovered`")
            missed = [each[0] for each in channel.log[at + 1 :] if each[1] != client.path]
            self._expected.setdefault((who, number), []).extend(missed)
        same((reply["position"], reply["admin"]), (last, OWNER[who] == "ann"), "position and admin")
        self.joined[who].add(number)

    async def leave(self, who: str, number: int) -> None:
        await self.check_deliveries()
        await self.clients[who].ask("leave", channel=self.channels[number].name)
        self.joined[who].discard(number)

    def request_send(self, who: str, number: int, text: str, key: str | None) -> "Sending":
        fields: Json = {"channel": self.channels[number].name, "body": {"text": text}}
        asked = self.clients[who].request("send", **fields, **({} if key is None else {"key": key}))
        return Sending(who, number, text, key, asked)

    def sent(self, sending: "Sending", reply: Json) -> None:
        """Take the reply to a send into the model."""
        who, number, channel = sending.who, sending.number, self.channels[sending.number]
        if number not in self.joined[who]:
            same(
                reply.get("error", {}).get("code"),
                "unauthorized",
                "the refusal of a send without a join",
            )
            return
        if "error" in reply:
            raise AssertionError(f"refused: {reply}")
        used = None if sending.key is None else channel.keys.get((OWNER[who], sending.key))
        if used is not None:
            same(reply["id"], used, "the id of the first one with this key")
            return
        if sending.key is not None:
            channel.keys[OWNER[who], sending.key] = reply["id"]
        self._posted(number, who, reply["id"], sending.text)

    async def history(self, who: str, number: int, after: int | None, limit: int) -> None:
        channel, client = self.channels[number], self.clients[who]
        if number not in self.joined[who]:
            await client.refused("history", "unauthorized", channel=channel.name, limit=limit)
            return
        rows = [{"id": row[0], "from": row[1], "text": row[2]} for row in channel.log]
        if after is None:
            page = await client.ask("history", channel=channel.name, limit=limit)
            expected, more = rows[-limit:], len(rows) > limit
        else:
            at = min(after, len(rows) - 1)
            page = await client.ask(
                "history", channel=channel.name, limit=limit, after=rows[at]["id"] if rows else "0-0"
            )
            behind = rows[at + 1 :]
            expected, more = behind[:limit], len(behind) > limit
        got = [{"id": row["id"], "from": row["from"], "text": row["body"]["text"]} for row in page["messages"]]
        same(got, expected, "the page")
        same(page["more"], more, "`more`")

    async def whisper(self, who: str, to: str) -> None:
        client, target = self.clients[who], self.clients[to]
        if who == to:
            await client.refused("whisper", "malformed", to=client.path, body={"text": "hi"})
            return
        sent = await client.ask("whisper", to=target.path, body={"text": "hi"})
        await target.event("whisper", id=sent["id"])
        same(len(target.events("whisper", id=sent["id"])), 1, "how often it was received")

    # --- Operations that take channels away ---

    async def ban(self, by: str, number: int, *, lift: bool) -> None:
        await self.check_deliveries()
        channel = self.channels[number]
        if await self._administer(by, channel, "unban" if lift else "ban", user=username(self.clients["bob"])):
            channel.banned = not lift
            if not lift:
                self._left_channel(number, "bob", "banned")

    async def kick(self, by: str, number: int) -> None:
        await self.check_deliveries()
        if await self._administer(by, self.channels[number], "kick", target=self.clients["bob"].path):
            self._left_channel(number, "bob", "kicked")

    async def delete_or_create(self, by: str, number: int) -> None:
        """Delete a channel; or create one under a new name, so that its messages cannot be confused."""
        await self.check_deliveries()
        channel = self.channels[number]
        if not channel.exists:
            name = f"c{next(_numbers)}"
            await self.clients["ann"].ask("channel.create", channel=name)
            self.channels[number] = Channel(name)
            for of_sessions in (self._expected, self._reasons):
                for who in SESSIONS:
                    of_sessions.pop((who, number), None)
            return
        if await self._administer(by, channel, "channel.delete"):
            channel.exists = False
            for who in SESSIONS:
                self._left_channel(number, who, "deleted")

    async def _administer(self, by: str, channel: Channel, op: str, **fields: str) -> bool:
        """Send an admin operation, and return True if it must have taken effect."""
        client = self.clients[by]
        if not channel.exists:
            await client.refused(op, "not_found", channel=channel.name, **fields)
            return False
        if OWNER[by] != "ann":
            await client.refused(op, "unauthorized", channel=channel.name, **fields)
            return False
        await client.ask(op, channel=channel.name, **fields)
        return True

    # --- Invalid requests, lost sessions ---

    async def broken(self, who: str, text: str, number: int | None) -> None:
        """Send an object that is no request: it is answered, and nothing else happens."""
        reply = await self.clients[who].raw(text, number)
        same(reply.get("error", {}).get("code"), "malformed", f"the answer to {text[:200]}")

    async def unreadable(self, who: str, message: str | bytes) -> None:
        """Send a message that ends the session, and resume."""
        await self.check_deliveries()
        await self.clients[who].say(message)
        await self.clients[who].closes(4007)
        await self._resume(who)

    async def superseded(self, who: str) -> None:
        """Have the session's path taken by a newer connection."""
        await self.check_deliveries()
        old = self.clients[who]
        await self._resume(who, old.path.split("/")[2])
        await old.closes(4001)

    async def _resume(self, who: str, session: str | None = None) -> None:
        self.clients[who] = await self._scene.enter(OWNER[who], session)
        joined, self.joined[who] = self.joined[who], set()
        for number in range(len(self.channels)):
            self._expected.pop((who, number), None)
            self._reasons.pop((who, number), None)
        for number in sorted(joined):
            await self.join(who, number, len(self.channels[number].log) - 1)


@dataclass
class Sending:
    """A send without a reply yet."""

    who: str
    number: int
    text: str
    key: str | None
    asked: Any

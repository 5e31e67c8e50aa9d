"""The users of the checks, with their sessions and channels, and the removal of all of them."""

import asyncio
import base64
import secrets
from typing import Self
from urllib.parse import urlsplit

from nacl.signing import SigningKey

from conclave_conformance.client import Client, Unreachable
from conclave_conformance.verdict import Failed, Json, Skipped, holds, same

MACHINE = "laptop"
NONCE_BYTES = 32
_DEFAULT_PORT = {"ws": 80, "wss": 443}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64(text: str) -> bytes:
    """Read base64url without padding, in its one spelling. Raises: ValueError."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64(data) != text:
        raise ValueError("not the exact spelling")
    return data


def origin_of(url: str) -> str:
    """Return what a client says that it has dialled."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, _DEFAULT_PORT.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}".lower()


def proof(key: SigningKey, purpose: str, challenge: Json, origin: str, **other: str) -> Json:
    """Return the key and the signature that answer a challenge; `cluster` and `nonce` replace what it says."""
    over = {**challenge, **other}
    signed = f"conclave.v2\n{purpose}\n{over['cluster']}\n{origin}\n".encode() + unb64(over["nonce"])
    return {"pubkey": b64(bytes(key.verify_key)), "signature": b64(key.sign(signed).signature)}


class Company:
    """The users of one run. Their names are random, and each is registered when it is first asked for."""

    def __init__(self, url: str, invite: str | None) -> None:
        self.url = url
        self.origin = origin_of(url)
        self.keys: dict[str, SigningKey] = {}
        self.registered: dict[str, Json] = {}
        """The `ready` event of each user's registration, by username."""
        self.channels: dict[str, set[str]] = {}
        """Channels that there may be, by the username of who made them."""
        self._invite = invite
        self._tag = secrets.token_hex(5)
        self._refused: str | None = None

    def user(self, person: str) -> str:
        return f"conformance-{self._tag}-{person}"

    def name(self) -> str:
        """Return a name that nobody has."""
        return f"conformance-{self._tag}-{secrets.token_hex(4)}"

    async def open(self, client: Client, session: str, origin: str | None = None) -> Json:
        """Say hello, and return the challenge."""
        hello = {"op": "hello", "protocol": 2, "session": session, "origin": origin or self.origin}
        await client.say({**hello, "client": "conclave-conformance"})
        return await client.event("challenge")

    async def register(self, person: str) -> None:
        """Have the user registered. Raises: Failed, Skipped if that failed before."""
        user = self.user(person)
        if user in self.keys:
            return
        if self._refused is not None:
            raise Skipped(f"it needs a user, and registering one failed: {self._refused}")
        key = SigningKey.generate()
        client = await Client.dial(self.url)
        try:
            session = self.name()
            challenge = await self.open(client, session)
            claim: Json = {"op": "register", "user": user, "machine": MACHINE}
            claim |= proof(key, "register", challenge, self.origin)
            await client.say(claim if self._invite is None else {**claim, "invite": self._invite})
            ready = await client.event("ready")
            same(ready.get("path"), f"{user}/{MACHINE}/{session}", "the path")
        except Failed as failed:
            self._refused = failed.got
            raise Failed(f"{failed.expected} (does this server want an --invite?)", failed.got) from None
        finally:
            await client.close()
        self.keys[user], self.registered[user] = key, ready

    async def enter(self, client: Client, key: SigningKey, session: str) -> Client:
        """Log in with a known key."""
        challenge = await self.open(client, session)
        await client.say({"op": "auth", **proof(key, "auth", challenge, self.origin)})
        client.ready = await client.event("ready")
        client.path = client.ready.get("path", "")
        client.log.clear()
        return client

    async def disperse(self) -> list[str]:
        """Delete the channels and remove the machines; returns what is left behind, in words."""
        left: list[str] = []
        for user, key in self.keys.items():
            try:
                async with asyncio.timeout(60):
                    await self._put_away(user, key)
            except (Failed, Unreachable, TimeoutError) as error:
                left.append(f"what `{user}` has made could not be put away: {error}")
        if self.keys:
            left.append(f"the names {', '.join(sorted(self.keys))} stay taken: only an admin can remove users")
        return left

    async def _put_away(self, user: str, key: SigningKey) -> None:
        client = await self.enter(await Client.dial(self.url), key, self.name())
        try:
            for channel in self.channels.get(user, ()):
                asked = client.request("channel.delete", channel=channel)
                await client.say(asked.text)
                await client.reply(asked)
            machines = (await client.ask("machines")).get("machines", [])
            for machine in sorted(machines, key=lambda row: bool(row["name"] == MACHINE)):  # its own one at last
                asked = client.request("machine.remove", machine=machine["name"])
                await client.say(asked.text)
        finally:
            await client.close()


class Scene:
    """The sessions and channels of one check; the sessions are closed at its end."""

    def __init__(self, company: Company) -> None:
        self.company = company
        self.url = company.url
        self.origin = company.origin
        self._clients: list[Client] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(client.close() for client in self._clients), return_exceptions=True)

    def assure(self) -> None:
        """Raise the first break of a rule that holds for every message, on any of the sessions."""
        for client in self._clients:
            client.assure()

    def name(self) -> str:
        return self.company.name()

    async def key(self, person: str) -> SigningKey:
        """Return the key of a registered user."""
        await self.company.register(person)
        return self.company.keys[self.company.user(person)]

    async def dial(self) -> Client:
        """Connect, without a login."""
        client = await Client.dial(self.url)
        self._clients.append(client)
        return client

    async def challenged(self) -> tuple[Client, Json]:
        """Connect and say hello; returns the challenge, too."""
        client = await self.dial()
        return client, await self.company.open(client, self.name())

    async def enter(self, person: str, session: str | None = None) -> Client:
        """Log in as a user, under a session's name that nobody else has."""
        key = await self.key(person)
        return await self.company.enter(await self.dial(), key, session or self.name())

    async def people(self, *persons: str) -> list[Client]:
        return [await self.enter(person) for person in persons]

    async def create(self, owner: Client, **more: str) -> str:
        """Have a channel made, and return its name."""
        channel = self.name()
        self.owns(owner, channel)
        holds(await owner.ask("channel.create", channel=channel, **more), "a result", channel=channel)
        return channel

    def owns(self, owner: Client, channel: str) -> None:
        """Note a channel that is to be deleted in the end."""
        self.company.channels.setdefault(owner.path.partition("/")[0], set()).add(channel)

    async def room(self, *persons: str, **more: str) -> tuple[str, list[Client]]:
        """Have a channel made by the first person, and joined by all."""
        people = await self.people(*persons)
        channel = await self.create(people[0], **more)
        for each in people:
            await each.ask("join", channel=channel)
        return channel, people


def username(client: Client) -> str:
    return client.path.partition("/")[0]


async def post(client: Client, channel: str, text: str, **more: object) -> str:
    """Post a text, and return the message's id."""
    sent = await client.ask("send", channel=channel, body={"text": text}, **more)
    if not isinstance(sent.get("id"), str) or not isinstance(sent.get("ts"), int):
        raise Failed("a result with the message's `id` and `ts`", sent)
    return str(sent["id"])


async def post_all(client: Client, channel: str, count: int, prefix: str = "") -> list[str]:
    """Post so many messages without waiting for each; returns their ids."""
    asked = [client.request("send", channel=channel, body={"text": f"{prefix}{i}"}) for i in range(count)]
    for each in asked:
        await client.say(each.text)
    replies = [await client.reply(each) for each in asked]
    for reply in replies:
        if not isinstance(reply.get("id"), str):
            raise Failed("a result with the message's `id`", reply)
    return [reply["id"] for reply in replies]

"""Requests and replies: numbers, flaws, and what ends a session."""

import asyncio
import json
import time

from websockets.exceptions import ConnectionClosed

from conclave_conformance.company import Scene, username
from conclave_conformance.verdict import Failed, Section, Skipped, expect, holds, same

REQUESTS = Section("requests")
CLOSES = Section("closes")

_GREATEST = 2**53 - 1
_MESSAGE_BYTES = 16 * 1024 * 1024
_IDLE_SECONDS = 30.0
_HEADING = "Requests and replies"


@REQUESTS.check(_HEADING)
async def ping(scene: Scene) -> None:
    """A `ping` is answered with its number and nothing else."""
    client = await scene.enter("ann")
    same(await client.raw('{"id": 41, "op": "ping"}', 41), {"re": 41}, "the reply")


@REQUESTS.check(_HEADING)
async def numbers(scene: Scene) -> None:
    """Any integer of at most 53 bits serves as `id`, and may be used again once it is answered."""
    client = await scene.enter("ann")
    for number in (0, 1, 1, -1, 7, 7, _GREATEST, -_GREATEST):
        same(await client.raw(f'{{"id": {number}, "op": "ping"}}', number), {"re": number}, "the reply")


@REQUESTS.check(_HEADING)
async def no_number(scene: Scene) -> None:
    """Without a usable `id` the reply is `malformed` with `re` null, and the session goes on."""
    client = await scene.enter("ann")
    for bad in ("true", "null", "1.5", "1.0", "1e2", '"1"', "[1]", "{}", str(2**53), str(-(2**53)), "9" * 400):
        reply = await client.raw(f'{{"id": {bad}, "op": "ping"}}', None)
        holds(reply.get("error", {}), f"an error for the id {bad[:20]}", code="malformed")
    for text in ('{"op": "ping"}', "{}"):
        holds((await client.raw(text, None)).get("error", {}), f"an error for {text}", code="malformed")
    await client.ask("ping")


@REQUESTS.check(_HEADING)
async def two_with_one_number(scene: Scene) -> None:
    """Two requests that were sent with one number are answered each, in their order."""
    client = await scene.enter("ann")
    first, second = (client.expect_reply(text, 5) for text in ('{"id":5,"op":"who"}', '{"id":5,"op":"ping"}'))
    for asked in (first, second):
        await client.say(asked.text)
    expect("sessions" in (reply := await client.reply(first)), "the reply to `who` first", reply)
    same(await client.reply(second), {"re": 5}, "the reply to `ping` second")


@REQUESTS.check(_HEADING)
async def sent_ahead(scene: Scene) -> None:
    """Requests that are sent without waiting are answered one after the other, refused ones in their place."""
    client = await scene.enter("ann")
    asked = [client.request("ping" if i % 3 else "join", channel=scene.name()) for i in range(60)]
    for each in asked:
        await client.say(each.text)
    for i, each in enumerate(asked):
        reply = await client.reply(each)
        if i % 3:
            expect("error" not in reply, "a result", reply)
        else:
            holds(reply.get("error", {}), "an error", code="not_found")


@REQUESTS.check(_HEADING)
async def unknown_operation(scene: Scene) -> None:
    """An operation that the server does not know is `malformed`, with the number, and the session goes on."""
    client = await scene.enter("ann")
    for op in ('"dance"', '""', "7", "null", '["ping"]', '"Ping"', '"ping "'):
        reply = await client.raw(f'{{"id": 9, "op": {op}}}', 9)
        holds(reply.get("error", {}), f"an error for the op {op}", code="malformed")
    holds((await client.raw('{"id": 9}', 9)).get("error", {}), "an error without an op", code="malformed")
    await client.ask("ping")


@REQUESTS.check(_HEADING)
async def flaws(scene: Scene) -> None:
    """A field that is missing, or of another type, is `malformed`, with the number, and the session goes on."""
    client = await scene.enter("ann")
    for op, fields in (
        ("join", {}),
        ("join", {"channel": 7}),
        ("join", {"channel": None}),
        ("join", {"channel": "x", "since": 0}),
        ("send", {"channel": "x"}),
        ("send", {"channel": "x", "body": "hi"}),
        ("send", {"channel": "x", "body": {}}),
        ("send", {"channel": "x", "body": {"text": 7}}),
        ("send", {"channel": "x", "body": {"text": "a", "sealed": {"ciphertext": "AA"}}}),
        ("send", {"channel": "x", "body": {"sealed": {}}}),
        ("send", {"channel": "x", "body": {"text": "a"}, "key": 7}),
        ("whisper", {"body": {"text": "a"}}),
        ("whisper", {"to": "nobody", "body": {"text": "a"}}),
        ("history", {"channel": "x", "limit": "7"}),
        ("history", {"channel": "x", "after_ts": "7"}),
        ("channel.create", {"channel": "x", "visibility": "secret"}),
        ("acl.add", {"channel": "x"}),
        ("machine.add", {"machine": "x"}),
    ):
        await client.refused(op, "malformed", **fields)
    await client.ask("ping")


@REQUESTS.check("Protocol v2")
async def unknown_fields(scene: Scene) -> None:
    """Fields that the server does not know are ignored, whatever is in them."""
    client = await scene.enter("ann")
    same(await client.ask("ping", colour="red", nested={"id": 1, "op": ["x", None]}), {}, "the result")


@REQUESTS.check("Protocol v2")
async def long_message(scene: Scene) -> None:
    """A request of a little less than 16 MiB is read."""
    client = await scene.enter("ann")
    same(await client.ask("ping", padding="x" * (_MESSAGE_BYTES - 1000)), {}, "the result")


@REQUESTS.check("Machines and the server")
async def for_admins(scene: Scene) -> None:
    """What is for the server's admins is `unauthorized` to others."""
    ann, bob = await scene.people("ann", "bob")
    for op, fields in (
        ("users", {}),
        ("user.remove", {"user": username(bob)}),
        ("server_invite.create", {"uses": 1, "expires_in": 60}),
        ("audit", {"limit": 1}),
        ("machine.remove", {"user": username(bob), "machine": "laptop"}),
    ):
        await ann.refused(op, "unauthorized", **fields)
    await bob.ask("ping")


# --- What ends a session ---


@CLOSES.check(_HEADING)
async def no_json_object(scene: Scene) -> None:
    """What is no JSON object ends the session with 4007."""
    for text in ("", "ping", "[]", "7", "null", '"x"', '{"id": 1', '{"id": 1, "op": "ping"} x', "{'id': 1}"):
        client = await scene.enter("ann")
        await client.say(text)
        await client.closes(4007)


@CLOSES.check(_HEADING)
async def binary_message(scene: Scene) -> None:
    """A binary message ends the session with 4007, even one with a request in it."""
    client = await scene.enter("ann")
    await client.say(b'{"id": 1, "op": "ping"}')
    await client.closes(4007)


@CLOSES.check("Closes")
async def oversized_message(scene: Scene) -> None:
    """A message of more than 16 MiB ends the connection: 1009, without an event."""
    client = await scene.enter("ann")
    await client.say(json.dumps({"id": 1, "op": "ping", "padding": "x" * (_MESSAGE_BYTES + 1)}))
    try:
        await client.closes(1009, event=False)
    except Failed:
        # A server that stops reading may be gone before its close is read: that is a broken connection.
        if client.ended is None or client.ended[0] != 1006:  # noqa: PLR2004 - no close frame came
            raise


@CLOSES.check("Closes")
async def not_utf_8(scene: Scene) -> None:
    """A text message that is no UTF-8 ends the connection: 1007, without an event."""
    client = await scene.enter("ann")
    await client.ws.send(b'{"id": 1, "op": "\xff"}', text=True)
    await client.closes(1007, event=False)


@CLOSES.check("Closes")
async def by_the_client(scene: Scene) -> None:
    """A client that closes is answered with a close, and is gone: others may see that."""
    ann, bob = await scene.people("ann", "bob")
    await ann.ws.close(1000)
    code = (await ann.until(lambda: ann.ended, "the close"))[0]
    same(code, 1000, "the code")
    deadline = time.monotonic() + _IDLE_SECONDS
    while ann.path in (await bob.ask("who")).get("sessions", []):
        expect(time.monotonic() < deadline, f"`{ann.path}` not to be online any more", "it still is")
        await asyncio.sleep(0.05)


@CLOSES.check("Login")
async def websocket_ping(scene: Scene) -> None:
    """WebSocket pings are answered."""
    client = await scene.enter("ann")
    try:
        async with asyncio.timeout(5):
            await (await client.ws.ping(b"there?"))
    except (TimeoutError, ConnectionClosed):
        raise Failed("a pong with the same content", "none within 5 s") from None


@CLOSES.check("Closes")
async def idle(scene: Scene) -> None:
    """A session that is silent for three heartbeats is closed with 4004; one that pings stays."""
    silent, pinging = await scene.people("ann", "bob")
    heartbeat = float(silent.ready["heartbeat"])
    if heartbeat * 3 > _IDLE_SECONDS:
        raise Skipped(f"it would take {heartbeat * 3:g} s here (three heartbeats)")
    deadline = time.monotonic() + 2 * _IDLE_SECONDS
    while silent.ended is None and time.monotonic() < deadline:
        await pinging.ask("ping")
        await asyncio.sleep(heartbeat / 4)
    await silent.closes(4004)
    await pinging.ask("ping")

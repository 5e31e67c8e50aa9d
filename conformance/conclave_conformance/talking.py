"""Messages, whispers, keys and history."""

from conclave_conformance.client import Client
from conclave_conformance.company import Scene, post, post_all
from conclave_conformance.verdict import Json, Section, expect, holds, same, texts

MESSAGES = Section("messages")
WHISPERS = Section("whispers")
HISTORY = Section("history")

_HEADING = "Messages"
_TEXTS = ("", " ", "Good morning", "a\nb\r\n\tc", "\x00\x1b[0m", "\u2028\u2029\ufeff", "ä 漢 😀", '"\\/', "x" * 5000)


# --- Sending ---


@MESSAGES.check(_HEADING)
async def delivery(scene: Scene) -> None:
    """A message reaches every session in the channel with the id and the time of the sender's reply."""
    channel, (ann, bob, eve) = await scene.room("ann", "bob", "eve")
    sent = await ann.ask("send", channel=channel, body={"text": "hi"})
    expect(isinstance(sent.get("id"), str) and isinstance(sent.get("ts"), int), "a result with `id` and `ts`", sent)
    for each in (bob, eve):
        heard = await each.event("message", channel=channel)
        holds(heard, "an event", from_=ann.path, body={"text": "hi"}, id=sent["id"], ts=sent["ts"])


@MESSAGES.check("Events")
async def no_echo(scene: Scene) -> None:
    """A session does not hear its own messages; another session of the same user does."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    other = await scene.enter("ann")
    await other.ask("join", channel=channel)
    own = await post(ann, channel, "own")
    answer = await post(bob, channel, "answer")
    await ann.hears(channel, [answer], "only what others say")
    await other.hears(channel, [own, answer])


@MESSAGES.check(_HEADING)
async def one_order(scene: Scene) -> None:
    """Everybody hears the messages of a channel in one order, which is that of history."""
    channel, (ann, bob, eve) = await scene.room("ann", "bob", "eve")
    asked = [
        (client, client.request("send", channel=channel, body={"text": str(i)}))
        for i in range(30)
        for client in (ann, bob)
    ]
    for client, each in asked:
        await client.say(each.text)
    ids = [(await client.reply(each)).get("id") for client, each in asked]
    page = await eve.ask("history", channel=channel, limit=500)
    rows = page.get("messages", [])
    same(sorted(row["id"] for row in rows), sorted(map(str, ids)), "what history has")
    await eve.hears(channel, [row["id"] for row in rows], "the order of history")
    for client in (ann, bob):
        await client.hears(channel, [row["id"] for row in rows if row["from"] != client.path], "the order of history")


@MESSAGES.check(_HEADING)
async def bodies(scene: Scene) -> None:
    """Texts and sealed bodies come and are kept byte for byte, with or without a `key_id`."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    sealed: list[Json] = [{"ciphertext": ""}, {"ciphertext": "3q2-7w", "key_id": "team-2"}, {"ciphertext": "_-8"}]
    said: list[Json] = [*({"text": text} for text in _TEXTS), *({"sealed": each} for each in sealed)]
    ids = [(await ann.ask("send", channel=channel, body=body))["id"] for body in said]
    await bob.hears(channel, ids)
    for body, event in zip(said, bob.events("message", channel=channel), strict=True):
        same(event["body"], body, "the body in the event")
    page = await bob.ask("history", channel=channel)
    for body, row in zip(said, page["messages"], strict=True):
        same(row["body"], body, "the body in history")


@MESSAGES.check(_HEADING)
async def bad_ciphertext(scene: Scene) -> None:
    """A ciphertext that is not base64url in its exact spelling is `malformed`."""
    channel, (ann,) = await scene.room("ann")
    for text in ("=", "AA==", "A", "+/", "AB", "ä", "A A"):
        await ann.refused("send", "malformed", channel=channel, body={"sealed": {"ciphertext": text}})


@MESSAGES.check("Login")
async def longest_body(scene: Scene) -> None:
    """A body of `limits.message_bytes` is sent; a longer one, in UTF-8, is `too_large`."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    longest = ann.ready["limits"]["message_bytes"]
    sent = await post(ann, channel, "x" * longest)
    await ann.refused("send", "too_large", channel=channel, body={"text": "x" * (longest + 1)})
    await ann.refused("send", "too_large", channel=channel, body={"text": "ä" * (longest // 2 + 1)})
    await ann.refused("whisper", "too_large", to=bob.path, body={"text": "x" * (longest + 1)})
    await bob.hears(channel, [sent, await post(ann, channel, "end")])


@MESSAGES.check(_HEADING)
async def not_joined(scene: Scene) -> None:
    """Who has not joined a channel can neither speak in it nor read its history: `unauthorized`."""
    channel, (ann,) = await scene.room("ann")
    bob = await scene.enter("bob")
    await bob.refused("send", "unauthorized", channel=channel, body={"text": "hi"})
    await bob.refused("history", "unauthorized", channel=channel)
    await ann.ask("leave", channel=channel)
    await ann.refused("send", "unauthorized", channel=channel, body={"text": "hi"})


# --- Keys ---


@MESSAGES.check(_HEADING)
async def key(scene: Scene) -> None:
    """A send with a key that was used is answered with the first one's id and time, and is not delivered again."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    again = await scene.enter("ann")
    await again.ask("join", channel=channel)
    first = await ann.ask("send", channel=channel, body={"text": "once"}, key="k")
    for client, text in ((ann, "once"), (ann, "something else"), (again, "once")):
        repeated = await client.ask("send", channel=channel, body={"text": text}, key="k")
        holds(repeated, "the first one's result", id=first.get("id"), ts=first.get("ts"))
    last = await post(ann, channel, "end")
    await bob.hears(channel, [first["id"], last], "the message once")
    await again.hears(channel, [first["id"], last], "the message once")
    page = await bob.ask("history", channel=channel)
    same(texts(page["messages"]), ["once", "end"], "what history has")


@MESSAGES.check(_HEADING)
async def key_of_whom(scene: Scene) -> None:
    """A key is its user's and its channel's: others may use the same one, and so may the user elsewhere."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    other = await scene.create(ann)
    await ann.ask("join", channel=other)
    await post(ann, channel, "a", key="k")
    await post(bob, channel, "b", key="k")
    await post(ann, other, "c", key="k")
    await post(ann, channel, "d", key="K")
    same(texts((await ann.ask("history", channel=channel))["messages"]), ["a", "b", "d"], "what history has")
    same(texts((await ann.ask("history", channel=other))["messages"]), ["c"], "what the other one's has")


@MESSAGES.check(_HEADING)
async def key_length(scene: Scene) -> None:
    """A key has 1 to 64 characters; another one is `malformed`."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    for bad in ("", "x" * 65):
        await ann.refused("send", "malformed", channel=channel, body={"text": "x"}, key=bad)
        await ann.refused("whisper", "malformed", to=bob.path, body={"text": "x"}, key=bad)
    await post(ann, channel, "x", key="ö" * 64)


# --- Whispers ---


@WHISPERS.check("Events")
async def delivery_of_a_whisper(scene: Scene) -> None:
    """A whisper reaches the one session that it is for, with the id and the time of the sender's reply."""
    ann, bob = await scene.people("ann", "bob")
    other = await scene.enter("bob")
    sent = await ann.ask("whisper", to=bob.path, body={"text": "Lunch?"})
    heard = await bob.event("whisper")
    holds(heard, "an event", from_=ann.path, body={"text": "Lunch?"}, id=sent.get("id"), ts=sent.get("ts"))
    await ann.ask("whisper", to=other.path, body={"text": "You?"})
    await other.event("whisper")
    same(texts(other.events("whisper")), ["You?"], "what the user's other session hears")


@WHISPERS.check(_HEADING)
async def nobody_there(scene: Scene) -> None:
    """A whisper to a session that is not live is `not_found`, and its key may be used again."""
    ann, bob = await scene.people("ann", "bob")
    absent = f"{bob.path}-absent"
    await ann.refused("whisper", "not_found", to=absent, body={"text": "x"}, key="k")
    await ann.ask("whisper", to=bob.path, body={"text": "x"}, key="k")
    await bob.event("whisper")


@WHISPERS.check(_HEADING)
async def key_of_a_whisper(scene: Scene) -> None:
    """A whisper with a key that was used is answered with the first one's id and time, and not delivered again."""
    ann, bob, eve = await scene.people("ann", "bob", "eve")
    first = await ann.ask("whisper", to=bob.path, body={"text": "once"}, key="w")
    for to in (bob, eve):
        repeated = await ann.ask("whisper", to=to.path, body={"text": "once"}, key="w")
        holds(repeated, "the first one's result", id=first.get("id"), ts=first.get("ts"))
    for each in (bob, eve):
        await ann.ask("whisper", to=each.path, body={"text": "end"})
    await _whispers(bob, ["once", "end"])
    await _whispers(eve, ["end"])


async def _whispers(client: Client, expected: list[str]) -> None:
    await client.until(lambda: texts(client.events("whisper"))[-1:] == expected[-1:], f"the whisper {expected[-1]!r}")
    same(texts(client.events("whisper")), expected, "the whispers that come")


# --- History ---


@HISTORY.check(_HEADING)
async def forwards(scene: Scene) -> None:
    """With `after`, pages follow each other from the oldest on, `more` until the last one, no message twice."""
    channel, (ann,) = await scene.room("ann")
    said = await post_all(ann, channel, 25)
    read, after = [], "0-0"
    for _ in range(10):
        page = await _page(ann, channel, after=after, limit=10)
        read += page["messages"]
        if not page["more"]:
            break
        after = read[-1]["id"]
    same([row["id"] for row in read], said, "all pages")
    holds(await _page(ann, channel, after=said[-1]), "nothing behind the last one", messages=[], more=False)
    holds(await _page(ann, channel, after=said[-2]), "no more than one is left", more=False)


@HISTORY.check(_HEADING)
async def backwards(scene: Scene) -> None:
    """Without `after` the newest come, with `before` those before that position; always oldest first."""
    channel, (ann,) = await scene.room("ann")
    said = await post_all(ann, channel, 25)
    page = await _page(ann, channel, limit=10)
    read = page["messages"]
    same([row["id"] for row in read], said[-10:], "the newest page")
    for _ in range(10):
        if not page["more"]:
            break
        page = await _page(ann, channel, before=read[0]["id"], limit=10)
        read = page["messages"] + read
    same([row["id"] for row in read], said, "all pages")
    holds(await _page(ann, channel, before=said[0]), "nothing before the first one", messages=[], more=False)


@HISTORY.check(_HEADING)
async def by_time(scene: Scene) -> None:
    """With `after_ts`, the oldest messages that are later than that time."""
    channel, (ann,) = await scene.room("ann")
    said = [await post(ann, channel, str(i)) for i in range(8)]
    rows = (await _page(ann, channel))["messages"]
    page = await _page(ann, channel, after_ts=rows[0]["ts"] - 1, limit=3)
    same([row["id"] for row in page["messages"]], said[:3], "what is later than a millisecond before the first one")
    later = [row["id"] for row in rows if row["ts"] > rows[3]["ts"]]
    page = await _page(ann, channel, after_ts=rows[3]["ts"])
    same([row["id"] for row in page["messages"]], later, "what is later than the fourth one")
    holds(await _page(ann, channel, after_ts=rows[-1]["ts"]), "nothing later than the last", messages=[], more=False)


@HISTORY.check(_HEADING)
async def limits(scene: Scene) -> None:
    """A page has `limit` messages at most, by default 100; a limit is 1 to 500, or `malformed`."""
    channel, (ann,) = await scene.room("ann")
    said = await post_all(ann, channel, 105)
    page = await _page(ann, channel)
    same([row["id"] for row in page["messages"]], said[-100:], "the newest 100")
    same(page["more"], True, "`more`")
    same(len((await _page(ann, channel, limit=1))["messages"]), 1, "the length of a page with `limit` 1")
    same(len((await _page(ann, channel, limit=500))["messages"]), 105, "the length of a page with `limit` 500")
    for bad in (0, -1, 501):
        await ann.refused("history", "malformed", channel=channel, limit=bad)


@HISTORY.check("Positions and resume")
async def no_position(scene: Scene) -> None:
    """What is no position is `malformed`."""
    channel, (ann,) = await scene.room("ann")
    await ann.refused("history", "malformed", channel=channel, after="")
    await ann.refused("history", "malformed", channel=channel, before="not a position")


async def _page(client: Client, channel: str, **where: object) -> Json:
    page = await client.ask("history", channel=channel, **where)
    rows, more = page.get("messages"), page.get("more")
    expect(isinstance(rows, list) and isinstance(more, bool), "a page with `messages` and `more`", page)
    expect(page.get("lost", False) is False, "nothing lost of a new channel", page)
    for row in page["messages"]:
        fields = {"id": str, "ts": int, "from": str, "body": dict}
        well = isinstance(row, dict) and all(isinstance(row.get(name), kind) for name, kind in fields.items())
        expect(well, "rows with `id`, `ts`, `from` and `body`", row)
    return page

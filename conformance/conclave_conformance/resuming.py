"""Joining with `since`: exactly what was missed, or the word that something is lost."""

import asyncio

from conclave_conformance.client import Client
from conclave_conformance.company import Scene, post, post_all
from conclave_conformance.verdict import Json, Section, expect, holds, same, shown

RESUME = Section("resume")

_HEADING = "Positions and resume"


async def _resume(client: Client, channel: str, since: str, *, recovered: bool = True) -> Json:
    """Join with a position; the reply must come before any event of the channel."""
    before = len(client.log)
    reply = await client.ask("join", channel=channel, since=since)
    holds(reply, "a result", channel=channel, recovered=recovered)
    expect(isinstance(reply.get("position"), str), "a result with a `position`", reply)
    first = client.log[before]
    expect("re" in first, "the reply before everything that follows from the join", first)
    return reply


@RESUME.check(_HEADING)
async def what_was_missed(scene: Scene) -> None:
    """Every message behind `since` follows, once and in order, and then what is said live."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    first = await post(ann, channel, "first")
    await bob.hears(channel, [first])
    await bob.close()
    missed = await post_all(ann, channel, 150)
    bob = await scene.enter("bob")
    reply = await _resume(bob, channel, first)
    same(reply["position"], missed[-1], "the position, the channel's last message when the session came in")
    await bob.hears(channel, [*missed, await post(ann, channel, "live")])


@RESUME.check(_HEADING)
async def while_others_talk(scene: Scene) -> None:
    """What is said while a session comes back is neither lost nor repeated."""
    channel, (ann,) = await scene.room("ann")
    said = await post_all(ann, channel, 200)
    bob = await scene.enter("bob")
    talking = asyncio.create_task(post_all(ann, channel, 200, "live "))
    try:
        await _resume(bob, channel, said[9])
    finally:
        live = await talking
    await bob.hears(channel, [*said[10:], *live])


@RESUME.check(_HEADING)
async def from_the_beginning(scene: Scene) -> None:
    """`0-0`, the position of a channel in which nothing was said, is the beginning."""
    channel, (ann,) = await scene.room("ann")
    joined = await ann.ask("join", channel=channel)
    same(joined.get("position"), "0-0", "the position in an empty channel")
    said = await post_all(ann, channel, 20)
    bob = await scene.enter("bob")
    await _resume(bob, channel, "0-0")
    await bob.hears(channel, said)


@RESUME.check(_HEADING)
async def position_of_a_join(scene: Scene) -> None:
    """The position from a join without `since` serves as well: what came later follows."""
    channel, (ann,) = await scene.room("ann")
    said = await post_all(ann, channel, 3)
    bob = await scene.enter("bob")
    joined = await bob.ask("join", channel=channel)
    same(joined.get("position"), said[-1], "the id of the channel's last message")
    expect("recovered" not in joined, "no `recovered` without `since`", joined)
    more = await post_all(ann, channel, 3)
    await bob.hears(channel, more)
    again = await scene.enter("bob")
    await _resume(again, channel, said[-1])
    await again.hears(channel, more)


@RESUME.check(_HEADING)
async def nothing_missed(scene: Scene) -> None:
    """Who resumes at the last message hears what is said from then on, and nothing again."""
    channel, (ann,) = await scene.room("ann")
    said = await post_all(ann, channel, 3)
    bob = await scene.enter("bob")
    reply = await _resume(bob, channel, said[-1])
    same(reply["position"], said[-1], "the position")
    await bob.hears(channel, await post_all(ann, channel, 3))


@RESUME.check(_HEADING)
async def own_messages(scene: Scene) -> None:
    """The session's own messages are left out, and serve as `since`."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    session = bob.path.split("/")[2]
    first = await post(ann, channel, "a")
    own = await post(bob, channel, "b")
    last = await post(ann, channel, "c")
    for since in (first, own):
        await bob.close()
        bob = await scene.enter("bob", session)
        await _resume(bob, channel, since)
        await bob.hears(channel, [last], "what others said")


@RESUME.check(_HEADING)
async def unknown_position(scene: Scene) -> None:
    """For a position that was never in the channel, `recovered` is false, and a `gap` comes before what is left."""
    channel, (ann,) = await scene.room("ann")
    elsewhere = await scene.create(ann)
    await ann.ask("join", channel=elsewhere)
    said = await post_all(ann, channel, 3)
    foreign = next(each for each in [await post(ann, elsewhere, str(i)) for i in range(4)] if each not in said)
    bob = await scene.enter("bob")
    await _resume(bob, channel, foreign, recovered=False)
    live = await post(ann, channel, "live")
    await bob.until(
        lambda: live in [event["id"] for event in bob.events("message", channel=channel)], "what is said live"
    )
    events = [frame for frame in bob.log if frame.get("channel") == channel and "ev" in frame]
    holds(events[0], "a `gap` before every message", ev="gap", channel=channel, after=foreign)
    ids = [event["id"] for event in events[1:]]
    all_of_it = [*said, live]
    expect(ids == all_of_it[len(all_of_it) - len(ids) :], f"the end of {shown(all_of_it)}, in order", ids)


@RESUME.check(_HEADING)
async def joined_again(scene: Scene) -> None:
    """A second `join` with `since` begins anew at that position; one without it changes nothing."""
    channel, (ann,) = await scene.room("ann")
    said = await post_all(ann, channel, 6)
    bob = await scene.enter("bob")
    await _resume(bob, channel, said[3])
    await bob.hears(channel, said[4:])
    bob.log.clear()
    await _resume(bob, channel, said[1])
    await bob.hears(channel, said[2:])
    same((await bob.ask("join", channel=channel)).get("position"), said[-1], "how far the session has got")
    await bob.hears(channel, [*said[2:], await post(ann, channel, "live")])


@RESUME.check(_HEADING)
async def several_channels(scene: Scene) -> None:
    """Several channels are resumed at once, each complete, and requests are answered meanwhile."""
    ann, bob = await scene.people("ann", "bob")
    said: dict[str, list[str]] = {}
    for _ in range(4):
        channel = await scene.create(ann)
        await ann.ask("join", channel=channel)
        said[channel] = await post_all(ann, channel, 40)
    asked = [bob.request("join", channel=channel, since=ids[0]) for channel, ids in said.items()]
    asked.append(bob.request("ping"))
    for each in asked:
        await bob.say(each.text)
    for each in asked:
        expect("error" not in (reply := await bob.reply(each)), "a result", reply)
    for channel, ids in said.items():
        await bob.hears(channel, [*ids[1:], await post(ann, channel, "live")])


@RESUME.check(_HEADING)
async def no_position(scene: Scene) -> None:
    """What is no position is `malformed`, and the session has not joined by that."""
    channel, _ = await scene.room("ann")
    bob = await scene.enter("bob")
    for bad in ("", "not a position"):
        await bob.refused("join", "malformed", channel=channel, since=bad)
    await bob.refused("send", "unauthorized", channel=channel, body={"text": "x"})


@RESUME.check(_HEADING)
async def who_may_not(scene: Scene) -> None:
    """A position opens no door: a private channel is as absent as ever."""
    ann, bob = await scene.people("ann", "bob")
    channel = await scene.create(ann, visibility="private")
    await bob.refused("join", "not_found", channel=channel, since="0-0")

"""Channels: coming in and going out, who may do what with them, and who is told."""

from datetime import datetime

from conclave_conformance.client import Client
from conclave_conformance.company import Scene, post, username
from conclave_conformance.verdict import Failed, Json, Section, expect, holds, same

CHANNELS = Section("channels")
RULING = Section("ruling")

# --- Channels ---


@CHANNELS.check("Channels")
async def join(scene: Scene) -> None:
    """A join tells the position and whether the user may administer the channel; a leave ends what is heard."""
    ann, bob = await scene.people("ann", "bob")
    channel = await scene.create(ann)
    holds(await ann.ask("join", channel=channel), "a result", channel=channel, position="0-0", admin=True)
    first = await post(ann, channel, "first")
    holds(await bob.ask("join", channel=channel), "a result", channel=channel, position=first, admin=False)
    heard = await post(ann, channel, "heard")
    await bob.hears(channel, [heard])
    holds(await bob.ask("leave", channel=channel), "a result", channel=channel)
    await post(ann, channel, "not heard")
    await bob.ask("join", channel=channel)
    await bob.hears(channel, [heard, await post(ann, channel, "end")], "nothing of what was said while it was out")


@CHANNELS.check("Channels")
async def absent_or_hidden(scene: Scene) -> None:
    """A channel that does not exist is `not_found`, and so is a private one to who is no member."""
    ann, bob = await scene.people("ann", "bob")
    absent, hidden = scene.name(), await scene.create(ann, visibility="private")
    for channel in (absent, hidden):
        for op, fields in (
            ("join", {}),
            ("acl.list", {}),
            ("channel.delete", {}),
            ("ban", {"user": username(ann)}),
            ("join", {"token": "no-such-invite"}),
        ):
            await bob.refused(op, "not_found", channel=channel, **fields)


@CHANNELS.check("Channels")
async def token(scene: Scene) -> None:
    """An invite makes the user a member of a private channel for good; a used up one opens nothing."""
    ann, bob, eve = await scene.people("ann", "bob", "eve")
    channel = await scene.create(ann, visibility="private")
    invite = (await ann.ask("invite.create", channel=channel, uses=1)).get("token")
    holds(await bob.ask("join", channel=channel, token=invite), "a result", channel=channel, admin=False)
    await bob.ask("leave", channel=channel)
    await bob.ask("join", channel=channel)
    await eve.refused("join", "not_found", "unauthorized", channel=channel, token=invite)


@CHANNELS.check("Channels")
async def listing(scene: Scene) -> None:
    """`channels` tells visibility, membership, whether this session has joined, and who administers."""
    ann, bob = await scene.people("ann", "bob")
    public, unlisted, private = [await scene.create(ann, visibility=v) for v in ("public", "unlisted", "private")]
    await ann.ask("join", channel=public)
    rows = await _rows(ann)
    for channel, visibility in ((public, "public"), (unlisted, "unlisted"), (private, "private")):
        row = rows.get(channel, {})
        joined = channel == public
        holds(row, "a row", name=channel, visibility=visibility, member=True, joined=joined, admin=True)
    rows = await _rows(bob)
    holds(rows.get(public, {}), "a row", name=public, member=False, joined=False, admin=False)
    expect(not {unlisted, private} & rows.keys(), "no unlisted or private channel to who is no member", list(rows))
    holds(await bob.ask("join", channel=unlisted), "to come in who knows the name", channel=unlisted)


async def _rows(client: Client) -> dict[str, Json]:
    reply = await client.ask("channels")
    expect(isinstance(reply.get("channels"), list), "a result with `channels`", reply)
    return {row["name"]: row for row in reply["channels"]}


@CHANNELS.check("Channels")
async def who(scene: Scene) -> None:
    """`who` lists the live sessions of a channel, or those of the server."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    other = await scene.enter("bob")
    inside = (await ann.ask("who", channel=channel)).get("sessions", [])
    same(sorted(inside), sorted([ann.path, bob.path]), "the sessions in the channel")
    everywhere = (await ann.ask("who")).get("sessions", [])
    expect({ann.path, bob.path, other.path} <= set(everywhere), f"`{other.path}` and the others", everywhere)
    await ann.refused("who", "not_found", channel=scene.name())


# --- Ruling ---


@RULING.check("Ruling channels")
async def create(scene: Scene) -> None:
    """A channel is public by default; a name that is taken is a `conflict`, a bad one `malformed`."""
    ann, bob = await scene.people("ann", "bob")
    channel = await scene.create(ann)
    same((await _rows(bob)).get(channel, {}).get("visibility"), "public", "the visibility")
    await bob.refused("channel.create", "conflict", channel=channel)
    for bad in ("", "a/b", " a", "a ", "a\nb", "x" * 65, "a\u202eb"):
        await ann.refused("channel.create", "malformed", channel=bad)


@RULING.check("Ruling channels")
async def rights(scene: Scene) -> None:
    """Only who administers a channel rules it: to others all of it is `unauthorized`."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    for op, fields in (
        ("channel.visibility", {"visibility": "private"}),
        ("channel.rename", {"to": scene.name()}),
        ("channel.delete", {}),
        ("acl.add", {"user": username(bob)}),
        ("acl.promote", {"user": username(bob)}),
        ("acl.demote", {"user": username(ann)}),
        ("acl.remove", {"user": username(ann)}),
        ("acl.list", {}),
        ("invite.create", {}),
        ("invite.list", {}),
        ("kick", {"target": username(ann)}),
        ("ban", {"user": username(ann)}),
        ("bans", {}),
        ("unban", {"user": username(ann)}),
    ):
        await bob.refused(op, "unauthorized", channel=channel, **fields)
    await ann.ask("send", channel=channel, body={"text": "all as before"})


@RULING.check("Ruling channels")
async def members(scene: Scene) -> None:
    """Members are added, listed, promoted, demoted and removed; who was promoted rules."""
    ann, bob, eve = await scene.people("ann", "bob", "eve")
    channel, user = await scene.create(ann, visibility="private"), username(bob)
    holds(await ann.ask("acl.add", channel=channel, user=user), "a result", user=user)
    same((await ann.ask("acl.list", channel=channel)).get("users"), sorted([username(ann), user]), "the members")
    holds(await bob.ask("join", channel=channel), "a result", admin=False)
    holds(await ann.ask("acl.promote", channel=channel, user=user), "a result", user=user)
    holds(await bob.ask("join", channel=channel), "a result", admin=True)
    await bob.ask("acl.add", channel=channel, user=username(eve))
    holds(await ann.ask("acl.demote", channel=channel, user=user), "a result", user=user)
    await bob.refused("acl.add", "unauthorized", channel=channel, user=username(eve))
    holds(await ann.ask("acl.remove", channel=channel, user=user), "a result", user=user)
    await bob.refused("join", "not_found", "unauthorized", channel=channel)
    await eve.ask("join", channel=channel)


@RULING.check("Ruling channels")
async def invites(scene: Scene) -> None:
    """Invites are listed with what is left of them, null where there is no limit; a revoked one opens nothing."""
    ann, bob = await scene.people("ann", "bob")
    channel = await scene.create(ann, visibility="private")
    limited = (await ann.ask("invite.create", channel=channel, uses=2, expires_in=3600)).get("token")
    endless = (await ann.ask("invite.create", channel=channel)).get("token")
    await bob.ask("join", channel=channel, token=limited)
    listed = (await ann.ask("invite.list", channel=channel)).get("invites", [])
    rows = {row.get("token"): row for row in listed}
    same(set(rows) == {limited, endless}, True, "both invites are listed")
    holds(rows[endless], "an invite", uses_remaining=None, expires_at=None)
    holds(rows[limited], "an invite", uses_remaining=1)
    _rfc_3339(rows[limited].get("expires_at"))
    for invite in (limited, endless, "no-such-invite"):
        holds(await ann.ask("invite.revoke", token=invite), "the same answer for each", token=invite)
    same((await ann.ask("invite.list", channel=channel)).get("invites"), [], "the invites that are left")
    eve = await scene.enter("eve")
    await eve.refused("join", "not_found", "unauthorized", channel=channel, token=endless)
    for bad in ({"uses": 0}, {"uses": -1}, {"expires_in": 0}, {"uses": 1.5}):
        await ann.refused("invite.create", "malformed", channel=channel, **bad)


def _rfc_3339(text: object) -> None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        raise Failed("a time in RFC 3339", text) from None
    expect(moment.tzinfo is not None, "a time with its offset from UTC", text)


@RULING.check("Ruling channels")
async def kick(scene: Scene) -> None:
    """A kick takes the channel from one session or from all of a user's; they may come back."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    other = await scene.enter("bob")
    await other.ask("join", channel=channel)
    holds(await ann.ask("kick", channel=channel, target=bob.path), "a result", target=bob.path)
    holds(await bob.event("left", channel=channel), "an event", reason="kicked")
    await other.ask("history", channel=channel)
    await bob.ask("join", channel=channel)
    await ann.ask("kick", channel=channel, target=username(bob))
    await other.event("left", channel=channel)
    await bob.until(lambda: len(bob.events("left", channel=channel)) > 1, "a second event `left`")
    await bob.refused("send", "unauthorized", channel=channel, body={"text": "x"})


@RULING.check("Ruling channels")
async def ban(scene: Scene) -> None:
    """A ban takes the channel from a user and keeps them out, until it is lifted."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    user = username(bob)
    holds(await ann.ask("ban", channel=channel, user=user), "a result", user=user)
    holds(await bob.event("left", channel=channel), "an event", reason="banned")
    same((await ann.ask("bans", channel=channel)).get("users"), [user], "who is banned")
    await bob.refused("join", "unauthorized", "not_found", channel=channel)
    await bob.refused("history", "unauthorized", "not_found", channel=channel)
    holds(await ann.ask("unban", channel=channel, user=user), "a result", user=user)
    same((await ann.ask("bans", channel=channel)).get("users"), [], "who is banned")
    await bob.ask("join", channel=channel)


@RULING.check("Ruling channels")
async def nothing_after_a_removal(scene: Scene) -> None:
    """Once a removal is answered, nothing that is said later reaches who has lost the channel."""
    for op in ("kick", "ban", "acl.remove", "channel.visibility"):
        channel, (ann, bob, eve) = await scene.room("ann", "bob", "eve")
        await ann.ask("acl.add", channel=channel, user=username(eve))
        field = {"kick": "target", "channel.visibility": "visibility"}.get(op, "user")
        if op == "acl.remove":
            await ann.ask("acl.add", channel=channel, user=username(bob))
        await ann.ask(op, channel=channel, **{field: "private" if field == "visibility" else username(bob)})
        secret = await post(ann, channel, "secret")
        await eve.hears(channel, [secret])
        await ann.ask("whisper", to=bob.path, body={"text": "end"})
        await bob.event("whisper")
        same(bob.events("message", channel=channel), [], f"what is heard after `{op}` was answered")


@RULING.check("Events")
async def why_it_left(scene: Scene) -> None:
    """Who loses a channel is told why: kicked, banned, removed, deleted or private."""
    for op, fields, reason in (
        ("kick", {"target": "bob"}, "kicked"),
        ("ban", {"user": "bob"}, "banned"),
        ("acl.remove", {"user": "bob"}, "removed"),
        ("channel.delete", {}, "deleted"),
        ("channel.visibility", {"visibility": "private"}, "private"),
    ):
        channel, (ann, bob) = await scene.room("ann", "bob")
        person = {name: username(bob) if value == "bob" else value for name, value in fields.items()}
        await ann.ask(op, channel=channel, **person)
        holds(await bob.event("left", channel=channel), f"an event after `{op}`", reason=reason)
        await bob.refused("send", "unauthorized", "not_found", channel=channel, body={"text": "x"})
        await bob.ask("ping")


@RULING.check("Events")
async def rename(scene: Scene) -> None:
    """A new name is told to everybody in the channel, who gave it included; all that was said stays."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    before = await post(ann, channel, "before")
    await bob.hears(channel, [before])
    to = scene.name()
    scene.owns(ann, to)
    holds(await ann.ask("channel.rename", channel=channel, to=to), "a result", channel=to)
    for each in (ann, bob):
        holds(await each.event("renamed"), "an event", channel=channel, to=to)
    await bob.hears(to, [await post(ann, to, "after")], "what is said, under the new name")
    page = await bob.ask("history", channel=to)
    same(len(page["messages"]), 2, "how many messages history has under the new name")
    await ann.refused("join", "not_found", channel=channel)
    taken = await scene.create(ann)
    await ann.refused("channel.rename", "conflict", channel=to, to=taken)


@RULING.check("Ruling channels")
async def delete(scene: Scene) -> None:
    """A deleted channel is gone; its name may be given again, to a channel without its history."""
    channel, (ann, bob) = await scene.room("ann", "bob")
    await post(ann, channel, "before")
    holds(await ann.ask("channel.delete", channel=channel), "a result", channel=channel)
    await bob.event("left", channel=channel)
    await bob.refused("join", "not_found", channel=channel)
    await ann.ask("channel.create", channel=channel)
    holds(await bob.ask("join", channel=channel), "a new channel", position="0-0", admin=False)
    holds(await bob.ask("history", channel=channel), "an empty history", messages=[], more=False)


@RULING.check("Ruling channels")
async def visibility(scene: Scene) -> None:
    """A channel that is made private is hidden from who is no member, and found again when it is made public."""
    channel, (ann,) = await scene.room("ann")
    bob = await scene.enter("bob")
    holds(await ann.ask("channel.visibility", channel=channel, visibility="private"), "a result", channel=channel)
    await bob.refused("join", "not_found", channel=channel)
    await ann.ask("channel.visibility", channel=channel, visibility="public")
    expect(channel in await _rows(bob), "the channel in the listing", "it is not there")

"""Asking for what admins do, and the words of their refusals."""

from conclave.model import Plain, SessionPath, Visibility
from conclave.protocol.v1 import admin, frames
from relay.services.server_admins import ServerAdmins
from tests.support.peer import Peer
from tests.support.waiting import wait_until

PUBLIC, UNLISTED, PRIVATE = Visibility.PUBLIC, Visibility.UNLISTED, Visibility.PRIVATE
NOT_FOUND = "not found: channel `ops` not found"
NOT_ADMIN = "unauthorized: not authorized: admin role required"
NOT_MEMBER = "unauthorized: not a member of channel `ops`"
BANNED = "unauthorized: channel `ops` is private"
REVOKED = "unauthorized: machine key revoked"
REMOVED = "unauthorized: user removed from this server"
ROOT = ServerAdmins({"root": None})


async def rule(peer: Peer, operation: admin.AdminOp) -> None:
    await peer.ask(frames.Admin(operation), frames.Ack)


async def refused(peer: Peer, operation: admin.AdminOp) -> str:
    return await peer.refusal(frames.Admin(operation))


async def users(peer: Peer, operation: admin.AdminOp) -> list[str]:
    return list((await peer.ask(frames.Admin(operation), frames.UserList)).users)


async def invites(peer: Peer, channel: str) -> dict[str, tuple[int | None, str | None]]:
    reply = await peer.ask(frames.Admin(admin.InviteListOp(channel)), frames.InviteList)
    return {each.token: (each.uses_remaining, each.expires_at) for each in reply.invites}


async def listed(peer: Peer) -> list[str]:
    return [channel.name for channel in (await peer.ask(frames.ListChannels(), frames.ChannelList)).channels]


def say(channel: str) -> frames.ChannelMsg:
    return frames.ChannelMsg(channel, SessionPath("x", "y", "z"), Plain("hi"))


async def hears(listener: Peer, speaker: Peer, channel: str, body: str) -> None:
    await speaker.post(channel, body)
    await wait_until(lambda: listener.bodies[-1:] == [body], what=f"{listener.path} hears `{body}`")


async def hears_not(listener: Peer, speaker: Peer, channel: str, body: str) -> None:
    """Post, and assert that the listener is out of the channel and did not get it."""
    await speaker.post(channel, body)
    assert await listener.refusal(say(channel)) == f"unauthorized: not a member of channel `{channel}`"
    assert body not in listener.bodies

"""The operations of admins, and the texts of their refusals."""

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


async def administer(peer: Peer, operation: admin.AdminOp) -> None:
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


def a_post(channel: str) -> frames.ChannelMsg:
    return frames.ChannelMsg(channel, SessionPath("x", "y", "z"), Plain("hi"))


async def assert_delivered(receiver: Peer, sender: Peer, channel: str, body: str) -> None:
    await sender.post(channel, body)
    await wait_until(lambda: receiver.bodies[-1:] == [body], what=f"{receiver.path} gets `{body}`")


async def assert_not_delivered(receiver: Peer, sender: Peer, channel: str, body: str) -> None:
    """Post, and assert that the receiver is not in the channel and did not get it."""
    await sender.post(channel, body)
    assert await receiver.refusal(a_post(channel)) == f"unauthorized: not a member of channel `{channel}`"
    assert body not in receiver.bodies

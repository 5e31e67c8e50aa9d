"""The replies about a hidden channel and about an absent one are equal, byte by byte."""

from collections.abc import Callable
from typing import get_args

import pytest
from redis import Redis

from conclave.model import Plain, SessionPath, Visibility
from conclave.protocol import v1
from conclave.protocol.v1 import admin, frames
from tests.support.peer import Peers, RawSession

HIDDEN, ABSENT = "hidden", "absent"
"""Of one length, so that replies can be compared after one is put for the other."""
NOWHERE = SessionPath("x", "y", "z")
Build = Callable[[str], frames.Frame]

REQUESTS: dict[str, Build] = {
    "join": frames.Join,
    "join with a bad token": lambda name: frames.Join(name, "x" * 32),
    "leave": frames.Leave,
    "who": frames.Who,
    "post": lambda name: frames.ChannelMsg(name, NOWHERE, Plain("hi")),
    "read": lambda name: frames.ReadSince(name, 0),
    "list": lambda _: frames.ListChannels(),
}
OPERATIONS: dict[type[admin.AdminOp], Callable[[str], admin.AdminOp]] = {
    admin.DeleteChannel: admin.DeleteChannel,
    admin.RenameChannel: lambda name: admin.RenameChannel(name, "other"),
    admin.SetVisibility: lambda name: admin.SetVisibility(name, Visibility.PUBLIC),
    admin.AclAdd: lambda name: admin.AclAdd(name, "eve"),
    admin.AclRemove: lambda name: admin.AclRemove(name, "eve"),
    admin.InviteCreate: admin.InviteCreate,
    admin.Kick: lambda name: admin.Kick(name, "ann"),
    admin.Ban: lambda name: admin.Ban(name, "ann"),
    admin.AclList: admin.AclList,
    admin.Unban: lambda name: admin.Unban(name, "ann"),
    admin.BanList: admin.BanList,
    admin.InviteListOp: admin.InviteListOp,
    admin.AclPromote: lambda name: admin.AclPromote(name, "eve"),
    admin.AclDemote: lambda name: admin.AclDemote(name, "ann"),
}
NO_CHANNEL = {
    *(admin.CreateChannel, admin.InviteRevoke, admin.UserRemove, admin.MachineRemove, admin.MachineAdd),
    *(admin.ServerInviteCreate, admin.Audit),
}
"""Creating what exists is refused: names are one space. The others name no channel."""

BUILDS: dict[str, Build] = REQUESTS | {
    type_.__name__: lambda name, build=build: frames.Admin(build(name)) for type_, build in OPERATIONS.items()
}


@pytest.fixture
async def outsider(url: str, peers: Peers) -> RawSession:
    """Eve, on a server where ann has a busy private channel."""
    ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
    await ann.create(HIDDEN, Visibility.PRIVATE)
    await ann.join(HIDDEN)
    await bob.join(HIDDEN, await ann.invite(HIDDEN, uses=2))
    await ann.post(HIDDEN, "secret")
    return await RawSession.register(peers, url, "eve")


def test_the_table_is_complete() -> None:
    """A new operation on a channel needs a row here."""
    assert set(OPERATIONS) | NO_CHANNEL == set(get_args(admin.AdminOp))


async def test_a_hidden_channel_reads_exactly_as_an_absent_one(outsider: RawSession) -> None:
    """Every request and every operation, compared byte by byte."""
    for what, build in BUILDS.items():
        hidden, absent = await outsider.ask(build(HIDDEN)), await outsider.ask(build(ABSENT))
        assert hidden.replace(HIDDEN.encode(), ABSENT.encode()) == absent, what
        assert isinstance(v1.decode(hidden), frames.Error | frames.Ack | frames.ChannelList), what


async def test_a_ban_does_not_give_a_hidden_channel_away(outsider: RawSession, redis_url: str) -> None:
    """Nor does having been invited: what is over must not leave a trace that an outsider can read."""
    with Redis.from_url(redis_url) as store:
        (channels,) = store.keys("*:names")
        channel_id = bytes(store.hget(channels, HIDDEN) or b"").decode()
        store.sadd(channels.decode().removesuffix(":names") + f":bans:{channel_id}", "eve")
    for what, build in BUILDS.items():
        hidden, absent = await outsider.ask(build(HIDDEN)), await outsider.ask(build(ABSENT))
        assert hidden.replace(HIDDEN.encode(), ABSENT.encode()) == absent, what


@pytest.mark.parametrize("what", ["who", "AclAdd", "InviteCreate"])
async def test_an_unlisted_channel_shows_nothing_of_itself_to_those_outside(
    outsider: RawSession, url: str, peers: Peers, what: str
) -> None:
    """A user who knows its name may join; without a join nothing can be read."""
    cid = await peers.register(url, "cid")
    await cid.create("listen", Visibility.UNLISTED)
    await cid.join("listen")
    builds: dict[str, Build] = {
        "who": frames.Who,
        "AclAdd": lambda name: frames.Admin(admin.AclAdd(name, "eve")),
        "InviteCreate": lambda name: frames.Admin(admin.InviteCreate(name)),
    }
    build = builds[what]
    there, absent = await outsider.ask(build("listen")), await outsider.ask(build(ABSENT))
    assert there.replace(b"listen", ABSENT.encode()) == absent


async def test_creating_a_taken_name_is_the_one_exception(outsider: RawSession) -> None:
    """Two channels cannot share a name, so it has to be refused; the refusal shows nothing else."""
    reply = v1.decode(await outsider.ask(frames.Admin(admin.CreateChannel(HIDDEN, Visibility.PUBLIC))))
    assert reply == frames.Error(frames.Unauthorized(f"channel name `{HIDDEN}` is already taken"))

"""Authorization: every operation by every role on channels of every visibility, with its exact answer."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, get_args

import msgspec
import pytest
from redis import Redis

from conclave.model import InviteInfo, Visibility
from conclave.protocol import v1
from conclave.protocol.v1 import admin, frames
from relay.services.server_admins import ServerAdmins
from tests.support.nodes import running_node
from tests.support.peer import Peers, RawSession

PUBLIC, UNLISTED, PRIVATE = Visibility.PUBLIC, Visibility.UNLISTED, Visibility.PRIVATE
ADMINS = ("creator", "removed creator", "channel admin", "server admin")
OUTSIDERS = ("stranger", "banned", "banned admin")
ROLES = (*ADMINS, "member", "subscriber", *OUTSIDERS)
TYPICAL = ("channel admin", "member", "stranger")
"""A role that may do everything, one that is refused, and one to which a private channel does not exist."""
USERS = {role: role.replace(" ", "-") for role in ROLES}
DENIED = frames.Error(frames.Unauthorized("not authorized: admin role required"))
ABSENT = "none"
"""As long as the names of the channels that exist, so that answers can be compared byte by byte."""
ANY_TOKEN = "any token"


class Case(msgspec.Struct, frozen=True):
    """The request for a channel and its token, and the reply to a caller with the authority."""

    request: Callable[[str, str], admin.AdminOp]
    reply: Callable[[str, str], frames.Frame]


def on_user(operation: Callable[[str, str], admin.AdminOp], user: str) -> Case:
    return Case(lambda name, _: operation(name, user), lambda _, __: frames.Ack(user))


MEMBERS = ("channel-admin", "creator", "member")
BANNED = ("banned", "banned-admin")
CASES: dict[str, Case] = {
    "delete": Case(lambda name, _: admin.DeleteChannel(name), lambda name, _: frames.Ack(name)),
    "rename": Case(lambda name, _: admin.RenameChannel(name, f"{name}!"), lambda name, _: frames.Ack(f"{name}!")),
    "public": Case(lambda name, _: admin.SetVisibility(name, PUBLIC), lambda name, _: frames.Ack(name)),
    "private": Case(lambda name, _: admin.SetVisibility(name, PRIVATE), lambda name, _: frames.Ack(name)),
    "acl add": on_user(admin.AclAdd, "new"),
    "acl remove": on_user(admin.AclRemove, "member"),
    "acl promote": on_user(admin.AclPromote, "member"),
    "acl demote": on_user(admin.AclDemote, "channel-admin"),
    "kick a user": on_user(admin.Kick, "member"),
    "kick a session": on_user(admin.Kick, "member/laptop/main"),
    "ban": on_user(admin.Ban, "member"),
    "unban": on_user(admin.Unban, "banned"),
    "invite create": Case(lambda name, _: admin.InviteCreate(name, 3), lambda _, __: frames.InviteToken(ANY_TOKEN)),
    "acl list": Case(lambda name, _: admin.AclList(name), lambda _, __: frames.UserList(MEMBERS)),
    "ban list": Case(lambda name, _: admin.BanList(name), lambda _, __: frames.UserList(BANNED)),
    "invite list": Case(
        lambda name, _: admin.InviteListOp(name),
        lambda _, token: frames.InviteList((InviteInfo(token, 7, None),)),
    ),
    "invite revoke": Case(lambda _, token: admin.InviteRevoke(token), lambda _, token: frames.Ack(token)),
}
SERVER_OPERATIONS: dict[str, admin.AdminOp] = {
    "user remove": admin.UserRemove("nobody"),
    "server-invite create": admin.ServerInviteCreate(1),
    "audit": admin.Audit(10),
}
WITHOUT_A_ROLE = {admin.CreateChannel, admin.MachineAdd, admin.MachineRemove}
"""The operations on one's own channels and machines, which every user has."""


class Setup:
    """A node with a user in every role, and channels that are all set up alike."""

    def __init__(self, url: str, peers: Peers, redis_url: str) -> None:
        self._url = url
        self._peers = peers
        self._redis_url = redis_url
        self._callers: dict[str, RawSession] = {}
        self.count = 0

    async def caller(self, role: str) -> RawSession:
        if role not in self._callers:
            self._callers[role] = await RawSession.register(self._peers, self._url, USERS[role])
        return self._callers[role]

    async def do(self, role: str, operation: admin.AdminOp) -> frames.Frame:
        reply = v1.decode(await (await self.caller(role)).ask(frames.Admin(operation)))
        assert not isinstance(reply, frames.Error), (role, operation, reply)
        return reply

    async def channel(self, visibility: Visibility, role: str) -> tuple[str, str]:
        """Create a channel in which every user has its role, with an invite; a subscriber has joined it."""
        self.count += 1
        name, creator = f"c{self.count:03}", "creator" if role != "removed creator" else role
        await self.do(creator, admin.CreateChannel(name, visibility))
        operations: list[admin.AdminOp] = [
            admin.AclPromote(name, "channel-admin"),
            *(admin.AclAdd(name, user) for user in ("creator", "member", "banned")),
            admin.AclPromote(name, "banned-admin"),
            admin.AclRemove(name, "removed-creator"),
            *(admin.Ban(name, user) for user in BANNED),
        ]
        for operation in operations:
            await self.do(creator, operation)
        token = await self.do(creator, admin.InviteCreate(name, 7))
        assert isinstance(token, frames.InviteToken)
        if role == "subscriber":
            assert v1.decode(await (await self.caller(role)).ask(frames.Join(name))) == frames.Joined(name)
        return name, token.token

    def directory(self) -> dict[bytes, Any]:
        """All keys of the directory, except for the audit trail, which has refusals, too."""
        with Redis.from_url(self._redis_url) as store:
            keys = [key for key in store.keys("*{dir}*") if not key.endswith(b":audit")]
            dumps = store.pipeline(transaction=False)
            for key in keys:
                dumps.dump(key)
            return dict(zip(keys, dumps.execute(), strict=True))


@asynccontextmanager
async def running_setup(redis_url: str) -> AsyncIterator[Setup]:
    admins = ServerAdmins({USERS["server admin"]: None})
    async with running_node(redis_url, admins=admins) as url, Peers() as peers:
        yield Setup(url, peers, redis_url)


def outcome(role: str, visibility: Visibility, case: str) -> str:
    """Return the outcome of a request: `done`, `denied`, `hidden`, or `ignored` if an invite cannot be revoked."""
    if role in ADMINS:
        return "done"
    if case == "invite revoke":
        return "ignored"
    return "denied" if visibility is PUBLIC or role not in OUTSIDERS else "hidden"


def test_the_table_is_complete() -> None:
    """A new operation needs a row here."""
    listed = {type(case.request("ops", "token")) for case in CASES.values()}
    assert listed | {type(each) for each in SERVER_OPERATIONS.values()} | WITHOUT_A_ROLE == set(get_args(admin.AdminOp))


@pytest.mark.parametrize(
    ("visibility", "role"),
    [
        pytest.param(v, role, marks=() if v is PUBLIC or (v is PRIVATE and role in TYPICAL) else pytest.mark.long)
        for v in Visibility
        for role in ROLES
        if (v, role) != (PRIVATE, "subscriber")
    ],
    ids=lambda each: each.value if isinstance(each, Visibility) else each.replace(" ", "-"),
)
async def test_the_authority_of_each_role_over_a_channel(redis_url: str, visibility: Visibility, role: str) -> None:
    """Done and answered as in the original, or refused without a trace; a hidden channel like an absent one."""
    async with running_setup(redis_url) as setup:
        caller = await setup.caller(role)
        for what, case in CASES.items():
            name, token = await setup.channel(visibility, role)
            before = setup.directory()
            reply = await caller.ask(frames.Admin(case.request(name, token)))
            changed = setup.directory() != before
            frame, expected = v1.decode(reply), outcome(role, visibility, what)
            if isinstance(frame, frames.InviteToken):
                assert len(frame.token) == 32
                frame = frames.InviteToken(ANY_TOKEN)
            if expected == "done":
                assert frame == case.reply(name, token), what
                unchanged = what.endswith("list") or (what, visibility) == ("public", PUBLIC)
                assert changed == (not unchanged), what
                continue
            assert not changed, f"{what} was refused, and changed the directory"
            if expected == "ignored":
                assert frame == case.reply(name, token), what
            elif expected == "denied":
                assert frame == DENIED, what
            else:
                absent = await caller.ask(frames.Admin(case.request(ABSENT, token)))
                assert frame == frames.Error(frames.NotFound(f"channel `{name}` not found")), what
                assert reply.replace(name.encode(), ABSENT.encode()) == absent, what


@pytest.mark.parametrize("role", ROLES)
async def test_the_authority_of_each_role_over_the_server(redis_url: str, role: str) -> None:
    """Only the server's admins have it: the admin of a channel administers nothing beyond it."""
    async with running_setup(redis_url) as setup:
        await setup.channel(PUBLIC, role)
        caller = await setup.caller(role)
        before = setup.directory()
        for what, operation in SERVER_OPERATIONS.items():
            reply = v1.decode(await caller.ask(frames.Admin(operation)))
            if role != "server admin":
                assert reply == DENIED, what
                assert setup.directory() == before, what
            else:
                assert not isinstance(reply, frames.Error), what
        users = v1.decode(await caller.ask(frames.ListUsers()))
        assert isinstance(users, frames.UserList) if role == "server admin" else users == DENIED

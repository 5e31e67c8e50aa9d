"""The audit trail: user, operation, target and outcome."""

from collections.abc import Callable

import pytest
from nacl.signing import SigningKey
from structlog.testing import capture_logs

from conclave.protocol.v1 import admin, frames
from relay.services.accounts import key_text
from tests.support.directory import Store
from tests.support.moderation import NOT_ADMIN, NOT_FOUND, PRIVATE, administer, refused, users
from tests.support.peer import Peers


async def test_the_trail_has_user_target_and_outcome(pair: tuple[str, str], peers: Peers, store: Store) -> None:
    """The same in the log and in the output of `audit`, refusals too; never a token or a key."""
    with capture_logs() as logs:
        root, ann = await peers.register(pair[0], "root"), await peers.register(pair[1], "ann")
        eve = await peers.register(pair[1], "eve")
        await ann.create("ops", PRIVATE)
        token = await ann.invite("ops", uses=2, seconds=60)
        key = bytes(SigningKey.generate().verify_key)
        await administer(ann, admin.MachineAdd("desktop", key))
        await administer(ann, admin.Ban("ops", "eve"))
        assert await refused(eve, admin.Unban("ops", "eve")) == NOT_FOUND
        assert await refused(ann, admin.UserRemove("eve")) == NOT_ADMIN
        await administer(eve, admin.InviteRevoke(token))
        await administer(ann, admin.InviteRevoke(token))
        await users(root, admin.AclList("ops"))
        server_token = (await root.ask(frames.Admin(admin.ServerInviteCreate()), frames.InviteToken)).token
        await administer(ann, admin.RenameChannel("ops", "dev"))
        await administer(ann, admin.MachineRemove("desktop"))
        await administer(root, admin.UserRemove("eve"))
        await administer(ann, admin.DeleteChannel("dev"))
    trail = (await root.ask(frames.Admin(admin.Audit(100)), frames.AuditList)).entries
    expected = [
        ("ann", "create_channel", "ops", "ok"),
        ("ann", "invite_create", "ops", "ok"),
        ("ann", "machine_add", "ann/desktop", "ok"),
        ("ann", "ban", "ops eve", "ok"),
        ("eve", "unban", "ops eve", "missing"),
        ("ann", "user_remove", "eve", "denied"),
        ("eve", "invite_revoke", "ops", "missing"),
        ("ann", "invite_revoke", "ops", "ok"),
        ("root", "acl_list", "ops", "ok"),
        ("root", "server_invite_create", "", "ok"),
        ("ann", "rename_channel", "ops dev", "ok"),
        ("ann", "machine_remove", "ann/desktop", "ok"),
        ("root", "user_remove", "eve", "ok"),
        ("ann", "delete_channel", "dev", "ok"),
    ]
    assert [(each.actor, each.operation, each.target, each.outcome) for each in trail] == [
        (f"{user}/laptop/main", *rest) for user, *rest in expected
    ]
    assert [each.at for each in trail] == sorted(each.at for each in trail)
    events = [event for event in logs if event["event"] == "audit"]
    assert [(event["actor"], event["operation"], event["outcome"]) for event in events] == [
        (each.actor, each.operation, each.outcome) for each in trail
    ]
    written = str(logs) + str(store.audit())
    for secret in (token, server_token, key_text(key)):
        assert secret not in written
    newest = (await root.ask(frames.Admin(admin.Audit(2)), frames.AuditList)).entries
    assert newest == trail[-2:]
    assert await refused(ann, admin.Audit(1)) == NOT_ADMIN


@pytest.mark.parametrize("build", [admin.DeleteChannel, admin.AclList], ids=["operation", "list"])
async def test_a_long_target_is_truncated(
    pair: tuple[str, str], peers: Peers, store: Store, build: Callable[[str], admin.AdminOp]
) -> None:
    """A request may be as long as a frame, and any user may send thousands: the trail does not keep them whole."""
    root, eve = await peers.register(pair[0], "root"), await peers.register(pair[0], "eve")
    with capture_logs() as logs:
        assert (await refused(eve, build("x" + "é" * 100_000))).startswith("not found: channel `xé")
    (entry,) = store.audit()
    assert len(entry["target"].encode()) < 2000
    assert len(str(logs)) < 3000
    (shown,) = (await root.ask(frames.Admin(admin.Audit(1)), frames.AuditList)).entries
    assert shown.target.startswith("xé")

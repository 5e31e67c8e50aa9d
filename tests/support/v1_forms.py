"""Every request with its v1 frame, a reply to that, and the result that the reply stands for."""

import msgspec

from conclave.machine.keys import MachineKey
from conclave.model import (
    AuditEntry,
    ChannelInfo,
    InviteInfo,
    MachineInfo,
    Plain,
    Sealed,
    SessionPath,
    Visibility,
)
from conclave.protocol import requests
from conclave.protocol.body import Body, SealedBody
from conclave.protocol.requests import Request
from conclave.protocol.v1 import admin, frames
from conclave.protocol.v1.frames import Ack, Admin, Frame, InviteToken, UserList

ME = SessionPath("ann", "laptop", "x")
BOB = SessionPath("bob", "desktop", "y")
KEY = MachineKey(bytes(32))
MACHINE = MachineInfo("m", "K", "T")
INVITE = InviteInfo("t", 2, None)
ENTRY = AuditEntry("T", "ann/laptop/x", "ban", "ops bob", "ok")
SEALED = Body(sealed=SealedBody("__79_A", "k"))


class Form(msgspec.Struct, frozen=True):
    """A request and all that v1 makes of it."""

    request: Request[object]
    frame: Frame
    reply: Frame
    result: object

    def __str__(self) -> str:
        return f"{type(self.request).__name__}-{type(self.reply).__name__}"


TALK = [
    Form(requests.Ping(), frames.Ping(), frames.Pong(), requests.Done()),
    Form(requests.Join("ops"), frames.Join("ops"), frames.Joined("ops"), requests.Joined("ops")),
    Form(
        requests.Join("ops", "t", since="4:1"),
        frames.Join("ops", "t"),
        frames.Joined("ops"),
        requests.Joined("ops", recovered=None),
    ),
    Form(requests.Leave("ops"), frames.Leave("ops"), Ack("ops"), requests.OnChannel("ops")),
    Form(requests.Leave("ops"), frames.Leave("ops"), Ack(), requests.OnChannel("ops")),
    Form(requests.Who(), frames.Who(), frames.Presence(None, ()), requests.Sessions(())),
    Form(
        requests.Who("ops"),
        frames.Who("ops"),
        frames.Presence("ops", (ME, BOB)),
        requests.Sessions(("ann/laptop/x", "bob/desktop/y")),
    ),
    Form(
        requests.ListChannels(),
        frames.ListChannels(),
        frames.ChannelList((ChannelInfo("ops", Visibility.PRIVATE, member=True),)),
        requests.Channels((requests.ChannelRow("ops", Visibility.PRIVATE, member=True, joined=None, admin=None),)),
    ),
    Form(
        requests.Send("ops", Body(text="hi"), key="once"),
        frames.ChannelMsg("ops", ME, Plain("hi")),
        Ack(),
        requests.Sent(id=None, ts=None),
    ),
    Form(
        requests.Send("ops", SEALED),
        frames.ChannelMsg("ops", ME, Sealed(b"\xff\xfe\xfd\xfc", "k")),
        Ack(),
        requests.Sent(),
    ),
    Form(
        requests.Whisper("bob/desktop/y", Body(text="")),
        frames.Whisper(ME, BOB, Plain("")),
        Ack(),
        requests.Sent(),
    ),
    Form(
        requests.History("ops", after_ts=0),
        frames.ReadSince("ops", 0),
        frames.History("ops", (frames.HistoryMessage(BOB, 5, Plain("hi")),)),
        requests.Page((requests.Row("5:1", 5, "bob/desktop/y", Body(text="hi")),), more=True),
    ),
    Form(requests.ListMachines(), frames.ListMachines(), frames.MachineList((MACHINE,)), requests.Machines((MACHINE,))),
    Form(requests.ListUsers(), frames.ListUsers(), UserList(("ann",)), requests.Users(("ann",))),
]

RULE = [
    Form(
        requests.ChannelCreate("ops", Visibility.UNLISTED),
        Admin(admin.CreateChannel("ops", Visibility.UNLISTED)),
        Ack("OPS"),
        requests.OnChannel("OPS"),
    ),
    Form(
        requests.ChannelCreate("ops"),
        Admin(admin.CreateChannel("ops", Visibility.PUBLIC)),
        Ack(),
        requests.OnChannel("ops"),
    ),
    Form(requests.ChannelDelete("ops"), Admin(admin.DeleteChannel("ops")), Ack(), requests.OnChannel("ops")),
    Form(
        requests.ChannelRename("ops", "dev"), Admin(admin.RenameChannel("ops", "dev")), Ack(), requests.OnChannel("dev")
    ),
    Form(
        requests.ChannelVisibility("ops", Visibility.PRIVATE),
        Admin(admin.SetVisibility("ops", Visibility.PRIVATE)),
        Ack(),
        requests.OnChannel("ops"),
    ),
    Form(requests.AclAdd("ops", "bob"), Admin(admin.AclAdd("ops", "bob")), Ack("bob"), requests.OnUser("bob")),
    Form(requests.AclRemove("ops", "bob"), Admin(admin.AclRemove("ops", "bob")), Ack(), requests.OnUser("bob")),
    Form(requests.AclList("ops"), Admin(admin.AclList("ops")), UserList(("bob",)), requests.Users(("bob",))),
    Form(requests.AclPromote("ops", "bob"), Admin(admin.AclPromote("ops", "bob")), Ack(), requests.OnUser("bob")),
    Form(requests.AclDemote("ops", "bob"), Admin(admin.AclDemote("ops", "bob")), Ack(), requests.OnUser("bob")),
    Form(
        requests.InviteCreate("ops", 2, 60),
        Admin(admin.InviteCreate("ops", 2, 60)),
        InviteToken("t"),
        requests.Token("t"),
    ),
    Form(requests.InviteRevoke("t"), Admin(admin.InviteRevoke("t")), Ack(), requests.Token("t")),
    Form(
        requests.InviteList("ops"),
        Admin(admin.InviteListOp("ops")),
        frames.InviteList((INVITE,)),
        requests.Invites((INVITE,)),
    ),
    Form(requests.Kick("ops", "bob"), Admin(admin.Kick("ops", "bob")), Ack(), requests.OnTarget("bob")),
    Form(requests.Ban("ops", "bob"), Admin(admin.Ban("ops", "bob")), Ack(), requests.OnUser("bob")),
    Form(requests.Unban("ops", "bob"), Admin(admin.Unban("ops", "bob")), Ack(), requests.OnUser("bob")),
    Form(requests.Bans("ops"), Admin(admin.BanList("ops")), UserList(()), requests.Users(())),
    Form(requests.UserRemove("bob"), Admin(admin.UserRemove("bob")), Ack(), requests.OnUser("bob")),
    Form(
        requests.MachineAdd("m", KEY.public_text),
        Admin(admin.MachineAdd("m", KEY.public_key)),
        Ack(),
        requests.OnMachine("m"),
    ),
    Form(requests.MachineRemove("m"), Admin(admin.MachineRemove("m")), Ack(), requests.OnMachine("m")),
    Form(
        requests.ServerInviteCreate(3, 60),
        Admin(admin.ServerInviteCreate(3, 60)),
        InviteToken("t"),
        requests.Token("t"),
    ),
    Form(requests.Audit(9), Admin(admin.Audit(9)), frames.AuditList((ENTRY,)), requests.Trail((ENTRY,))),
    Form(requests.Audit(), Admin(admin.Audit(100)), frames.AuditList(()), requests.Trail(())),
]

FORMS = [*TALK, *RULE]

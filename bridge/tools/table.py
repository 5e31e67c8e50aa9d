"""All tools of the bridge, one row for each. Pure.

There is no tool for keys, registrations, machines or users, on purpose: an agent that was talked into something must
not reach them.
"""

from bridge.tools import administration as admin
from bridge.tools import catching_up, joining, permission, sending
from bridge.tools.arguments import Named, OnChannel, ToServer
from bridge.tools.tool import Offer, Tool
from conclave.protocol.requests import AclAdd, AclList, AclRemove, Ban, Bans, Unban

TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "join_channel",
            "Join a channel and receive its messages from now on. Messages that were missed are shown or announced.",
            joining.JoinChannel,
            Offer.ALWAYS,
            joining.join_channel,
        ),
        Tool(
            "leave_channel",
            "Leave a channel; its messages do not arrive any more.",
            OnChannel,
            Offer.ALWAYS,
            joining.leave_channel,
        ),
        Tool(
            "list_channels",
            "List the channels that the user can see.",
            ToServer,
            Offer.ALWAYS,
            joining.list_channels,
            idempotent=True,
        ),
        Tool(
            "who",
            "List the sessions that are online, on the server or in a channel.",
            joining.WhoIs,
            Offer.ALWAYS,
            joining.who,
            idempotent=True,
        ),
        Tool(
            "catch_up",
            "Read the messages of a joined channel that were not shown yet, a page at a time, oldest first.",
            catching_up.CatchUp,
            Offer.ALWAYS,
            catching_up.catch_up,
            idempotent=True,
        ),
        Tool(
            "set_perm",
            "Change a permission level for this session, only when the user asks: of a channel, of whispers, or by "
            "default. mute: receive nothing; notify: tell the user, do not answer; converse: may answer; "
            "act: may do what is asked.",
            permission.SetPerm,
            Offer.ALWAYS,
            permission.set_perm,
            idempotent=True,
        ),
        Tool(
            "send_channel",
            "Send a message to a joined channel.",
            sending.SendChannel,
            Offer.SEND,
            sending.send_channel,
            permit=sending.may_send,
        ),
        Tool(
            "whisper",
            "Send a message to one session only.",
            sending.WhisperTo,
            Offer.WHISPER,
            sending.whisper,
            permit=sending.may_whisper,
        ),
        Tool(
            "create_channel",
            "Create a channel. Its creator administers it.",
            admin.CreateChannel,
            Offer.ALWAYS,
            admin.create_channel,
        ),
        Tool(
            "delete_channel",
            "Delete a channel with everything in it. There is no way back.",
            Named,
            Offer.ADMIN,
            admin.delete_channel,
        ),
        Tool("set_visibility", "Set who finds a channel.", admin.SetVisibility, Offer.ADMIN, admin.set_visibility),
        Tool("acl_add", "Make a user a member of a channel.", admin.OnUser, Offer.ADMIN, admin.on_user(AclAdd)),
        Tool(
            "acl_remove", "End a user's membership in a channel.", admin.OnUser, Offer.ADMIN, admin.on_user(AclRemove)
        ),
        Tool("invite_create", "Create an invite to a channel.", admin.CreateInvite, Offer.ADMIN, admin.invite_create),
        Tool("invite_revoke", "Revoke an invite.", admin.RevokeInvite, Offer.ADMIN, admin.invite_revoke),
        Tool(
            "kick",
            "Remove a user or a session from a channel; they may join again.",
            admin.KickOut,
            Offer.ADMIN,
            admin.kick,
        ),
        Tool("ban", "Ban a user from a channel.", admin.OnUser, Offer.ADMIN, admin.on_user(Ban)),
        Tool("unban", "Lift a user's ban from a channel.", admin.OnUser, Offer.ADMIN, admin.on_user(Unban)),
        Tool("rename_channel", "Rename a channel.", admin.RenameChannel, Offer.ADMIN, admin.rename_channel),
        Tool(
            "acl_list", "List the members of a channel.", OnChannel, Offer.ADMIN, admin.names(AclList), idempotent=True
        ),
        Tool(
            "ban_list",
            "List the users that are banned from a channel.",
            OnChannel,
            Offer.ADMIN,
            admin.names(Bans),
            idempotent=True,
        ),
        Tool(
            "invite_list", "List the invites of a channel.", OnChannel, Offer.ADMIN, admin.invite_list, idempotent=True
        ),
    )
}

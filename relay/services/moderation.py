"""Moderation of a channel: the operations of its creator, its admins and the server's admins."""

import asyncio

from conclave.model import InviteInfo, Visibility
from conclave.names import NameKind, check_requested_name
from relay.channels.fanout import FanOut
from relay.cluster.announcements import Announcements, announced_version
from relay.redis.directory import Directory
from relay.services.authorization import AuditLog, check_terms, new_token, permit
from relay.services.refusals import valid_path_or_user
from relay.sessions.session import Session


class Moderation:
    """Each operation is one atomic step in the directory, and takes effect on every node before it returns.

    No message that is posted afterwards reaches a session that lost the channel. Every method raises Refusal: `not
    found` for a channel that is absent or hidden from the caller, `unauthorized` for one that the caller may know of.
    """

    def __init__(self, *, directory: Directory, fanout: FanOut, announcements: Announcements, audit: AuditLog) -> None:
        self._directory = directory
        self._fanout = fanout
        self._announcements = announcements
        self._audit = audit

    async def delete(self, session: Session, channel: str) -> None:
        """Delete a channel with its members, invites, bans and history."""
        await self._administer(session, "delete_channel", channel)

    async def rename(self, session: Session, channel: str, name: str) -> None:
        """Give a channel another name. Everything else stays, sessions that have joined it included."""
        check_requested_name(NameKind.CHANNEL, name)
        await self._administer(session, "rename_channel", channel, name)

    async def set_visibility(self, session: Session, channel: str, visibility: Visibility) -> None:
        """Set the visibility of a channel. Sessions of users who are not members lose one that becomes private."""
        await self._administer(session, "set_visibility", channel, visibility.value)

    async def add_member(self, session: Session, channel: str, user: str) -> None:
        """Make a user a member, and lift a ban. The user need not exist yet."""
        await self._administer(session, "acl_add", channel, check_requested_name(NameKind.USER, user))

    async def remove_member(self, session: Session, channel: str, user: str) -> None:
        """End a membership, if there is one, and take the channel from the user's sessions.

        An admin of the channel keeps that role, as its creator does; `demote` and `ban` take it.
        """
        await self._administer(session, "acl_remove", channel, check_requested_name(NameKind.USER, user))

    async def promote(self, session: Session, channel: str, user: str) -> None:
        """Make a user a member and an admin of the channel."""
        await self._administer(session, "acl_promote", channel, check_requested_name(NameKind.USER, user))

    async def demote(self, session: Session, channel: str, user: str) -> None:
        """Take the admin role from a user, if they have it. A channel's creator keeps it."""
        await self._administer(session, "acl_demote", channel, user)

    async def kick(self, session: Session, channel: str, target: str) -> None:
        """Take the channel from one session (a path), or from all of a user's. They may join again."""
        valid_path_or_user(target)
        await self._administer(session, "kick", channel, target)

    async def ban(self, session: Session, channel: str, user: str) -> None:
        """End a user's membership and role, take the channel from their sessions, and keep them out."""
        await self._administer(session, "ban", channel, check_requested_name(NameKind.USER, user))

    async def unban(self, session: Session, channel: str, user: str) -> None:
        """Lift a ban, if there is one. It does not bring the membership back."""
        await self._administer(session, "unban", channel, user)

    async def members(self, session: Session, channel: str) -> list[str]:
        return await self._inspect(session, "acl_list", channel)

    async def bans(self, session: Session, channel: str) -> list[str]:
        return await self._inspect(session, "ban_list", channel)

    async def create_invite(self, session: Session, channel: str, uses: int | None, seconds: int | None) -> str:
        """Create an invite: 24 random bytes as base64url. None means without a limit."""
        check_terms(uses, seconds)
        token = new_token()
        inside = await self._joined_id(session, channel)
        verdict = await self._directory.create_invite(
            channel, session.caller, inside=inside, token=token, uses=uses, seconds=seconds
        )
        self._audit(session.caller, "invite_create", channel, verdict)
        permit(verdict, channel)
        return token

    async def revoke_invite(self, session: Session, token: str) -> None:
        """Revoke an invite, if the caller administers its channel. The reply does not tell whether it existed."""
        self._audit(session.caller, "invite_revoke", "", await self._directory.revoke_invite(token, session.caller))

    async def invites(self, session: Session, channel: str) -> list[InviteInfo]:
        """Return the invites that can still be used, sorted by token."""
        inside = await self._joined_id(session, channel)
        verdict, invites = await self._directory.invites(channel, session.caller, inside=inside)
        self._audit(session.caller, "invite_list", channel, verdict)
        permit(verdict, channel)
        return invites

    async def _administer(self, session: Session, operation: str, channel: str, argument: str = "") -> None:
        inside = await self._joined_id(session, channel)
        outcome = await self._directory.administer(operation, channel, session.caller, inside=inside, argument=argument)
        self._audit(session.caller, operation, f"{channel} {argument}".rstrip(), outcome.verdict)
        permit(outcome.verdict, channel)
        version = announced_version(outcome.announcements, inside)
        # This node does not wait for its own announcement: the caller's next request finds the new name, or no channel.
        applied = [] if version is None else [self._fanout.apply_version(inside, version)]
        await asyncio.gather(self._announcements.publish(outcome.announcements), *applied)

    async def _joined_id(self, session: Session, channel: str) -> str:
        """Return the id of the channel that the session has joined by this name, as of now, or ''."""
        await self._fanout.apply_latest_version(session.joined.get(channel, ""))
        return session.joined.get(channel, "")

    async def _inspect(self, session: Session, operation: str, channel: str) -> list[str]:
        inside = await self._joined_id(session, channel)
        verdict, rows = await self._directory.inspect(operation, channel, session.caller, inside=inside)
        self._audit(session.caller, operation, channel, verdict)
        permit(verdict, channel)
        return rows

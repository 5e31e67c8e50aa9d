"""Channels: making them, finding them, coming in and going out."""

import secrets

from conclave.errors import Code, Refusal
from conclave.model import ChannelInfo, Visibility
from conclave.names import NameKind
from relay.fanout import FanOut
from relay.redis.channel_log import ChannelLog
from relay.redis.directory import Directory, Verdict
from relay.redis.nodes import Registry
from relay.refusals import channel_not_found, not_admin, private, valid_name
from relay.session import Session

_LONGEST_INVITE_SECONDS = 100 * 365 * 24 * 3600


class Channels:
    """What a session does with channels, other than talk. Every method raises Refusal."""

    def __init__(self, *, directory: Directory, channel_log: ChannelLog, fanout: FanOut, registry: Registry) -> None:
        self._directory = directory
        self._log = channel_log
        self._fanout = fanout
        self._registry = registry

    async def create(self, session: Session, name: str, visibility: Visibility) -> None:
        """Create a channel with the caller as its creator and first member; it does not join anybody."""
        valid_name(NameKind.CHANNEL, name)
        match await self._directory.create_channel(name, visibility, session.path.user):
            case "taken":
                raise Refusal(Code.CONFLICT, f"channel name `{name}` is already taken")
            case "gone":
                raise Refusal(Code.UNAUTHORIZED, "user removed from this server")

    async def listed(self, session: Session) -> list[ChannelInfo]:
        """Return the channels that the caller may know of, by name."""
        return await self._directory.channels(session.caller)

    async def join(self, session: Session, name: str, token: str | None) -> None:
        """Have the session hear a channel from now on; a good invite makes its user a member for good."""
        verdict, channel_id = await self._directory.join(name, session.path.user, token)
        if verdict == "private":
            raise private(name)
        if verdict == "missing":
            raise channel_not_found(name)
        stale = session.joined.get(name)
        if stale not in (None, channel_id):  # the name has passed to another channel
            await self.leave(session, name)
        if not await self._fanout.subscribe(session, channel_id, name, self._registry.node):
            raise channel_not_found(name)
        session.joined[name] = channel_id

    async def leave(self, session: Session, name: str) -> None:
        """Have the session hear no more of a channel, from the moment of the call; no error if it never did."""
        valid_name(NameKind.CHANNEL, name)
        channel_id = session.joined.pop(name, None)
        if channel_id is not None:
            self._fanout.unsubscribe(session, channel_id)
            await self._log.leave(channel_id, session.connection)
            session.entered.discard(channel_id)

    async def add_member(self, session: Session, name: str, user: str) -> None:
        """Make somebody a member, who need not exist yet, and lift a ban on them."""
        valid_name(NameKind.USER, user)
        inside = name in session.joined
        _permit(await self._directory.add_member(name, session.caller, user, inside=inside), name)

    async def create_invite(self, session: Session, name: str, uses: int | None, seconds: int | None) -> str:
        """Mint an invite: 24 random bytes as base64url. None means without a limit."""
        if uses == 0:
            raise Refusal(Code.MALFORMED, "an invite needs at least 1 use")
        if seconds == 0:
            raise Refusal(Code.MALFORMED, "an invite needs a lifetime of at least 1 second")
        if seconds is not None and seconds > _LONGEST_INVITE_SECONDS:
            raise Refusal(Code.MALFORMED, "invite expiry is too far in the future")
        token = secrets.token_urlsafe(24)
        inside = name in session.joined
        verdict = await self._directory.create_invite(
            name, session.caller, inside=inside, token=token, uses=uses, seconds=seconds
        )
        _permit(verdict, name)
        return token


def _permit(verdict: Verdict, channel: str) -> None:
    if verdict == "denied":
        raise not_admin()
    if verdict == "missing":
        raise channel_not_found(channel)

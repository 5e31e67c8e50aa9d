"""Channels: making them, finding them, coming in and going out."""

import msgspec

from conclave.errors import Code, Refusal
from conclave.model import Visibility
from conclave.names import NameKind, check_requested_name
from relay.channels.fanout import FanOut
from relay.observability.metrics import Counter, Labelled
from relay.redis.channel_log import ChannelLog
from relay.redis.directory import Directory, Listing
from relay.redis.node_registry import NodeRegistry
from relay.services.authorization import AuditLog
from relay.services.refusals import channel_not_found, private, revoked, valid_position
from relay.sessions.session import Session


class Joined(msgspec.Struct, frozen=True):
    """How a session joined a channel (`relay.channels.fanout.ChannelJoin`), and whether its user may administer it."""

    position: str
    recovered: bool | None
    admin: bool


class Channels:
    """What a session does with channels, other than talk and rule. Every method raises Refusal."""

    def __init__(
        self,
        *,
        directory: Directory,
        channel_log: ChannelLog,
        fanout: FanOut,
        registry: NodeRegistry,
        audit: AuditLog,
        resumes: Labelled[Counter],
    ) -> None:
        self._directory = directory
        self._log = channel_log
        self._fanout = fanout
        self._registry = registry
        self._audit = audit
        self._resumes = resumes

    async def create(self, session: Session, name: str, visibility: Visibility) -> None:
        """Create a channel with the caller as its creator and first member; it does not join anybody."""
        check_requested_name(NameKind.CHANNEL, name)
        outcome = await self._directory.create_channel(session.caller, name, visibility)
        self._audit(session.caller, "create_channel", name, outcome)
        match outcome:
            case "taken":
                raise Refusal(Code.CONFLICT, f"channel name `{name}` is already taken")
            case "revoked":
                raise revoked()

    async def listed(self, session: Session) -> list[Listing]:
        """Return the channels that the caller may know of, by name."""
        return await self._directory.channels(session.caller)

    async def join(self, session: Session, name: str, token: str | None, since: str | None = None) -> Joined:
        """Have the session hear a channel from now on; a good invite makes its user a member for good.

        With `since`, a message's id, all that followed it comes first, from the call of `start_replay` on.
        """
        if since is not None:
            valid_position(since)
        let = await self._directory.join(name, session.caller, token)
        if let.verdict == "revoked":
            raise revoked()
        if let.verdict == "private":
            raise private(name)
        if let.verdict == "missing":
            raise channel_not_found(name)
        before = session.joined.get(name)
        if before not in (None, let.channel_id):  # the name has passed on: that channel was renamed, or deleted
            await self._fanout.apply_latest_version(before)
            if session.joined.get(name) == before:
                await self.leave(session, name)
        node = self._registry.node
        entry = await self._fanout.join(session, let.channel_id, name, node, version=let.version, since=since)
        if entry is None:
            raise channel_not_found(name)
        session.joined[name] = let.channel_id
        if entry.recovered is not None:
            self._resumes.labels(outcome="recovered" if entry.recovered else "gap").inc()
        return Joined(entry.position, entry.recovered, let.admin)

    def start_replay(self, session: Session) -> None:
        """Begin to send what a join with `since` has promised: the reply to it is written."""
        self._fanout.start_replays(session)

    async def leave(self, session: Session, name: str) -> None:
        """Have the session hear no more of a channel, from the moment of the call; no error if it never did."""
        check_requested_name(NameKind.CHANNEL, name)
        channel_id = session.joined.pop(name, None)
        if channel_id is not None:
            self._fanout.leave(session, channel_id)
            await self._log.remove_subscriber(channel_id, session.connection)
            session.listed_in.discard(channel_id)

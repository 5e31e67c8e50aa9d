"""Channels: creating, listing, joining and leaving them."""

from collections.abc import Callable

import msgspec

from conclave.errors import Code, Refusal
from conclave.model import Visibility
from conclave.names import NameKind, check_requested_name
from relay.channels.fanout import ChannelJoin, FanOut
from relay.cluster.session_records import SessionRecords
from relay.model.close_reason import Ended
from relay.model.errors import StoreUnavailable
from relay.observability.metrics import Counter, Labelled
from relay.redis.directory import Directory, JoinDecision, Listing
from relay.redis.node_registry import NodeRegistry
from relay.services.authorization import AuditLog
from relay.services.fencing import Fencing
from relay.services.refusals import channel_not_found, private, revoked, valid_position
from relay.sessions.session import Session


class Joined(msgspec.Struct, frozen=True):
    """The start of a session in a channel (`relay.channels.fanout.ChannelJoin`). `admin`: its user administers it."""

    position: str
    recovered: bool | None
    admin: bool
    start_replay: Callable[[], None] | None


class Channels:
    """The operations that every session may ask for. Every method raises Refusal."""

    def __init__(
        self,
        *,
        directory: Directory,
        records: SessionRecords,
        fanout: FanOut,
        registry: NodeRegistry,
        fencing: Fencing,
        audit: AuditLog,
        resumes: Labelled[Counter],
    ) -> None:
        self._directory = directory
        self._records = records
        self._fanout = fanout
        self._registry = registry
        self._fencing = fencing
        self._audit = audit
        self._resumes = resumes

    async def create(self, session: Session, name: str, visibility: Visibility) -> None:
        """Create a channel, with the caller's user as its creator and first member. No session joins it."""
        check_requested_name(NameKind.CHANNEL, name)
        outcome = await self._directory.create_channel(session.caller, name, visibility)
        self._audit(session.caller, "create_channel", name, outcome)
        match outcome:
            case "taken":
                raise Refusal(Code.CONFLICT, f"channel name `{name}` is already taken")
            case "revoked":
                raise revoked()

    async def listed(self, session: Session) -> list[Listing]:
        """Return the channels that the caller may know of, sorted by name."""
        return await self._directory.channels(session.caller)

    async def join(self, session: Session, name: str, token: str | None, since: str | None = None) -> Joined:
        """Deliver a channel to the session from now on. A valid invite makes its user a permanent member.

        With `since`, a message's id, the messages after that one come first, from the call of `start_replay` on.
        """
        if since is not None:
            valid_position(since)
        await self._fencing.check(session)
        decision = await self._decide(session, name, token)
        if decision.verdict == "revoked":
            raise revoked()
        if decision.verdict == "private":
            raise private(name)
        if decision.verdict == "missing":
            raise channel_not_found(name)
        before = session.joined.get(name)
        if before not in (None, decision.channel_id):  # another channel has the name: that one was renamed or deleted
            await self._fanout.apply_latest_version(before)
            if session.joined.get(name) == before:
                await self.leave(session, name)
        entry = await self._enter(session, decision, name, since)
        if entry is None:
            raise channel_not_found(name) if session.close_reason is None else Ended(session.close_reason)
        session.joined[name] = decision.channel_id
        if entry.recovered is not None:
            self._resumes.labels(outcome="recovered" if entry.recovered else "gap").inc()
        return Joined(entry.position, entry.recovered, decision.admin, entry.start_replay)

    async def _decide(self, session: Session, name: str, token: str | None) -> JoinDecision:
        try:
            return await self._directory.join(name, session.caller, session.connection, token)
        except StoreUnavailable:
            self._records.expect_note(session)
            raise

    async def _enter(
        self, session: Session, decision: JoinDecision, name: str, since: str | None
    ) -> ChannelJoin | None:
        channel_id, node = decision.channel_id, self._registry.node
        self._records.expect_listing(session, channel_id)
        try:
            entry = await self._fanout.join(session, channel_id, name, node, version=decision.version, since=since)
        except StoreUnavailable:
            if channel_id not in session.joined.values():
                self._records.unlist(session, channel_id)  # it may be listed nevertheless
            raise
        if entry is not None and channel_id not in session.listed_in:  # it lost the channel in the meantime
            self._fanout.leave(session, channel_id)
            self._records.unlist(session, channel_id)
            raise StoreUnavailable("the session lost the channel while it joined it")
        return entry

    async def leave(self, session: Session, name: str) -> None:
        """Stop delivering a channel to the session, from the moment of the call; no error if it is not in it."""
        check_requested_name(NameKind.CHANNEL, name)
        channel_id = session.joined.pop(name, None)
        if channel_id is not None:
            self._fanout.leave(session, channel_id)
            await self._records.unlist(session, channel_id)

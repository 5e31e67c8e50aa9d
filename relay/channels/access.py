"""Access to channels: a new membership version is applied to the sessions that are in it."""

from collections.abc import Callable

import structlog

from relay.channels.local_channel import LocalChannel
from relay.channels.recipients import Subscriber
from relay.redis.channel_log import DELETED
from relay.redis.directory import Directory
from relay.sessions.session import Session

log = structlog.get_logger()

Unlist = Callable[[Session, str], object]
"""Removes a session from the subscribers of a channel (id) in Redis, at once or as soon as Redis is back."""

_SESSIONS_PER_REVIEW = 500


class Access:
    """Reviews subscribers and removes those that may not receive the channel any more."""

    def __init__(
        self, directory: Directory, unlist: Unlist, unnote: Unlist, on_removed: Callable[[LocalChannel], None]
    ) -> None:
        """`unlist` removes a session from a channel's list of subscribers in Redis, and the directory's note of it.

        `unnote` removes the note alone.

        `on_removed` is called after a subscriber of the channel was removed.
        """
        self._directory = directory
        self._unlist = unlist
        self._unnote = unnote
        self._on_removed = on_removed

    async def apply(self, channel: LocalChannel, version: int) -> None:
        """Apply a version, unless it or a later one was applied.

        When this returns, every subscriber may receive what is posted at this version. Raises: StoreUnavailable.
        """
        async with channel.reviewing:
            if version == DELETED:
                channel.deleted = True
                for subscriber in list(channel.subscribers.values()):
                    self._remove(channel, subscriber, "deleted")
                return
            if version <= channel.version:
                return
            while unreviewed := channel.unreviewed(version)[:_SESSIONS_PER_REVIEW]:
                await self._review(channel, unreviewed, version)
            channel.version = version

    async def _review(self, channel: LocalChannel, subscribers: list[Subscriber], version: int) -> None:
        rows = [(each.session.path_text, each.session.pubkey, each.joined_at) for each in subscribers]
        review = await self._directory.review(channel.id, rows)
        name, name_version, reasons = review or (channel.name, channel.name_version, ["deleted"] * len(subscribers))
        if channel.rename(name, name_version):
            log.info("channel.renamed", channel=channel.id)
        for subscriber, (_, _, joined_at), reason in zip(subscribers, rows, reasons, strict=True):
            if subscriber.joined_at != joined_at:
                continue  # the session has joined again meanwhile, which this review says nothing about
            subscriber.reviewed_at = version
            if reason:
                self._remove(channel, subscriber, reason)

    def _remove(self, channel: LocalChannel, subscriber: Subscriber, reason: str) -> None:
        """Take the channel from a session, unless it has left or joined again meanwhile."""
        session = subscriber.session
        if channel.subscribers.get(session.connection) is not subscriber:
            return
        channel.remove_subscriber(session)
        self._on_removed(channel)
        session.forget_channel(channel.id)
        session.send_event(session.encoder.left(channel.name, reason))
        log.info("session.lost_channel", path=session.path_text, channel=channel.id, reason=reason)
        if reason == "deleted":
            session.listed_in.discard(channel.id)  # the list of subscribers is deleted with the channel
            self._unnote(session, channel.id)
        else:
            self._unlist(session, channel.id)

"""Access to channels: a new membership version is applied to the sessions that are in it."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from relay.channels.local_channel import LocalChannel
from relay.channels.recipients import Subscriber
from relay.redis.channel_log import DELETED, ChannelLog
from relay.redis.directory import Directory
from relay.sessions.session import Session

log = structlog.get_logger()

_SESSIONS_PER_REVIEW = 500


class Access:
    """Reviews subscribers and removes those that may not receive the channel any more."""

    def __init__(
        self, directory: Directory, channel_log: ChannelLog, on_removed: Callable[[LocalChannel], None]
    ) -> None:
        """`on_removed` is called after a subscriber of the channel was removed."""
        self._directory = directory
        self._log = channel_log
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
        session.listed_in.discard(channel.id)
        if reason == "deleted":
            return  # the list of subscribers is deleted with the channel
        removed = self._log.remove_subscriber(channel.id, session.connection)
        removed.add_done_callback(partial(_relist, session, channel.id))


def _relist(session: Session, channel_id: str, removed: "asyncio.Future[Any]") -> None:
    """Leave it to the end of the session to remove an entry that Redis did not remove."""
    if removed.cancelled() or removed.exception() is not None:
        session.listed_in.add(channel_id)

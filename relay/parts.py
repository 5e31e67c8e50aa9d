"""The objects of one node, put together: the only place that knows which of them need which others. No I/O."""

from relay.config import NodeConfig
from relay.connection import Connections
from relay.desk import Services
from relay.dialect.v1 import DialectV1
from relay.dialect.v2 import DialectV2
from relay.fanout import FanOut
from relay.heart import Heart
from relay.metrics import Metrics
from relay.outbox import Flusher
from relay.redis import scripts
from relay.redis.broker import Broker
from relay.redis.channel_log import ChannelLog
from relay.redis.client import RedisClient
from relay.redis.connect import Make
from relay.redis.directory import Directory
from relay.redis.dues import Dues
from relay.redis.inbox import Inbox
from relay.redis.keys import Keys
from relay.redis.leases import Leases
from relay.redis.near import Near
from relay.redis.near_log import NearLog
from relay.redis.nodes import Registry
from relay.redis.promises import Promises
from relay.services.accounts import Accounts
from relay.services.authority import Audit
from relay.services.channels import Channels
from relay.services.messages import Messages
from relay.services.presence import Presence
from relay.services.rule import Rule
from relay.sessions import Sessions


class Parts:
    """What a node is made of, from the way to Redis up to the connections."""

    def __init__(self, config: NodeConfig, make: Make, near: Make | None) -> None:
        self._keys = keys = Keys(config.key_prefix)
        self.metrics = Metrics(scripts.NAMES)
        self.sessions = Sessions()
        self.client = self._way_to(config, make)
        self.registry = Registry(self.client, keys)
        self.near: Near | None = None
        self.channel_log = ChannelLog(self.client, keys, config.retention)
        if near is not None:
            self.near = Near(self.client, self._way_to(config, near, "replica"), keys, self.registry)
            self.channel_log = NearLog(self.client, keys, config.retention, self.near)
        self.broker = Broker(self.near or self.client, confirm_timeout=config.redis_timeout)
        self.inbox = Inbox(self.client, keys)
        self.directory = Directory(self.client, keys)
        self.leases = Leases(self.client, keys)
        self.fanout = FanOut(
            broker=self.broker,
            directory=self.directory,
            channel_log=self.channel_log,
            keys=keys,
            clock=self.registry.clock,
            metrics=self.metrics,
        )
        self.dues = Dues(
            directory=self.directory, channel_log=self.channel_log, inbox=self.inbox, registry=self.registry
        )
        services = self._services(config)
        self.heart = self._heart(config, services.presence)
        self.connections = self._connections(config, services)

    def _way_to(self, config: NodeConfig, make: Make, server: str = "primary") -> RedisClient:
        return RedisClient(make, timeout=config.redis_timeout, metrics=self.metrics, server=server)

    def _services(self, config: NodeConfig) -> Services:
        directory, fanout, audit = self.directory, self.fanout, Audit(self.metrics)
        return Services(
            accounts=Accounts(
                directory=directory,
                dues=self.dues,
                audit=audit,
                admins=config.admins,
                registration=config.registration,
            ),
            rule=Rule(directory=directory, fanout=fanout, dues=self.dues, audit=audit),
            channels=Channels(
                directory=directory,
                channel_log=self.channel_log,
                fanout=fanout,
                registry=self.registry,
                audit=audit,
                resumes=self.metrics.resumes,
            ),
            messages=Messages(
                directory=directory,
                channel_log=self.channel_log,
                fanout=fanout,
                leases=self.leases,
                inbox=self.inbox,
                promises=Promises(self.client, self._keys),
                registry=self.registry,
                max_bytes=config.max_message_bytes,
                metrics=self.metrics,
            ),
            presence=Presence(
                sessions=self.sessions,
                leases=self.leases,
                directory=directory,
                channel_log=self.channel_log,
                fanout=fanout,
                inbox=self.inbox,
                registry=self.registry,
                policy=config.presence,
            ),
        )

    def _heart(self, config: NodeConfig, presence: Presence) -> Heart:
        return Heart(
            client=self.client,
            keys=self._keys,
            registry=self.registry,
            broker=self.broker,
            inbox=self.inbox,
            fanout=self.fanout,
            dues=self.dues,
            presence=presence,
            sessions=self.sessions,
            idle_seconds=config.idle_seconds,
            metrics=self.metrics,
        )

    def _connections(self, config: NodeConfig, services: Services) -> Connections:
        v2 = DialectV2(origins=config.origins, idle_seconds=config.idle_seconds, message_bytes=config.max_message_bytes)
        return Connections(
            services=services,
            dialects=(DialectV1(), v2),
            flusher=Flusher(self.metrics.sent_bytes.inc),
            metrics=self.metrics,
            outbox_bytes=config.outbox_bytes,
            handshake_seconds=config.handshake_seconds,
        )

"""The construction of one node's objects: the only module that knows which of them need which others. No I/O."""

from relay.app.config import NodeConfig
from relay.channels.fanout import FanOut
from relay.cluster.announcements import Announcements
from relay.cluster.janitor import Janitor
from relay.cluster.membership import Membership
from relay.cluster.probe import Probe
from relay.cluster.session_records import SessionRecords
from relay.observability.metrics import Metrics
from relay.protocol.v1 import V1Codec
from relay.protocol.v2 import V2Codec
from relay.redis import scripts
from relay.redis.broker import Broker, Topics
from relay.redis.channel_log import ChannelLog
from relay.redis.client import RedisClient
from relay.redis.connect import Make, Members
from relay.redis.dead_nodes import DeadNodes
from relay.redis.directory import Directory
from relay.redis.idempotency import IdempotencyKeys
from relay.redis.identity import ClusterCheck
from relay.redis.inbox import Inbox
from relay.redis.keys import Keys
from relay.redis.leases import Leases
from relay.redis.node_registry import NodeRegistry
from relay.redis.read_replica import ReadReplica
from relay.redis.replica_log import ReplicaLog
from relay.redis.sharding.broker import ShardedBroker
from relay.redis.sharding.client import ClusterClient
from relay.redis.store import Store
from relay.redis.store_checks import StoreChecks
from relay.services.accounts import Accounts
from relay.services.authorization import AuditLog
from relay.services.channels import Channels
from relay.services.context import Services
from relay.services.fencing import Fencing
from relay.services.messages import Messages
from relay.services.moderation import Moderation
from relay.services.presence import Presence
from relay.sessions.outbox import Flusher, FlushPolicy
from relay.sessions.registry import SessionRegistry
from relay.transport.connection import Connections


class Components:
    """The objects of a node, from its Redis client up to its connections."""

    def __init__(self, config: NodeConfig, make: Make | Members, make_replica: Make | None) -> None:
        self._keys = keys = Keys(config.key_prefix)
        self.metrics = Metrics(scripts.NAMES, scripts.CHANNEL_OPERATIONS)
        self.sessions = SessionRegistry()
        self.flusher = Flusher(self.metrics.sent_bytes.inc, FlushPolicy(config.max_gather_seconds))
        self.cluster = ClusterCheck(keys.cluster)
        self.client: Store = self._redis_client(config, make) if callable(make) else self._cluster_client(config, make)
        self.registry = NodeRegistry(self.client, keys)
        self.replica: ReadReplica | None = None
        self.channel_log = ChannelLog(self.client, keys, config.retention)
        if make_replica is not None:
            replica = self._redis_client(config, make_replica, replica=True)
            self.replica = ReadReplica(self.client, replica, keys, self.registry)
            self.channel_log = ReplicaLog(self.client, keys, config.retention, self.replica)
        self.broker = self._broker(config)
        self.store_checks = StoreChecks(self.client, keys, self.metrics)
        self.inbox = Inbox(self.client, keys)
        self.directory = Directory(self.client, keys)
        self.leases = Leases(self.client, keys)
        self.records = SessionRecords(
            sessions=self.sessions,
            leases=self.leases,
            channel_log=self.channel_log,
            directory=self.directory,
            registry=self.registry,
        )
        self.fanout = FanOut(
            broker=self.broker,
            directory=self.directory,
            channel_log=self.channel_log,
            keys=keys,
            clock=self.registry.clock,
            flusher=self.flusher,
            metrics=self.metrics,
            unlist=self.records.unlist,
            unnote=self.records.unnote,
            unreadable=self.client.unreadable,
        )
        self.client.on_up(self.fanout.reconnected)
        self.announcements = Announcements(
            directory=self.directory,
            channel_log=self.channel_log,
            inbox=self.inbox,
            registry=self.registry,
            unreadable=self.client.unreadable,
        )
        services = self._services(config)
        self.janitor = Janitor(
            registry=self.registry,
            dead_nodes=DeadNodes(self.client, keys, self.registry, self.directory),
            announcements=self.announcements,
            fanout=self.fanout,
            sessions=self.sessions,
            records=self.records,
            idle_seconds=config.idle_seconds,
            metrics=self.metrics,
        )
        self.membership = Membership(
            registry=self.registry,
            inbox=self.inbox,
            probe=Probe(client=self.client, keys=keys, broker=self.broker, metrics=self.metrics),
            janitor=self.janitor,
            records=self.records,
        )
        self.connections = self._connections(config, services)

    def _redis_client(self, config: NodeConfig, make: Make, *, replica: bool = False) -> RedisClient:
        return RedisClient(
            make, timeout=config.redis_timeout, metrics=self.metrics, cluster=self.cluster, replica=replica
        )

    def _cluster_client(self, config: NodeConfig, members: Members) -> ClusterClient:
        def needed() -> tuple[str, ...]:
            return self._keys.nodes, self._keys.directory, self._keys.inbox(self.registry.node)

        return ClusterClient(
            members, timeout=config.redis_timeout, metrics=self.metrics, cluster=self.cluster, needed=needed
        )

    def _broker(self, config: NodeConfig) -> Topics:
        if isinstance(self.client, ClusterClient) and self.client.is_sharded:
            return ShardedBroker(self.client, confirm_timeout=config.redis_timeout)
        return Broker(self.replica or self.client, confirm_timeout=config.redis_timeout)

    def _services(self, config: NodeConfig) -> Services:
        directory, fanout, audit = self.directory, self.fanout, AuditLog(self.metrics)
        fencing = Fencing(
            channel_log=self.channel_log, fanout=fanout, leases=self.leases, registry=self.registry, inbox=self.inbox
        )
        return Services(
            accounts=Accounts(
                directory=directory,
                announcements=self.announcements,
                audit=audit,
                admins=config.admins,
                registration=config.registration,
            ),
            moderation=Moderation(directory=directory, fanout=fanout, announcements=self.announcements, audit=audit),
            channels=Channels(
                directory=directory,
                records=self.records,
                fanout=fanout,
                registry=self.registry,
                fencing=fencing,
                audit=audit,
                resumes=self.metrics.resumes,
            ),
            messages=Messages(
                directory=directory,
                channel_log=self.channel_log,
                fanout=fanout,
                leases=self.leases,
                inbox=self.inbox,
                idempotency_keys=IdempotencyKeys(self.client, self._keys),
                registry=self.registry,
                fencing=fencing,
                max_bytes=config.max_message_bytes,
                metrics=self.metrics,
            ),
            presence=Presence(
                sessions=self.sessions,
                records=self.records,
                leases=self.leases,
                directory=directory,
                channel_log=self.channel_log,
                fanout=fanout,
                inbox=self.inbox,
                registry=self.registry,
                policy=config.presence,
            ),
        )

    def _connections(self, config: NodeConfig, services: Services) -> Connections:
        v2 = V2Codec(origins=config.origins, idle_seconds=config.idle_seconds, message_bytes=config.max_message_bytes)
        return Connections(
            services=services,
            codecs=(V1Codec(), v2),
            flusher=self.flusher,
            metrics=self.metrics,
            outbox_bytes=config.outbox_bytes,
            message_bytes=config.max_message_bytes,
            handshake_seconds=config.handshake_seconds,
        )

"""Every key of the cluster, built in one place.

Braces mark the hash slot, so that the same layout runs on Redis Cluster: all keys of a script lie in one slot.

{dir}          the directory: users, channels and their permissions. Low rate, every change is one script.
  :cluster             string   the cluster id
  :users               hash     user -> created (ms)
  :keys                hash     public key -> user/machine
  :machines:<user>     hash     machine -> `public key` `added (ms)`
  :names               hash     channel name -> channel id
  :channel:<id>        hash     name, visibility, creator, created (ms), version (of the membership)
  :acl:<id>            set      users who are members
  :admins:<id>         set      users who administer it beside its creator
  :bans:<id>           set      users who are banned
  :removed:<id>        hash     user, path or `/` (every non-member) -> `version` `reason`
  :created:<user>, :member:<user>, :administers:<user>, :banned:<user>
                       set      channel ids, the reverse of the above
  :in:<user>           zset     `channel id` `connection` `machine` of each session that is in a channel -> 0
  :lost:<user>         zset     those whose node died in the last hour -> the time at which that was found out (ms)
  :joined:<user>       set      the ids of these channels, for nodes that do not know the two
  :listed              set      ids of public channels
  :invites:<id>        hash     token -> `uses left or -` `expires (ms) or -`
  :tokens              hash     token -> channel id
  :expiring            zset     token -> expires (ms)
  :server-invites      hash     token -> `uses left or -` `expires (ms) or -`
  :due                 hash     pending announcements: channel id, or key:<public key> -> announcement, stamp
  :clock               string   the last stamp
  :audit               stream   admin operations: actor, operation, target, outcome
{c:<id>}       one channel
  :log                 stream   messages; f = from, p = payload
  :head                hash     first, tip (first and last message id), weight (bytes in the tip's millisecond),
                                version, gone; fence: docs/decisions/0014; holes: `after last` of each place
                                at which a failover lost messages;
                                base, next: a message that is not in the log, and the one that follows it
  :live                pub/sub  live messages
  :subs                hash     connection -> `node` `path`
  :sent:<user>/<key>   string   id of the message that a user has posted under an idempotency key
{u:<user>}     one user
  :sent:<key>          string   a whisper that has an idempotency key: id, time (ms), 1 if it is sent
{s:<path>}     one session path: its lease
                       hash     connection -> `generation` `node`
{n:<node>}     one node
  :sessions            hash     connection -> path
  :channels            set      ids of channels with subscribers on this node
  :inbox               stream   signals to this node: s = signal. A node whose name has a version opens it
  :probe               pub/sub  the probes of this node
{nodes}                zset     node -> last heartbeat (ms, Redis' clock)
{nodes}:sweep:<node>   string   the node that is removing a dead one

Nodes of several versions share these keys. A value that a node cannot read is counted, logged and skipped. Room for a
later format is here; nodes from 0.4 on take no notice of it:

:log, :inbox           further fields after `f` and `p`, beside `s`; an entry without them is a later format
:live                  a first byte that is not a digit; the node then reads the message from the log
:subs, :sessions       what follows a zero byte in a value
{s:<path>}             further words after the node
:due                   further words after the last one of an announcement; another first word is a later format
<node>                 the version of the signals that the node reads, after a hyphen; without one it is 1
"""

import re

from conclave.errors import ConfigError
from conclave.model import SessionPath

_LIVE = re.compile(rb"\{c:([^}]+)\}:live$")
_PREFIX = re.compile(r"[A-Za-z0-9:._-]{1,64}")


class Keys:
    """The keys of the cluster that lives under one prefix."""

    def __init__(self, prefix: str) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ConfigError(f"invalid key prefix `{prefix}` (1 to 64 of letters, digits, `:`, `.`, `_` and `-`)")
        self._prefix = prefix
        self.directory = f"{prefix}:{{dir}}"
        """The prefix of the directory's keys: its scripts build the rest, all in one slot."""
        self.cluster = f"{self.directory}:cluster"
        self.users = f"{self.directory}:users"
        self.names = f"{self.directory}:names"
        self.due = f"{self.directory}:due"
        self.audit = f"{self.directory}:audit"
        self.machine_keys = f"{self.directory}:keys"
        self.nodes = f"{prefix}:{{nodes}}"

    def machines(self, user: str) -> str:
        return f"{self.directory}:machines:{user}"

    def log(self, channel_id: str) -> str:
        return f"{self._prefix}:{{c:{channel_id}}}:log"

    def head(self, channel_id: str) -> str:
        return f"{self._prefix}:{{c:{channel_id}}}:head"

    def live(self, channel_id: str) -> str:
        return f"{self._prefix}:{{c:{channel_id}}}:live"

    @staticmethod
    def channel_of(topic: bytes) -> str:
        """Return the id of the channel of a `live` topic; empty for any other topic."""
        found = _LIVE.search(topic)
        return "" if found is None else found[1].decode()

    def subscribers(self, channel_id: str) -> str:
        return f"{self._prefix}:{{c:{channel_id}}}:subs"

    def sent(self, channel_id: str, user: str, key: str) -> str:
        return f"{self._prefix}:{{c:{channel_id}}}:sent:{user}/{key}"

    def whispered(self, user: str, key: str) -> str:
        return f"{self._prefix}:{{u:{user}}}:sent:{key}"

    def lease(self, path: SessionPath) -> str:
        return f"{self._prefix}:{{s:{path}}}"

    def sessions(self, node: str) -> str:
        return f"{self._prefix}:{{n:{node}}}:sessions"

    def channels(self, node: str) -> str:
        return f"{self._prefix}:{{n:{node}}}:channels"

    def inbox(self, node: str) -> str:
        return f"{self._prefix}:{{n:{node}}}:inbox"

    def probe(self, node: str) -> str:
        return f"{self._prefix}:{{n:{node}}}:probe"

    def sweep(self, node: str) -> str:
        return f"{self.nodes}:sweep:{node}"

"""The permission levels that hold now: the owner's configuration, and the changes of the session. Pure.

The owner sets levels in `config.toml`. A session changes levels for itself only, with its tools, and a tool call may be
the idea of another participant. So a session may lower a level, and raise it up to the ceiling or to the owner's level
for that scope, whichever is higher. A new level from the owner replaces the session's change of that scope. When the
owner writes the configuration without changing it, the session's changes end in every scope that it names, and so does
its default: nothing tells which entry the owner meant. A lowered ceiling, or a removed level, limits what was raised.

Levels belong to a cluster, not to a spelling of its URL. If a cluster is configured under several URLs, the levels of
all count; for a scope with several levels, the first configured URL decides.
"""

import shlex

import msgspec

from bridge.errors import AboveCeiling
from conclave.machine.config import Level, LocalConfig, Override
from conclave.text import visible
from conclave.urls import normalise

Urls = list[str] | tuple[str, ...]
"""All URLs that are known to lead to one cluster, in any spelling."""


class _Scope(msgspec.Struct, frozen=True):
    """One channel of a cluster, or its whispers; `cluster` is the normalised form of one of its URLs."""

    cluster: str
    channel: str | None


class Levels:
    """The levels of one running bridge. None as the channel means whispers."""

    def __init__(self, config: LocalConfig) -> None:
        self._config = config
        self._clusters: dict[str, str] = {}
        """Maps a URL that leads to a known cluster to the URL that identifies it."""
        self._owner = self._owner_levels()
        self._changes: dict[_Scope, Level] = {}
        self._default: Level | None = None

    def level(self, urls: Urls, channel: str | None) -> Level:
        """Return the level that holds now: the session's, else the owner's, else the default of either."""
        scope = self._scope(urls, channel)
        if scope in self._changes:
            return self._changes[scope]
        if scope in self._owner:
            return self._owner[scope]
        return self._config.default_permission if self._default is None else self._default

    def may_emit(self, urls: Urls, channel: str | None) -> bool:
        """Tell if the agent may send messages to the channel, or whisper."""
        return self.level(urls, channel).may_emit

    def check(self, urls: Urls, channel: str | None, level: Level) -> None:
        """Check that the session may set a level.

        Raises:
            AboveCeiling: if it may not.
        """
        where = ["--whisper"] if channel is None else ["--channel", channel]
        _check(level, self._limit(self._scope(urls, channel)), ["--server", urls[0], *where])

    def set(self, urls: Urls, channel: str | None, level: Level) -> None:
        """Set a level for this session. Raises: AboveCeiling."""
        self.check(urls, channel, level)
        self._changes[self._scope(urls, channel)] = level

    def set_default(self, level: Level) -> None:
        """Set the default level of this session, at all servers. Raises: AboveCeiling."""
        _check(level, self._default_limit(), [])
        self._default = level

    def renamed(self, urls: Urls, old: str, new: str) -> None:
        """Carry the level over to a channel's new name, unless the new name has a level already.

        A level of the owner's beyond the ceiling is not carried over: it was given to another name.
        """
        before = self.level(urls, old)
        self._changes.pop(self._scope(urls, old), None)
        scope = self._scope(urls, new)
        if scope not in self._owner and scope not in self._changes and self.level(urls, new) is not before:
            self._changes[scope] = min(before, self._limit(scope))

    def configure(self, config: LocalConfig) -> None:
        """Apply a new configuration."""
        old_config, old_levels = self._config, self._owner
        self._config = config
        self._owner = self._owner_levels()
        self._changes = {
            scope: level for scope, level in self._changes.items() if self._owner.get(scope) is old_levels.get(scope)
        }
        if config.default_permission is not old_config.default_permission:
            self._default = None
        self._clamp()

    def repeat(self) -> None:
        """Apply the same configuration again: the session's levels end in the owner's scopes, and its default does."""
        self._changes = {scope: level for scope, level in self._changes.items() if scope not in self._owner}
        self._default = None

    def _clamp(self) -> None:
        """Lower the session's levels that are above the present limit."""
        self._changes = {scope: min(level, self._limit(scope)) for scope, level in self._changes.items()}
        if self._default is not None:
            self._default = min(self._default, self._default_limit())

    def _limit(self, scope: _Scope) -> Level:
        return max(self._config.permission_ceiling, self._owner.get(scope, self._config.default_permission))

    def _default_limit(self) -> Level:
        return max(self._config.permission_ceiling, self._config.default_permission)

    def _owner_levels(self) -> dict[_Scope, Level]:
        """Return the owner's overrides by scope."""
        rank = {normalise(entry.url): number for number, entry in reversed(list(enumerate(self._config.servers)))}

        def configured(override: Override) -> int:
            return rank.get(normalise(override.server), len(self._config.servers))

        levels: dict[_Scope, Level] = {}
        for override in sorted(self._config.overrides, key=configured):  # stable: within a URL, the file's order
            levels.setdefault(_Scope(self._cluster(override.server), override.channel), override.level)
        return levels

    def _scope(self, urls: Urls, channel: str | None) -> _Scope:
        clusters = list(dict.fromkeys(self._cluster(url) for url in urls))
        if len(clusters) > 1:
            self._unite(clusters)
        return _Scope(clusters[0], channel)

    def _cluster(self, url: str) -> str:
        url = normalise(url)
        return self._clusters.get(url, url)

    def _unite(self, clusters: list[str]) -> None:
        """Treat several clusters as one; of conflicting changes of the session, those of the first one stay."""
        for url in [*self._clusters, *clusters[1:]]:
            if self._cluster(url) in clusters:
                self._clusters[url] = clusters[0]
        order = {cluster: number for number, cluster in enumerate(clusters)}
        changes: dict[_Scope, Level] = {}
        for scope, level in sorted(self._changes.items(), key=lambda change: order.get(change[0].cluster, 0)):
            changes.setdefault(_Scope(self._cluster(scope.cluster), scope.channel), level)
        self._changes = changes
        self._owner = self._owner_levels()
        self._clamp()


def _check(level: Level, limit: Level, options: list[str]) -> None:
    if level > limit:
        command = ["conclave", "perm", "set", level.value, *map(visible, options)]
        raise AboveCeiling(
            f"a session may not raise this level above `{limit.value}`; "
            f"the owner of this machine can, with: {shlex.join(command)}"
        )

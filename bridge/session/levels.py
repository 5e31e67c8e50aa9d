"""What an agent may do with what it hears, here and now: the owner's word, and what the session made of it. Pure.

The owner's word is `config.toml`. A session changes levels for itself only, with its tools, and a tool call may be the
idea of whoever talked to it. So it may lower a level, and raise one up to the ceiling or to what the owner gives that
very scope, whichever is more. When the owner says something new about a scope, that replaces what the session made of
it. When they say the same again, that goes for all that they said, for nothing tells what of it was meant. A lowered
ceiling, or a withdrawn level, takes back what was raised beyond it.

Levels belong to a cluster, not to the spelling of its URL. Where a cluster was configured under several URLs, the
levels of each count, and if they disagree about a scope, those of the first configured one.
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
        """For a URL that is one of several, the one that stands for all of them."""
        self._words = self._owner_words()
        self._changes: dict[_Scope, Level] = {}
        self._default: Level | None = None

    def level(self, urls: Urls, channel: str | None) -> Level:
        """Return the level that holds now: the session's, else the owner's, else the default of either."""
        scope = self._scope(urls, channel)
        if scope in self._changes:
            return self._changes[scope]
        if scope in self._words:
            return self._words[scope]
        return self._config.default_permission if self._default is None else self._default

    def may_emit(self, urls: Urls, channel: str | None) -> bool:
        """Tell whether the agent may send messages to the channel, or whisper."""
        return self.level(urls, channel).may_emit

    def check(self, urls: Urls, channel: str | None, level: Level) -> None:
        """Find out whether the session may set a level.

        Raises:
            AboveCeiling: if it may not.
        """
        where = ["--whisper"] if channel is None else ["--channel", channel]
        _check(level, self._limit(self._scope(urls, channel)), ["--server", urls[0], *where])

    def set(self, urls: Urls, channel: str | None, level: Level) -> None:
        """Set a level for this session; AboveCeiling if it may not."""
        self.check(urls, channel, level)
        self._changes[self._scope(urls, channel)] = level

    def set_default(self, level: Level) -> None:
        """Set the level for whatever has none of its own, at all servers, for this session; AboveCeiling likewise."""
        _check(level, self._default_limit(), [])
        self._default = level

    def renamed(self, urls: Urls, old: str, new: str) -> None:
        """Note that a channel has another name: its level stays, unless there is a word about the new name already.

        What the owner gave the old name beyond the ceiling is not carried over: they named another channel.
        """
        before = self.level(urls, old)
        self._changes.pop(self._scope(urls, old), None)
        scope = self._scope(urls, new)
        if scope not in self._words and scope not in self._changes and self.level(urls, new) is not before:
            self._changes[scope] = min(before, self._limit(scope))

    def configure(self, config: LocalConfig) -> None:
        """Take the owner's newer word."""
        old_config, old_words = self._config, self._words
        self._config = config
        self._words = self._owner_words()
        self._changes = {
            scope: level for scope, level in self._changes.items() if self._words.get(scope) is old_words.get(scope)
        }
        if config.default_permission is not old_config.default_permission:
            self._default = None
        self._clamp()

    def repeat(self) -> None:
        """Take the owner's word as said again: where they gave a level, and by default, the session's ends."""
        self._changes = {scope: level for scope, level in self._changes.items() if scope not in self._words}
        self._default = None

    def _clamp(self) -> None:
        """Take back what was raised further than a session may now."""
        self._changes = {scope: min(level, self._limit(scope)) for scope, level in self._changes.items()}
        if self._default is not None:
            self._default = min(self._default, self._default_limit())

    def _limit(self, scope: _Scope) -> Level:
        return max(self._config.permission_ceiling, self._words.get(scope, self._config.default_permission))

    def _default_limit(self) -> Level:
        return max(self._config.permission_ceiling, self._config.default_permission)

    def _owner_words(self) -> dict[_Scope, Level]:
        """Return the levels that the owner gave to single scopes."""
        rank = {normalise(entry.url): number for number, entry in reversed(list(enumerate(self._config.servers)))}

        def configured(override: Override) -> int:
            return rank.get(normalise(override.server), len(self._config.servers))

        words: dict[_Scope, Level] = {}
        for override in sorted(self._config.overrides, key=configured):  # stable: within a URL, the file's order
            words.setdefault(_Scope(self._cluster(override.server), override.channel), override.level)
        return words

    def _scope(self, urls: Urls, channel: str | None) -> _Scope:
        clusters = list(dict.fromkeys(self._cluster(url) for url in urls))
        if len(clusters) > 1:
            self._unite(clusters)
        return _Scope(clusters[0], channel)

    def _cluster(self, url: str) -> str:
        url = normalise(url)
        return self._clusters.get(url, url)

    def _unite(self, clusters: list[str]) -> None:
        """Note that what counted as several clusters is one; of what the session changed, the first one's stays."""
        for url in [*self._clusters, *clusters[1:]]:
            if self._cluster(url) in clusters:
                self._clusters[url] = clusters[0]
        order = {cluster: number for number, cluster in enumerate(clusters)}
        changes: dict[_Scope, Level] = {}
        for scope, level in sorted(self._changes.items(), key=lambda change: order.get(change[0].cluster, 0)):
            changes.setdefault(_Scope(self._cluster(scope.cluster), scope.channel), level)
        self._changes = changes
        self._words = self._owner_words()
        self._clamp()


def _check(level: Level, limit: Level, options: list[str]) -> None:
    if level > limit:
        words = ["conclave", "perm", "set", level.value, *map(visible, options)]
        raise AboveCeiling(
            f"a session may not raise this level above `{limit.value}`; "
            f"the owner of this machine can, with: {shlex.join(words)}"
        )

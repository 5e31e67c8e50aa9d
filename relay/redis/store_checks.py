"""Findings about the configuration of Redis: what an operator should change before it hurts.

They are logged when they appear and when they go, and are a metric for an alert. A server that hides a field, or does
not permit to ask for it, has no finding about it.
"""

import asyncio
from collections.abc import Mapping

import structlog
from redis.exceptions import ResponseError

from relay.model.errors import StoreUnavailable
from relay.observability.metrics import Metrics
from relay.redis.failures import CONNECTION_ERRORS, code_of, describe
from relay.redis.identity import parse_info
from relay.redis.keys import Keys
from relay.redis.store import Store

log = structlog.get_logger()

_CHECK_SECONDS = 30.0
_REPLY_SECONDS = 5.0
_OLDEST_VERSION = (6, 2)
_FULL_SHARE = 0.9


def findings(info: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with a server, each with a sentence; its fields are those of INFO, and of CONFIG GET save.

    The possible findings are `eviction`, `persistence`, `memory`, `version` and `replica`, as in the metric.
    """
    checks = {
        "eviction": _eviction(info.get("maxmemory_policy", "noeviction")),
        "persistence": _persistence(info),
        "memory": _memory(_number(info, "used_memory"), _number(info, "maxmemory")),
        "version": _version(info.get("redis_version", "")),
        "replica": _replica(info),
    }
    return {name: sentence for name, sentence in checks.items() if sentence}


def _eviction(policy: str) -> str:
    if policy == "noeviction":
        return ""
    return f"maxmemory-policy is {policy}: at its memory limit Redis deletes users and channels; set it to noeviction"


def _persistence(info: Mapping[str, str]) -> str:
    if info.get("aof_enabled") != "0" or info.get("save") != "":
        return ""
    return "Redis writes no file: a restart of it loses every user, channel and message; set appendonly to yes"


def _memory(used: int, most: int) -> str:
    if not most or used < _FULL_SHARE * most:
        return ""
    return f"Redis uses {used * 100 // most} % of its maxmemory: when it is full, every post and login is refused"


def _version(text: str) -> str:
    parts = text.split(".")[:2]
    if not all(part.isdecimal() for part in parts) or tuple(map(int, parts)) >= _OLDEST_VERSION:
        return ""
    return f"Redis {text} is older than 6.2, the oldest version that nodes are made for"


def _replica(info: Mapping[str, str]) -> str:
    states = [value for name, value in info.items() if name.startswith("slave") and "state=" in value]
    away = sum("state=online" not in state for state in states)
    return f"{away} of {len(states)} replicas do not follow: a failover to one would lose messages" if away else ""


def _number(info: Mapping[str, str], name: str) -> int:
    text = info.get(name, "")
    return int(text) if text.isdecimal() else 0


class StoreChecks:
    """Checks the server that holds the registry, every half a minute."""

    def __init__(self, client: Store, keys: Keys, metrics: Metrics) -> None:
        self._client = client
        self._keys = keys
        self._metrics = metrics
        self._found: dict[str, str] = {}

    async def serve(self) -> None:
        """Check until cancelled. Outages are waited out."""
        while True:
            try:
                async with asyncio.timeout(_REPLY_SECONDS):
                    self._report(findings(await self._ask()))
            except (*CONNECTION_ERRORS, StoreUnavailable) as error:
                log.debug("redis.unchecked", error=describe(error))
            await asyncio.sleep(_CHECK_SECONDS)

    async def _ask(self) -> dict[str, str]:
        """Ask over a connection of its own: a refused question is no failure of the node."""
        connection = await self._client.connection(self._keys.nodes)
        try:
            await connection.send_command("INFO")
            info = parse_info(await connection.read_response())
            await connection.send_command("CONFIG", "GET", "save")
            name_and_value = await connection.read_response()
            return info | {"save": bytes(name_and_value[1]).decode()} if name_and_value else info
        except ResponseError as error:
            log.debug("redis.unchecked", error=code_of(error))
            return {}
        finally:
            await connection.disconnect(nowait=True)

    def _report(self, found: dict[str, str]) -> None:
        for name in found.keys() - self._found.keys():
            log.warning("redis.finding", finding=name, text=found[name])
        for name in self._found.keys() - found.keys():
            log.info("redis.finding_gone", finding=name)
        for name in found.keys() ^ self._found.keys():
            self._metrics.redis_findings.labels(finding=name).set(name in found)
        self._found = found

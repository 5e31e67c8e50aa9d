"""Sentinels: every new connection goes to the server that they name as the primary at that moment.

So a failover needs nothing but a lost connection: the client, the broker and the inbox connect again, and each of them
asks anew. The Sentinels are asked one after the other; the first that knows the service and holds its primary to be up
is asked first the next time.
"""

import asyncio
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import AuthenticationError, ResponseError
from typing_extensions import override

from relay.redis.failures import CONNECTION_ERRORS, describe
from relay.redis.store_url import Address, StoreUrl


class Sentinels(Sentinel):
    """The Sentinels of a service, and their reasons where none of them names a primary."""

    def __init__(self, url: StoreUrl, *, timeout: float, **common: Any) -> None:
        """`timeout`, in seconds, bounds the time until the last Sentinel has been asked."""
        self._timeout = timeout / (len(url.addresses) + 1)
        options = {**common, **url.sentinel_options, "socket_timeout": None}  # with one, it may swallow a cancellation
        super().__init__(url.addresses, sentinel_kwargs=options)  # type: ignore[no-untyped-call]

    @override
    async def discover_master(self, service_name: str) -> Address:
        """Return the address of the primary. Raises: MasterNotFoundError, with the Sentinels' reasons."""
        reasons: dict[str, list[str]] = {}
        for sentinel in tuple(self.sentinels):
            try:
                async with asyncio.timeout(self._timeout):
                    state = await _state(sentinel, service_name)
            except CONNECTION_ERRORS as error:
                reason = _refusal(error)
            else:
                if state is not None and self.check_master_state(state, service_name):
                    self.sentinels.sort(key=lambda each: each is not sentinel)
                    return state["ip"], state["port"]
                reason = "service unknown" if state is None else "primary down"
            reasons.setdefault(reason, []).append(_name(sentinel))
        told = "; ".join(f"{reason} (Sentinel {', '.join(names)})" for reason, names in reasons.items())
        raise MasterNotFoundError(f"no primary of `{service_name}`: {told}")


async def _state(sentinel: Redis, service: str) -> dict[str, Any] | None:
    """Return what a Sentinel says of a service's primary; None if it does not know the service."""
    try:
        masters = await sentinel.sentinel_masters()
    finally:
        await sentinel.connection_pool.disconnect(inuse_connections=False)  # the next question may be hours away
    return cast("dict[str, dict[str, Any]]", masters).get(service)


def _refusal(error: BaseException) -> str:
    return describe(error) if isinstance(error, (AuthenticationError, ResponseError)) else "no answer"


def _name(sentinel: Redis) -> str:
    options = sentinel.connection_pool.connection_kwargs
    return f"{options['host']}:{options['port']}"

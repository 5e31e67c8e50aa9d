"""What nodes say about the configuration of Redis."""

import pytest
from redis import Redis
from structlog.testing import capture_logs

from relay.redis.store_checks import findings
from tests.support.metrics import scrape
from tests.support.nodes import running_node
from tests.support.waiting import wait_until

SOUND = {
    "redis_version": "7.2.4",
    "maxmemory_policy": "noeviction",
    "maxmemory": "100",
    "used_memory": "89",
    "aof_enabled": "1",
    "save": "",
    "slave0": "ip=10.0.0.1,port=6379,state=online,offset=1,lag=0",
}


@pytest.mark.parametrize(
    ("change", "finding", "words"),
    [
        ({"maxmemory_policy": "allkeys-lru"}, "eviction", "maxmemory-policy is allkeys-lru"),
        ({"aof_enabled": "0"}, "persistence", "Redis writes no file"),
        ({"used_memory": "90"}, "memory", "90 % of its maxmemory"),
        ({"redis_version": "6.0.16"}, "version", "Redis 6.0.16 is older than 6.2"),
        ({"slave1": "ip=10.0.0.2,port=6379,state=wait_bgsave"}, "replica", "1 of 2 replicas do not follow"),
    ],
)
def test_each_fault_is_a_sentence(change: dict[str, str], finding: str, words: str) -> None:
    """And a sound server has none."""
    assert findings(SOUND) == {}
    found = findings(SOUND | change)
    assert list(found) == [finding]
    assert words in found[finding]


@pytest.mark.parametrize("hidden", SOUND)
def test_what_a_server_hides_is_no_finding(hidden: str) -> None:
    """Managed services leave fields out, or allow no questions at all."""
    assert findings({name: value for name, value in SOUND.items() if name != hidden}) == {}
    assert findings({}) == {}
    assert findings({"aof_enabled": "0", "maxmemory": "?", "redis_version": "unknown"}) == {}
    assert findings({"aof_enabled": "0", "save": "3600 1"}) == {}


async def test_a_finding_is_a_log_event_and_a_metric(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once when it comes, and once when it goes."""
    monkeypatch.setattr("relay.redis.store_checks._CHECK_SECONDS", 0.05)
    with Redis.from_url(redis_url) as store, capture_logs() as logged:
        store.config_set("maxmemory-policy", "allkeys-lru")
        try:
            async with running_node(redis_url) as url:

                async def shown() -> float:
                    return (await scrape(url))("redis_findings", finding="eviction")

                await wait_until(shown, what="the finding is a metric")
                assert (await scrape(url))("redis_findings", finding="persistence") == 1, (
                    "the test's server has no file"
                )
                store.config_set("maxmemory-policy", "noeviction")
                gone = [each for each in logged if each["event"] == "redis.finding_gone"]
                await wait_until(
                    lambda: [each for each in logged if each["event"] == "redis.finding_gone"], what="it has gone"
                )
                assert not gone
                assert await shown() == 0
        finally:
            store.config_set("maxmemory-policy", "noeviction")
    found = [each["finding"] for each in logged if each["event"] == "redis.finding"]
    assert sorted(found) == ["eviction", "persistence"]

"""A Redis with a private authority and a password of its own, as the chart's values describe it to a node."""

from pathlib import Path

from tests.support.certificate import Certificate, behind_tls, needs_openssl
from tests.support.chart import Object, render
from tests.support.nodes import NodeProcess
from tests.support.peer import Peer
from tests.support.redis_server import RedisProcess

_PASSWORD = "p/w@:#%2F"


def _environment(chart_redis: Object, secret: dict[str, str], mounts: dict[str, str]) -> dict[str, str]:
    """The environment of a node by the chart, with a Secret's values, and paths of this machine for those of mounts."""
    chart = render({"redis": chart_redis})
    found: dict[str, str] = {}
    for entry in chart.container["env"]:
        value = entry.get("value")
        found[entry["name"]] = secret[entry["valueFrom"]["secretKeyRef"]["key"]] if value is None else value
    for mount in chart.container["volumeMounts"]:
        found = {name: value.replace(mount["mountPath"], mounts[mount["name"]]) for name, value in found.items()}
    return found


@needs_openssl
async def test_a_node_trusts_the_authority_and_has_the_password(tmp_path: Path) -> None:
    """Both come from objects of the cluster, and the password is written as its Redis has it."""
    user = ("--user", "conclave", "on", f">{_PASSWORD}", "~*", "&*", "+@all")
    server = RedisProcess(tmp_path / "redis", settings=user)
    certificate = Certificate(tmp_path, "IP:127.0.0.1")
    await server.start()
    try:
        async with behind_tls(server.url, certificate) as url:
            bare = url.partition("?")[0].replace("rediss://", "rediss://conclave@")
            redis = {"url": bare, "existingSecret": "r", "ca": {"secret": "ca", "key": certificate.path.name}}
            environment = _environment(redis, {"password": _PASSWORD}, {"redis-ca": str(tmp_path)})
            node = NodeProcess(environment=environment)
            await node.start()
            await (await Peer.register(node.url, "ann")).close()
            await node.close()
    finally:
        server.close()

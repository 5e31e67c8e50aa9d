"""A rolling update as Kubernetes makes it, from the rendered chart: processes of this machine are the pods.

The probes, the order of starts and ends, and their times are those of a Deployment. Two things are made worse than they
are there. A pod that ends leaves the Service only when its readiness probe has failed so often as the chart says, as
with a balancer outside of the cluster that has nothing else to go by. And a connection that a pod turns away is not
tried at another one.
"""

import asyncio
from contextlib import suppress
from typing import Self

import aiohttp
import msgspec

from relay.launch.balancer import Backend, Balancer
from tests.support.chart import Object, Rendered
from tests.support.nodes import NodeProcess
from tests.support.waiting import pause, wait_until

KILLED = -9


class Probe(msgspec.Struct, frozen=True):
    """A probe of a pod; times in seconds. The pod's state changes after a number of equal answers in a row."""

    path: str
    period: float
    timeout: float
    failures: int
    successes: int = 1

    @classmethod
    def of(cls, probe: Object, scale: float) -> Self:
        return cls(
            probe["httpGet"]["path"],
            probe["periodSeconds"] * scale,
            probe.get("timeoutSeconds", 1) * scale,
            probe["failureThreshold"],
            probe.get("successThreshold", 1),
        )


class Settings(msgspec.Struct, frozen=True):
    """The chart's settings of an update; times in seconds."""

    replicas: int
    surge: int
    min_ready: float
    grace: float
    drain_seconds: float
    startup: Probe
    readiness: Probe
    liveness: Probe
    arguments: tuple[str, ...]
    environment: dict[str, str]

    @classmethod
    def of(cls, chart: Rendered, scale: float) -> Self:
        """Read them, with every time multiplied by `scale`."""
        spec, container = chart["Deployment"]["spec"], chart.container
        strategy = spec["strategy"]["rollingUpdate"]
        assert (spec["strategy"]["type"], strategy["maxUnavailable"]) == ("RollingUpdate", 0), "another update"
        environment = dict(chart["ConfigMap"]["data"])
        drain = {name: float(environment[name]) * scale for name in ("CONCLAVE_DRAIN_DELAY", "CONCLAVE_DRAIN_SECONDS")}
        serve, *arguments = container["args"]
        assert serve == "serve"
        return cls(
            spec["replicas"],
            strategy["maxSurge"],
            spec["minReadySeconds"] * scale,
            chart.pod["terminationGracePeriodSeconds"] * scale,
            drain["CONCLAVE_DRAIN_SECONDS"],
            Probe.of(container["startupProbe"], scale),
            Probe.of(container["readinessProbe"], scale),
            Probe.of(container["livenessProbe"], scale),
            tuple(arguments),
            {
                **environment,
                **{name: f"{seconds:g}" for name, seconds in drain.items()},
                # Pods have an address each.
                "CONCLAVE_BIND": "",
                "CONCLAVE_METRICS_BIND": "127.0.0.1:0",
            },
        )


class Finding:
    """The state of a pod after some answers to a probe."""

    def __init__(self, probe: Probe, *, good: bool) -> None:
        self.good = good
        self._probe = probe
        self._others = 0

    def take(self, answer: bool) -> None:
        self._others = 0 if answer == self.good else self._others + 1
        if self._others >= (self._probe.failures if self.good else self._probe.successes):
            self.good, self._others = answer, 0


class Pod:
    """A node from its start to its end."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        self.node = NodeProcess("--redis-url", redis_url, *settings.arguments, environment=settings.environment)
        self.status: int | None = None
        """The exit code of the process; KILLED after its grace period."""
        self._settings = settings
        self._ready = Finding(settings.readiness, good=False)
        self._probing: list[asyncio.Task[None]] = []

    @property
    def is_ready(self) -> bool:
        return self._ready.good

    async def start(self) -> None:
        """Start, and return once it has been ready for long enough."""
        await self.node.start()
        started = Finding(self._settings.startup, good=False)
        startup = asyncio.create_task(self._probe(self._settings.startup, started))
        try:
            limit = self._settings.startup.failures * self._settings.startup.period
            await wait_until(lambda: started.good, timeout=limit, what="the startup probe passes")
        finally:
            startup.cancel()
        alive = Finding(self._settings.liveness, good=True)
        self._probing = [
            asyncio.create_task(self._probe(self._settings.readiness, self._ready)),
            asyncio.create_task(self._live(alive)),
        ]
        await wait_until(lambda: self.is_ready, timeout=20, what="the readiness probe passes")
        await pause(self._settings.min_ready)
        assert self.is_ready, "a new node was not ready for long enough"

    async def terminate(self) -> None:
        """Ask it to end, and kill it after its grace period. Meanwhile its liveness is not probed."""
        self._probing.pop().cancel()
        try:
            async with asyncio.timeout(self._settings.grace):
                self.status = await self.node.stop()
        except TimeoutError:
            await self.node.kill()
            self.status = KILLED
        await wait_until(lambda: not self.is_ready, timeout=20, what="the readiness probe has failed")
        await self.close()

    async def close(self) -> None:
        for task in self._probing:
            task.cancel()
        await asyncio.gather(*self._probing, return_exceptions=True)
        self._ready.good = False
        await self.node.close()

    async def _live(self, alive: Finding) -> None:
        """Be restarted, as Kubernetes would do it, once the node does not answer any more."""
        watching = asyncio.create_task(self._probe(self._settings.liveness, alive))
        try:
            while alive.good:
                await pause(self._settings.liveness.period)
            await self.node.kill()
            self.status = KILLED
        finally:
            watching.cancel()

    async def _probe(self, probe: Probe, finding: Finding) -> None:
        """Probe for as long as the pod is one of the Deployment."""
        clock = asyncio.get_running_loop().time
        due = clock()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=probe.timeout)) as http:
            while True:
                finding.take(await _answers(http, f"http://{self.node.address}{probe.path}"))
                due += probe.period
                await pause(max(0.0, due - clock()))


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    with suppress(aiohttp.ClientError, TimeoutError):
        async with http.get(url, headers={"Connection": "close"}) as answer:
            return answer.status == 200
    return False


class Service(Balancer):
    """One address for the pods that are ready: each in turn, and no second try."""

    def __init__(self) -> None:
        super().__init__([])
        self.pods: list[Pod] = []

    @property
    def url(self) -> str:
        host, port = self.address
        return f"ws://{host}:{port}/"

    def _candidates(self) -> list[Backend]:
        ready = [pod for pod in self.pods if pod.is_ready]
        self._turns += 1
        return [Backend(ready[self._turns % len(ready)].node.host_and_port)] if ready else []


class Deployment:
    """`async with Deployment(settings, redis_url) as relay`: as many pods as it shall have, at `relay.url`."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        self.pods: list[Pod] = []
        """Those that shall stay."""
        self.gone: list[Pod] = []
        """Those that an update has ended, first the one that was ended first."""
        self._settings = settings
        self._redis_url = redis_url
        self._service = Service()

    async def __aenter__(self) -> Self:
        await self._service.__aenter__()
        try:
            await self._service.listen("127.0.0.1", 0)
            self.pods = await self._add(self._settings.replicas)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._service.__aexit__()
        await asyncio.gather(*(pod.close() for pod in self._service.pods))

    @property
    def url(self) -> str:
        """The URL of the service."""
        return self._service.url

    async def update(self) -> None:
        """Replace every pod; returns when the last old one has ended.

        So many new ones as may be started in addition, then so many old ones less: it is not waited for until these
        have ended, just as Kubernetes does not.
        """
        old, self.pods = self.pods, []
        async with asyncio.TaskGroup() as endings:
            for first in range(0, len(old), self._settings.surge):
                leaving = old[first : first + self._settings.surge]
                self.pods += await self._add(len(leaving))
                self.gone += leaving
                for pod in leaving:
                    endings.create_task(pod.terminate())

    async def _add(self, count: int) -> list[Pod]:
        pods = [Pod(self._settings, self._redis_url) for _ in range(count)]
        self._service.pods += pods
        await asyncio.gather(*(pod.start() for pod in pods))
        return pods

"""Our own instruments against prometheus-client's: faster, and to Prometheus the same."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from relay.observability.metrics.families import Family, collected, merged, render
from relay.observability.metrics.table import Table

BOUNDS = (0.001, 0.5, 1, 10)
NAMES = ("one", "two")


class Ours(Table):
    def __init__(self) -> None:
        super().__init__()
        self.total = self._counters("things", "Things.", kind=NAMES)
        self.spread = self._histogram("spread", "How much.", BOUNDS)


class Theirs:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.total = Counter("conclave_things", "Things.", ["kind"], registry=self.registry)
        self.spread = Histogram("conclave_spread", "How much.", buckets=BOUNDS, registry=self.registry)
        for name in NAMES:
            self.total.labels(kind=name)


events = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 5), st.sampled_from([0, *BOUNDS, 0.3, 11, 1e9])))


def both(happened: list[tuple[str, int, float]]) -> tuple[Ours, Theirs]:
    ours, theirs = Ours(), Theirs()
    for name, by, value in happened:
        ours.total.labels(kind=name).inc(by)
        theirs.total.labels(kind=name).inc(by)
        ours.spread.observe(value)
        theirs.spread.observe(value)
    return ours, theirs


def series(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(events)
def test_prometheus_sees_the_same(happened: list[tuple[str, int, float]]) -> None:
    """Bounds included, and values on a bound: a bucket holds what is less or equal."""
    ours, theirs = both(happened)
    assert series(render(ours.families())) == series(generate_latest(theirs.registry))


@given(events, events)
def test_several_processes_stay_apart_and_add_up(
    here: list[tuple[str, int, float]], there: list[tuple[str, int, float]]
) -> None:
    """The series of each under its own number; summed they are those of one process that saw everything."""
    parts = {"0": both(here)[0].families(), "1": both(there)[0].families()}
    text = render(merged("worker", parts))
    assert text.count(b"# TYPE conclave_spread ") == 1
    found = series(text)
    for number, part in parts.items():
        alone = {
            (name, tuple(sorted((*labels, ("worker", number))))): v
            for (name, labels), v in series(render(part)).items()
        }
        assert alone.items() <= found.items()
    whole = series(render(both(here + there)[0].families()))
    summed = dict.fromkeys(whole, 0.0)
    for (name, labels), value in found.items():
        summed[name, tuple(each for each in labels if each[0] != "worker")] += value
    assert summed.keys() == whole.keys()
    assert all(abs(summed[key] - whole[key]) <= 1e-6 * max(1, abs(whole[key])) for key in whole)


def test_what_the_library_collects_is_taken_over() -> None:
    """Such as the process's own figures."""
    theirs = both([("one", 2, 0.3)])[1]
    families = collected(theirs.registry)
    assert Family("conclave_things", "counter", "Things.", []).name in {family.name for family in families}
    assert series(render(families)) == series(generate_latest(theirs.registry))

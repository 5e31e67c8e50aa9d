"""The unlocked instruments and the merging of several processes, both compared with prometheus-client itself."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from relay.observability.metrics.table import Table
from relay.workers.families import collect, merge, render

BOUNDS = (0.001, 0.5, 1, 10)
NAMES = ("one", "two")


class Ours(Table):
    def __init__(self) -> None:
        super().__init__()
        self.total = self._unlocked_counter("things", "Things.")
        self.spread = self._unlocked_histogram("spread", "How much.", BOUNDS)
        self.kinds = self._counters("kinds", "Kinds.", kind=NAMES)


class Theirs:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.total = Counter("conclave_things", "Things.", registry=self.registry)
        self.spread = Histogram("conclave_spread", "How much.", buckets=BOUNDS, registry=self.registry)
        self.kinds = Counter("conclave_kinds", "Kinds.", ["kind"], registry=self.registry)
        for name in NAMES:
            self.kinds.labels(kind=name)


events = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 5), st.sampled_from([0, *BOUNDS, 0.3, 11, 1e9])))


def both(happened: list[tuple[str, int, float]]) -> tuple[Ours, Theirs]:
    ours, theirs = Ours(), Theirs()
    for name, amount, value in happened:
        for each in (ours, theirs):
            each.total.inc(amount)
            each.spread.observe(value)
            each.kinds.labels(kind=name).inc(amount)
    return ours, theirs


def series(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@given(events)
def test_an_unlocked_instrument_renders_as_the_librarys_does(happened: list[tuple[str, int, float]]) -> None:
    """Byte for byte, values on a bound included: a bucket holds what is less or equal."""
    ours, theirs = both(happened)
    assert ours.render() == generate_latest(theirs.registry)


@given(events, events)
def test_several_processes_stay_apart_and_add_up(
    here: list[tuple[str, int, float]], there: list[tuple[str, int, float]]
) -> None:
    """The series of each process have its number; summed they are those of one process that counted everything."""
    parts = {"0": collect(both(here)[0].registry), "1": collect(both(there)[0].registry)}
    text = render(merge("worker", parts))
    assert text.count(b"# TYPE conclave_spread ") == 1
    found = series(text)
    for number, part in parts.items():
        alone = {
            (name, tuple(sorted((*labels, ("worker", number))))): v
            for (name, labels), v in series(render(part)).items()
        }
        assert alone.items() <= found.items()
    whole = series(both(here + there)[0].render())
    summed = dict.fromkeys(whole, 0.0)
    for (name, labels), value in found.items():
        summed[name, tuple(each for each in labels if each[0] != "worker")] += value
    assert summed.keys() == whole.keys()
    assert all(abs(summed[key] - whole[key]) <= 1e-6 * max(1, abs(whole[key])) for key in whole)


def test_collected_metrics_render_as_they_do_in_their_process() -> None:
    """A worker sends its metrics to its parent, which writes the page."""
    ours = both([("one", 2, 0.3)])[0]
    assert render(collect(ours.registry)) == ours.render()

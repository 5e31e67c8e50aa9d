"""A node's metrics as Prometheus scrapes them."""

import aiohttp
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """All series at one moment."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [
            (sample.name, dict(sample.labels), sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the series of this name that have these labels; 0 if there are none."""
        return sum(value for _, value in self.series(name, **labels))

    def series(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """Every series of this name that has these labels, with its value."""
        return [
            (found, value)
            for each, found, value in self._samples
            if each == f"conclave_{name}" and labels.items() <= found.items()
        ]

    def values(self, label: str) -> set[str]:
        """Every value that a label has, in whichever series."""
        return {labels[label] for _, labels, _ in self._samples if label in labels}

    @property
    def labels(self) -> set[str]:
        """Every label there is."""
        return {label for _, labels, _ in self._samples for label in labels}


async def scrape(url: str) -> Scrape:
    """Scrape a node, or another server of /metrics, at this ws:// or http:// URL."""
    target = url.replace("ws://", "http://").rstrip("/") + "/metrics"
    async with aiohttp.ClientSession() as http, http.get(target) as response:
        assert response.status == 200, await response.text()
        return Scrape(await response.text())

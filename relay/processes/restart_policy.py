"""The restart policy of every process that the relay keeps running. No clock, no I/O."""

from conclave.backoff import Backoff


class RestartPolicy:
    """Decides when a process that died is started again, and when that is hopeless."""

    def __init__(self, backoff: Backoff, *, steady_seconds: float, give_up_after: int | None = None) -> None:
        """A process that lived for `steady_seconds` ends the row of quick deaths, and with it the backoff.

        More than `give_up_after` deaths in a row are hopeless; with None the restarts never end.
        """
        self.deaths = 0
        """The number of deaths in a row."""
        self._backoff = backoff
        self._steady_seconds = steady_seconds
        self._give_up_after = give_up_after

    def died(self, lived: float) -> float | None:
        """Count a death after `lived` seconds. Returns the seconds until the next start, or None to give up."""
        if lived >= self._steady_seconds:
            self.deaths = 0
            self._backoff.reset()
        self.deaths += 1
        if self._give_up_after is not None and self.deaths > self._give_up_after:
            return None
        return self._backoff.wait()

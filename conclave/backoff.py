"""Exponential backoff with jitter, for a client that reconnects and for a process that is restarted. No clock."""

import random
from collections.abc import Callable


class Backoff:
    """Waits that double from `first` to `longest` seconds until a success resets them.

    Each wait is drawn evenly from its upper half, so that many clients that lost one server come back spread out.
    """

    def __init__(
        self, first: float = 1.0, longest: float = 30.0, draw: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._first = first
        self._longest = longest
        self._draw = draw
        self._ceiling = first

    def wait(self) -> float:
        """Return the seconds to wait now; the next wait is about twice as long."""
        ceiling = self._ceiling
        self._ceiling = min(2 * ceiling, self._longest)
        return self._draw(ceiling / 2, ceiling)

    def reset(self) -> None:
        """Start again from the first wait: an attempt succeeded."""
        self._ceiling = self._first

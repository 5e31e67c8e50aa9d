"""How long to wait before the next attempt to reconnect, for as long as it takes."""

import random
from collections.abc import Callable


class Backoff:
    """Waits that double from `first` to `longest` seconds until a success resets them.

    Each wait is drawn evenly from its upper half: many clients that lost one server at once do not come back at once.
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

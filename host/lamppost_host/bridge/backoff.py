"""How long to wait before the next try."""

import random


class Backoff:
    """Delays that double from `first` to `most` seconds, each drawn from its upper half so that many clients don't return at once."""

    def __init__(self, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self._delay = first

    def reset(self) -> None:
        """It worked: begin with the shortest delay again."""
        self._delay = self._first

    def next(self) -> float:
        """Seconds to wait now."""
        delay = self._delay
        self._delay = min(self._most, delay * 2)
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing

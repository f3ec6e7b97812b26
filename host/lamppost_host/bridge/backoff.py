"""How long to wait before the next try, and how often to speak of it."""

import random
import time
from collections.abc import Callable


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


class Outage:
    """Which tries of a long outage are worth a line in the log: each reason at first, then after 1 min, 2 min, … up to once an hour."""

    FIRST_SECONDS = 60.0
    MOST_SECONDS = 3600.0
    _REASONS = 16

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[str, tuple[float, float]] = {}  # reason -> when it is told next, the pause after that

    def worth_telling(self, reason: str) -> bool:
        """Whether to tell of it now. Ask at every try."""
        now = self._clock()
        due, pause = self._due.get(reason, (now, self.FIRST_SECONDS))
        if now < due:
            return False
        if len(self._due) >= self._REASONS:
            self._due.clear()
        self._due[reason] = now + pause, min(self.MOST_SECONDS, 2 * pause)
        return True

    def over(self) -> None:
        """It works again: the next trouble is told at once."""
        self._due.clear()

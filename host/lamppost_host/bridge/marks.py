"""When to tell a node what is on disk: at once where little happens, gathered where much does."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lamppost_host import wire
from lamppost_host.bridge.ledger import Node

MARKS_PER_SECOND = 1.0
"""Marks a node gets in the long run."""

BURST = 5.0
"""Marks it may get at once after a quiet time: a frame now and then is confirmed without delay."""


@dataclass(slots=True)
class _Waiting:
    topic: str
    counted: float
    boots: set[bytes] = field(default_factory=set)
    payloads: list[bytes] = field(default_factory=list)
    credit: float = BURST

    def earn(self, now: float) -> None:
        self.credit = min(BURST, self.credit + (now - self.counted) * MARKS_PER_SECOND)
        self.counted = now


class Marks:
    """The nodes that wait for a `mark`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[str, _Waiting] = {}
        self._due: set[str] = set()

    def touch(self, touched: dict[Node, set[bytes]]) -> None:
        """These nodes' boots have moved, or a node sent again what is here. To be called after a commit: what is told is what holds now.

        A batch that is taken in later, and that the disk then refuses, moves the nodes' boots in memory too.
        """
        for node, boots in touched.items():
            account = self._accounts.get(node.key)
            if account is None:
                topic = wire.topic(node.tenant, node.node, "mark")
                account = self._accounts[node.key] = _Waiting(topic, self._clock())
            account.boots |= boots
            account.payloads = [wire.encode_mark(marked) for marked in node.marks(account.boots)]
            self._due.add(node.key)

    def take(self) -> Iterator[tuple[str, bytes]]:
        """(topic, payload) of every mark that may go out now."""
        now = self._clock()
        for key in sorted(self._due):
            account = self._accounts[key]
            account.earn(now)
            if account.credit < 1.0:
                continue
            account.credit -= 1.0
            self._due.remove(key)
            for payload in account.payloads:
                yield account.topic, payload
            account.boots = set()
            account.payloads = []

    def wait(self) -> float | None:
        """Seconds until the next mark may go out; None when none waits."""
        if not self._due:
            return None
        now = self._clock()
        return min(
            max(
                0.0,
                (1.0 - self._accounts[key].credit) / MARKS_PER_SECOND - (now - self._accounts[key].counted),
            )
            for key in self._due
        )

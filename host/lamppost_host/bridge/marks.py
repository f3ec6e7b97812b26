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
    node: Node
    counted: float
    boots: set[bytes] = field(default_factory=set)
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
        """These nodes' boots have moved, or a node sent again what is here."""
        for node, boots in touched.items():
            account = self._accounts.get(node.key)
            if account is None:
                account = self._accounts[node.key] = _Waiting(node, self._clock())
            account.node = node  # the spool may have read it anew from the disk
            account.boots |= boots
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
            topic = wire.topic(account.node.tenant, account.node.node, "mark")
            for boots in account.node.marks(account.boots):
                yield topic, wire.encode_mark(boots)
            account.boots = set()

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

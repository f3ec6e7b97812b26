"""What the intake remembers of a node and its boots: which frames are here, and up to where without a gap."""

from dataclasses import dataclass, field

MARKED_BOOTS = 8
"""Boots in one `mark` (WIRE.md, Confirmation)."""

REMEMBERED_BOOTS = 64
"""Boots of a node kept in memory; an older one is read from the disk again when it is heard of."""


@dataclass(slots=True, eq=False)
class Boot:
    """One boot of a node. `high`: this frame and all before it are here or declared dropped; `beyond`: frames here after a gap."""

    id: int
    boot: bytes
    heard: int
    high: int = -1
    beyond: set[int] = field(default_factory=set)
    runs: dict[int, int] = field(default_factory=dict)
    """Declared drops: first frame to last."""

    def received(self, seq: int) -> bool | None:
        """Whether the frame is here; None: it lies where frames were declared dropped, and only the ledger on disk knows."""
        if seq > self.high:
            return seq in self.beyond
        return None if any(first <= seq <= last for first, last in self.runs.items()) else True

    def add(self, seq: int) -> None:
        """Note that the frame is here."""
        if seq > self.high:
            self.beyond.add(seq)
            self._close_gaps()

    def drop(self, first: int, last: int) -> bool:
        """Note a declared drop; True when it is news."""
        if self.runs.get(first, -1) >= last:
            return False
        self.runs[first] = last
        self._close_gaps()
        return True

    def _close_gaps(self) -> None:
        while True:
            following = self.high + 1
            if following in self.beyond:
                self.beyond.remove(following)
                self.high = following
                continue
            reach = max(
                (last for first, last in self.runs.items() if first <= following <= last), default=None
            )
            if reach is None:
                return
            self.beyond = {seq for seq in self.beyond if seq > reach}
            self.high = reach


@dataclass(slots=True, eq=False)
class Node:
    """A node heard of. `widths`: how many datastreams each of its about documents has."""

    id: int
    tenant: str
    node: str
    revision: int | None = None
    widths: dict[int, int] = field(default_factory=dict)
    boots: dict[bytes, Boot] = field(default_factory=dict)
    heard: int = 0
    """Counts up whenever another of the boots is heard of: the order of `Boot.heard`."""

    @property
    def key(self) -> str:
        """tenant/node, by which sinks and people name it."""
        return f"{self.tenant}/{self.node}"

    def hear(self, boot: Boot) -> bool:
        """Make this the boot last heard of; True when it was another before."""
        if boot.heard == self.heard:
            return False
        self.heard += 1
        boot.heard = self.heard
        return True

    def marks(self, touched: set[bytes]) -> list[list[tuple[bytes, int]]]:
        """The marks to publish, each of at most 8 boots, so that every boot in `touched` is told of; the last one is of the boots last heard of."""
        order = sorted(self.boots.values(), key=lambda boot: boot.heard)
        last = order[-MARKED_BOOTS:]
        earlier = [boot for boot in order[:-MARKED_BOOTS] if boot.boot in touched]
        groups = [earlier[i : i + MARKED_BOOTS] for i in range(0, len(earlier), MARKED_BOOTS)]
        return [[(boot.boot, boot.high) for boot in group] for group in (*groups, last) if group]

    def forget_old_boots(self) -> None:
        """Keep memory bounded for a node that restarts for ever."""
        if len(self.boots) > REMEMBERED_BOOTS:
            old = sorted(self.boots.values(), key=lambda boot: boot.heard)[:-REMEMBERED_BOOTS]
            for boot in old:
                del self.boots[boot.boot]

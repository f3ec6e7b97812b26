"""The reading end of the spool, for a sink in a process of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lamppost_host import wire
from lamppost_host.bridge.database import open_for_reading

ROWS = 1_000
"""The most frames in one batch, whatever their size."""


@dataclass(frozen=True, slots=True)
class Described:
    """From here on `about` is how the node (tenant/node) describes itself. `id`: place in the spool."""

    id: int
    node: str
    about: wire.About


@dataclass(frozen=True, slots=True)
class Observed:
    """A frame of readings, and the about document that describes its columns."""

    id: int
    node: str
    about: wire.About
    frame: wire.Frame
    readings: int


Entry = Described | Observed


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries in the order of the spool, at least one."""

    entries: Sequence[Entry]
    readings: int
    full: bool
    """More was waiting than one batch takes."""

    @property
    def last(self) -> int:
        """Where the cursor stands once all of it is delivered."""
        return self.entries[-1].id


class SpoolReader:
    """Reads batches after a cursor."""

    def __init__(self, path: Path) -> None:
        self._db = open_for_reading(path)
        self._nodes: dict[int, str] = {}
        self._abouts: dict[tuple[int, int], wire.About] = {}

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def identity(self) -> str:
        """Which spool this is: cursors of another are not valid here."""
        (value,) = self._db.execute("SELECT value FROM facts WHERE name='identity'").fetchone()
        return str(value)

    def after(self, cursor: int, readings: int) -> Batch | None:
        """What follows `cursor`, up to about `readings` readings; None when nothing does."""
        rows = self._rows(cursor, readings)
        if not rows:
            return None
        entries: list[Entry] = []
        count = 0
        for row, node, revision, boot, size, payload in rows:
            about = self._about(node, revision)
            if boot is None:
                entries.append(Described(row, self._node(node), about))
            else:
                entries.append(Observed(row, self._node(node), about, wire.decode_obs(payload), size))
                count += size
        return Batch(entries, count, count >= readings or len(rows) == ROWS)

    def _rows(self, cursor: int, readings: int) -> list[tuple[int, int, int, int | None, int, bytes]]:
        found = []
        count = 0
        # Read and let go at once: an open statement would keep the WAL from being checkpointed.
        statement = self._db.execute(
            "SELECT id, node, revision, boot, readings, payload FROM spool WHERE id>? ORDER BY id LIMIT ?",
            (cursor, ROWS),
        )
        for row in statement:
            found.append(row)
            count += row[4]
            if count >= readings:
                break
        statement.close()
        return found

    def _node(self, number: int) -> str:
        if number not in self._nodes:
            tenant, node = self._db.execute("SELECT tenant, node FROM nodes WHERE id=?", (number,)).fetchone()
            self._nodes[number] = f"{tenant}/{node}"
        return self._nodes[number]

    def _about(self, node: int, revision: int) -> wire.About:
        if (node, revision) not in self._abouts:
            (payload,) = self._db.execute(
                "SELECT payload FROM abouts WHERE node=? AND revision=?", (node, revision)
            ).fetchone()
            self._abouts[node, revision] = wire.decode_about(payload)
        return self._abouts[node, revision]

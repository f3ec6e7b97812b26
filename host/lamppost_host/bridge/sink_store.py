"""A sink's own file: its place in the spool, the ids that the platform gave its entities, and what the platform refused."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from lamppost_host.bridge.database import open_database


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Readings of one frame and one Datastream that a platform refused for good. `observations`: as they were to be delivered."""

    node: str
    datastream: str
    boot: str
    seq: int
    code: str
    reason: str
    observations: Sequence[object]


class SinkStore:
    """Written by the sink's process only; `status` and `audit` read the file.

    Synced only where there are dead letters: else a power cut may take the cursor back, and what is then delivered again is known by the readings' names.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = open_database(path, "sink", synchronous="NORMAL")
        row = self._db.execute("SELECT cursor, error FROM progress").fetchone()
        self.cursor: int = row[0]
        self._error: str | None = row[1]
        self._state: str | None = None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def follow(self, spool: str) -> None:
        """Say which spool is read. The cursor means nothing in another one, so there it begins anew."""
        self._db.execute(
            "UPDATE progress SET cursor=CASE WHEN spool IS ? THEN cursor ELSE 0 END, spool=?", (spool, spool)
        )
        (self.cursor,) = self._db.execute("SELECT cursor FROM progress").fetchone()

    def advance(self, cursor: int, delivered: int, dead_letters: Sequence[DeadLetter] = ()) -> None:
        """Everything up to `cursor` is at the platform or among `dead_letters`."""
        now = _now()
        # A dead letter is the only trace of its readings: the spool lets go of the frame once the cursor is past it.
        self._db.execute(f"PRAGMA synchronous={'FULL' if dead_letters else 'NORMAL'}")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(
                "INSERT INTO dead_letters (node, datastream, boot, seq, readings, code, reason, observations, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET code=excluded.code, reason=excluded.reason, at=excluded.at",
                [
                    (
                        *(d.node, d.datastream, d.boot, d.seq, len(d.observations), d.code, d.reason),
                        *(orjson.dumps(d.observations).decode(), now),
                    )
                    for d in dead_letters
                ],
            )
            self._db.execute(
                "UPDATE progress SET cursor=?, delivered=delivered+?, state='delivering', updated=?",
                (cursor, delivered, now),
            )
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self.cursor = cursor
        self._state = "delivering"

    def state(self, state: str, error: str | None = None) -> None:
        """Say what the sink is doing, and what last went wrong, for `lamppost bridge status`."""
        if state == self._state and (error is None or error == self._error):
            return
        now = _now()
        if error is None:
            self._db.execute("UPDATE progress SET state=?, updated=?", (state, now))
        else:
            self._db.execute(
                "UPDATE progress SET state=?, error=?, error_at=?, updated=?", (state, error, now, now)
            )
            self._error = error
        self._state = state

    # Entities

    def entity(self, kind: str, key: str) -> str | None:
        """The id that the platform gave, as it stands in a URL."""
        row = self._db.execute("SELECT id FROM entities WHERE kind=? AND key=?", (kind, key)).fetchone()
        return None if row is None else str(row[0])

    def keep_entity(self, kind: str, key: str, identifier: str) -> None:
        """Remember the platform's id."""
        self._db.execute("INSERT OR REPLACE INTO entities VALUES (?, ?, ?)", (kind, key, identifier))

    def forget_node(self, node: str) -> None:
        """Forget the ids of everything of one node, and of what nodes share, because the platform no longer knows one of them."""
        self._db.execute(
            "DELETE FROM entities WHERE key=? OR key GLOB ? OR kind IN ('Sensors', 'ObservedProperties')",
            (node, node + "/*"),
        )
        self._db.execute("DELETE FROM described WHERE node=?", (node,))

    def forget_entities(self) -> None:
        """Forget all ids: the platform is not the one that gave them."""
        self._db.execute("DELETE FROM entities")
        self._db.execute("DELETE FROM described")

    def newest(self, kind: str) -> tuple[str, str] | None:
        """(key, id) of the entity with the highest number."""
        row: tuple[str, str] | None = self._db.execute(
            "SELECT key, id FROM entities WHERE kind=? ORDER BY length(id) DESC, id DESC LIMIT 1", (kind,)
        ).fetchone()
        return row

    def described(self, node: str) -> int | None:
        """The about revision from which the node's entities were last made."""
        row = self._db.execute("SELECT revision FROM described WHERE node=?", (node,)).fetchone()
        return None if row is None else int(row[0])

    def keep_described(self, node: str, revision: int) -> None:
        """Remember it."""
        self._db.execute("INSERT OR REPLACE INTO described VALUES (?, ?)", (node, revision))


def _now() -> int:
    return int(time.time() * 1000)

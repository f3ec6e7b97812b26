"""The spool: every message on disk before it is acknowledged, every frame once, and in order for the sinks.

One process writes (`Spool`); others read (`spool_reader`, `report`, `audit`).
"""

import hashlib
import json
import logging
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamppost_host import wire
from lamppost_host.bridge.database import open_database
from lamppost_host.bridge.ledger import MARKED_BOOTS, Boot, Node
from lamppost_host.errors import LamppostError

log = logging.getLogger(__name__)

PRUNE_ROWS = 5_000
"""Delivered rows removed in one go: about 10 ms, in which no message is taken in."""

FREE_PAGES = 500
"""Pages given back to the file system in one go, so that a file that an outage made large shrinks again."""


class SpoolError(LamppostError):
    """The disk would not take it: nothing of the batch was kept, and nothing of it may be acknowledged."""


@dataclass(frozen=True, slots=True)
class Message:
    """One MQTT message as it came; `received` in Unix milliseconds."""

    topic: str
    payload: bytes
    received: int


@dataclass(slots=True)
class Receipt:
    """What a committed batch changed. `touched`: the nodes to send a `mark`, each with the boots it must tell of."""

    spooled: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    last_reason: str = ""
    touched: dict[Node, set[bytes]] = field(default_factory=dict)

    def touch(self, node: Node, boot: Boot) -> None:
        """Have the node told how far this boot is on disk."""
        self.touched.setdefault(node, set()).add(boot.boot)


class Spool:
    """The writing end. Not for use from several threads. `identity` tells this spool from any other: a cursor is of one spool."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = open_database(path, "spool")
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO facts VALUES ('identity', ?)", (json.dumps(secrets.token_hex(8)),)
            )
        (self.identity,) = self._db.execute("SELECT value FROM facts WHERE name='identity'").fetchone()
        self._nodes: dict[tuple[str, str], Node] = {}
        self._frames: list[tuple[int, int, int | None, int | None, int, str | None]] = []
        self._rows: list[tuple[int, int, int | None, int | None, int, int, bytes | None]] = []
        self._changed: set[Boot] = set()
        self._receipt = Receipt()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # Taking in

    def receive(self, messages: Sequence[Message]) -> Receipt:
        """Put all messages on disk in one transaction, or raise SpoolError with nothing kept.

        A message that can't be used becomes a dead letter; it never makes this fail.
        """
        try:
            return self._receive(messages)
        except SpoolError:
            raise
        except Exception:
            # A fault of ours in one message must not stop the stream: find it, keep it, go on.
            log.exception(
                "a batch of %d messages could not be handled; taking them one by one", len(messages)
            )
        total = Receipt()
        for message in messages:
            try:
                part = self._receive([message])
            except SpoolError:
                raise
            except Exception as error:
                log.exception("a message on %s could not be handled", message.topic)
                part = self._receive([message], refused=("internal", f"{type(error).__name__}: {error}"))
            total.spooled += part.spooled
            total.duplicates += part.duplicates
            total.dead_letters += part.dead_letters
            total.last_reason = part.last_reason or total.last_reason
            for node, boots in part.touched.items():
                total.touched.setdefault(node, set()).update(boots)
        return total

    def _receive(self, messages: Sequence[Message], refused: tuple[str, str] | None = None) -> Receipt:
        self._receipt = Receipt()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for message in messages:
                if refused is None:
                    self._take(message)
                else:
                    self._bury(message, *refused)
            self._flush()
            self._db.executemany(
                "UPDATE boots SET high=?, heard=? WHERE id=?",
                [(boot.high, boot.heard, boot.id) for boot in self._changed],
            )
            self._db.execute("COMMIT")
        except BaseException as error:
            self._abandon()
            if type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise SpoolError(
                    f"can't write to the spool {self.path}: {error}",
                    "Nothing is lost yet: the broker keeps what is not acknowledged. Free disk space, or stop whatever locks the file.",
                ) from error
            raise
        self._changed.clear()
        for node in self._receipt.touched:
            node.forget_old_boots()
        return self._receipt

    def _abandon(self) -> None:
        """Undo the transaction, and forget what memory has of it: it is read from the disk again."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._nodes.clear()
        self._frames.clear()
        self._rows.clear()
        self._changed.clear()

    def _take(self, message: Message) -> None:
        try:
            tenant, name, kind = wire.parse_topic(message.topic)
        except wire.WireError as error:
            self._bury(message, error.code, error.message)
            return
        node = self._node(tenant, name)
        if kind == "obs":
            self._take_frame(node, message)
        elif kind == "about":
            self._take_about(node, message)
        elif kind == "status":
            self._take_status(node, message)
        else:
            self._bury(message, "topic-unknown", f"{kind} is not for the bridge", node)

    def _take_frame(self, node: Node, message: Message) -> None:
        try:
            frame = wire.decode_obs(message.payload)
        except wire.WireError as error:
            identity = wire.peek_identity(message.payload)
            if identity is None:
                self._bury(message, error.code, error.message, node)
                return
            boot = self._boot(node, identity[0])
            self._enter(node, boot, identity[1], message, None, (error.code, error.message))
            return
        problem: tuple[str, str] | None = None
        width = node.widths.get(frame.about)
        if width is None:
            problem = ("about-unknown", f"the about document {frame.about:08x} has not been heard")
        elif frame.first + len(frame.columns) > width:
            problem = (
                "column-unknown",
                f"columns {frame.first} to {frame.first + len(frame.columns) - 1} of a document with {width} datastreams",
            )
        elif not frame.dated:
            problem = ("undated", "the boot that took these readings never learnt the time")
        self._enter(node, self._boot(node, frame.boot), frame.seq, message, frame, problem)

    def _enter(
        self,
        node: Node,
        boot: Boot,
        seq: int,
        message: Message,
        frame: wire.Frame | None,
        problem: tuple[str, str] | None,
    ) -> None:
        """Enter a frame into the ledger, unless it is there, and hand it to the sinks or to the dead letters."""
        self._receipt.touch(node, boot)
        if node.hear(boot):
            self._changed.add(boot)
        code = problem[0] if problem else None
        taken, readings = (frame.taken, frame.readings) if frame else (None, None)
        if boot.received(seq) is not False:
            self._flush()
            known = self._db.execute(
                "SELECT refused FROM frames WHERE boot=? AND seq=?", (boot.id, seq)
            ).fetchone()
            if known is not None:
                if known[0] is None or problem is not None:
                    self._receipt.duplicates += 1
                    return
                # It was refused, and this time it can be read: it takes the dead letter's place.
                self._db.execute("DELETE FROM frames WHERE boot=? AND seq=?", (boot.id, seq))
                self._db.execute("DELETE FROM dead_letters WHERE boot=? AND seq=?", (boot.id, seq))
        self._frames.append((boot.id, seq, taken, readings, message.received, code))
        boot.add(seq)
        self._changed.add(boot)
        if problem is not None:
            self._bury(message, *problem, node, boot, seq, frame)
        elif frame is not None and readings:
            self._spool(node, frame.about, boot.id, seq, readings, message.received, message.payload)

    def _take_about(self, node: Node, message: Message) -> None:
        revision = wire.about_revision(message.payload)
        if revision == node.revision:
            return
        if not message.payload:
            return  # the retained document was deleted: what is known of the node stays
        try:
            about = wire.decode_about(message.payload)
        except wire.WireError as error:
            self._bury(message, error.code, error.message, node)
            return
        node.revision = revision
        if revision not in node.widths:
            node.widths[revision] = len(about.datastreams)
            self._db.execute(
                "INSERT INTO abouts VALUES (?, ?, ?, ?)",
                (node.id, revision, message.payload, message.received),
            )
        self._db.execute("UPDATE nodes SET revision=? WHERE id=?", (revision, node.id))
        self._spool(node, revision, None, None, 0, message.received, None)
        self._replay(node, revision)

    def _replay(self, node: Node, revision: int) -> None:
        """Hand on the frames that waited for this about document."""
        self._flush()
        waiting = self._db.execute(
            "SELECT id, boot, seq, topic, payload, received FROM dead_letters"
            " WHERE code='about-unknown' AND node=? AND revision=? ORDER BY id",
            (node.id, revision),
        ).fetchall()
        for letter, boot_id, seq, topic, payload, received in waiting:
            self._db.execute("DELETE FROM dead_letters WHERE id=?", (letter,))
            self._db.execute("DELETE FROM frames WHERE boot=? AND seq=?", (boot_id, seq))
            # The ledger's row is gone, so this enters the frame anew, whatever comes of it this time.
            self._take_frame(node, Message(topic, payload, received))

    def _take_status(self, node: Node, message: Message) -> None:
        if not message.payload:
            return
        try:
            status = wire.decode_status(message.payload)
        except wire.WireError as error:
            self._bury(message, error.code, error.message, node)
            return
        self._db.execute(
            "UPDATE nodes SET state=?, boot=coalesce(?, boot), pending=coalesce(?, pending), dropped=coalesce(?, dropped),"
            " cuts=coalesce(?, cuts), at_risk=coalesce(?, at_risk), status_at=? WHERE id=?",
            (
                status.state,
                status.boot,
                status.pending,
                status.dropped,
                status.cuts,
                status.at_risk,
                message.received,
                node.id,
            ),
        )
        for drop in status.drops or ():
            boot = self._boot(node, drop.boot)
            if boot.drop(drop.first, drop.last):
                self._changed.add(boot)
                self._receipt.touch(node, boot)
                self._db.execute(
                    "INSERT INTO drops VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET last=excluded.last, readings=excluded.readings",
                    (boot.id, drop.first, drop.last, drop.readings),
                )
        if status.boot is None:
            return
        boot = self._boot(node, status.boot)
        if node.hear(boot):
            self._changed.add(boot)
        self._db.execute(
            "UPDATE boots SET seq=max(coalesce(seq, 0), coalesce(?, 0)), taken=max(coalesce(taken, 0), coalesce(?, 0)),"
            " refused=coalesce(?, refused), faults=coalesce(?, faults), uptime=coalesce(?, uptime), reset=coalesce(?, reset) WHERE id=?",
            (
                status.seq,
                status.taken,
                status.refused,
                None if status.faults is None else json.dumps(status.faults),
                status.uptime,
                status.reset,
                boot.id,
            ),
        )
        if status.pending:
            # It waits for a mark, and may have missed the last: a broker that restarted keeps no retained message.
            self._receipt.touch(node, boot)
            for other in sorted(node.boots.values(), key=lambda boot: boot.heard)[-MARKED_BOOTS:]:
                self._receipt.touch(node, other)

    # Rows

    def _spool(self, node: Node, revision: int, *rest: Any) -> None:
        self._rows.append((node.id, revision, *rest))
        self._receipt.spooled += 1

    def _flush(self) -> None:
        if self._frames:
            self._db.executemany("INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?)", self._frames)
            self._frames.clear()
        if self._rows:
            self._db.executemany(
                "INSERT INTO spool (node, revision, boot, seq, readings, received, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
                self._rows,
            )
            self._rows.clear()

    def _bury(
        self,
        message: Message,
        code: str,
        reason: str,
        node: Node | None = None,
        boot: Boot | None = None,
        seq: int | None = None,
        frame: wire.Frame | None = None,
    ) -> None:
        """Keep a message that can't be used, with the reason."""
        topic = message.topic.encode("utf-8", "replace")
        digest = hashlib.blake2b(
            len(topic).to_bytes(4, "big") + topic + message.payload, digest_size=16
        ).digest()
        self._db.execute(
            "INSERT INTO dead_letters (topic, payload, code, reason, received, node, boot, seq, revision, readings, digest)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET times=times+1, received=excluded.received",
            (
                topic.decode(),
                message.payload,
                code,
                reason,
                message.received,
                node.id if node else None,
                boot.id if boot else None,
                seq,
                frame.about if frame else None,
                frame.readings if frame else None,
                digest,
            ),
        )
        self._receipt.dead_letters += 1
        self._receipt.last_reason = f"{code} on {message.topic}: {reason}"

    # Memory

    def _node(self, tenant: str, name: str) -> Node:
        found = self._nodes.get((tenant, name))
        if found is not None:
            return found
        row = self._db.execute(
            "SELECT id, revision FROM nodes WHERE tenant=? AND node=?", (tenant, name)
        ).fetchone()
        if row is None:
            inserted = self._db.execute("INSERT INTO nodes (tenant, node) VALUES (?, ?)", (tenant, name))
            row = (inserted.lastrowid, None)
        node = Node(row[0], tenant, name, row[1])
        for revision, payload in self._db.execute(
            "SELECT revision, payload FROM abouts WHERE node=?", (node.id,)
        ):
            node.widths[revision] = len(wire.decode_about(payload).datastreams)
        (node.heard,) = self._db.execute(
            "SELECT coalesce(max(heard), 0) FROM boots WHERE node=?", (node.id,)
        ).fetchone()
        for (boot,) in self._db.execute(
            "SELECT boot FROM boots WHERE node=? ORDER BY heard DESC LIMIT ?", (node.id, MARKED_BOOTS)
        ).fetchall():
            self._boot(node, boot)
        self._nodes[tenant, name] = node
        return node

    def _boot(self, node: Node, name: bytes) -> Boot:
        found = node.boots.get(name)
        if found is not None:
            return found
        row = self._db.execute(
            "SELECT id, heard, high FROM boots WHERE node=? AND boot=?", (node.id, name)
        ).fetchone()
        if row is None:
            node.heard += 1
            inserted = self._db.execute(
                "INSERT INTO boots (node, boot, heard, high) VALUES (?, ?, ?, -1)",
                (node.id, name, node.heard),
            )
            boot = Boot(inserted.lastrowid or 0, name, node.heard)
        else:
            boot = Boot(row[0], name, row[1], row[2])
            boot.beyond = {
                seq
                for (seq,) in self._db.execute(
                    "SELECT seq FROM frames WHERE boot=? AND seq>?", (boot.id, boot.high)
                )
            }
            boot.runs = dict(self._db.execute("SELECT first, last FROM drops WHERE boot=?", (boot.id,)))
        node.boots[name] = boot
        return boot

    def nodes(self) -> list[Node]:
        """Every node ever heard of."""
        rows = self._db.execute("SELECT tenant, node FROM nodes ORDER BY id").fetchall()
        return [self._node(tenant, name) for tenant, name in rows]

    # Sinks, pruning, facts

    def register_sinks(self, cursors: dict[str, int]) -> None:
        """Say which sinks there are, and how far each has come; one that is no longer named holds nothing back any more."""
        with self._transaction():
            known = {name for (name,) in self._db.execute("SELECT name FROM sinks")}
            for gone in known - set(cursors):
                log.warning(
                    "the sink %s is no longer configured: what it had not delivered is not kept for it", gone
                )
                self._db.execute("DELETE FROM sinks WHERE name=?", (gone,))
            self._db.executemany(
                "INSERT INTO sinks VALUES (?, ?) ON CONFLICT DO UPDATE SET cursor=excluded.cursor",
                cursors.items(),
            )

    def prune(self, cursors: dict[str, int]) -> int:
        """Remove rows that every sink is past, at most `PRUNE_ROWS`; the number removed."""
        with self._transaction():
            self._db.executemany(
                "UPDATE sinks SET cursor=? WHERE name=?", [(c, n) for n, c in cursors.items()]
            )
            (floor,) = self._db.execute("SELECT coalesce(min(cursor), 0) FROM sinks").fetchone()
            removed = self._db.execute(
                "DELETE FROM spool WHERE id IN (SELECT id FROM spool WHERE id<=? ORDER BY id LIMIT ?)",
                (floor, PRUNE_ROWS),
            ).rowcount
            (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
            if removed < PRUNE_ROWS and free > 4 * FREE_PAGES:
                self._db.execute(f"PRAGMA incremental_vacuum({FREE_PAGES})").fetchall()
        return int(removed)

    def note(self, name: str, value: dict[str, Any]) -> None:
        """Keep a fact for `lamppost bridge status`."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO facts VALUES (?, ?) ON CONFLICT DO UPDATE SET value=excluded.value",
                (name, json.dumps(value | {"at": int(time.time() * 1000)})),
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A small transaction of housekeeping; SpoolError when the disk won't take it."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise SpoolError(f"can't write to the spool {self.path}: {error}") from error

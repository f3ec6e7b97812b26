"""What nodes say they took against what the platform holds, by node, boot and frame; every gap named.

For each boot the node itself says how many readings it put in its journal before each frame (`taken` in `obs`) and in all (`taken` in `status`). The
bridge's ledger has a row for each frame that came. What lies between is named: dropped by the node, refused with a reason, still in the spool,
still in the node's journal, or missing.

`Audit.document()`, which is also what `lamppost audit --json` prints:

    {"platform": URL, "complete": whether every reading taken is stored once, "exit_code": 0 | 1 | 3,
     "sampled", "stored", "pending", "lost", "duplicates", "dropped", "refused", "dead_letters", "missing", "unknown": readings, over all nodes,
     "nodes": [{"node": "tenant/node", "state": "online" | "stopped" | "lost" | null, "boots": number, "at_risk": readings | null,
                the same ten counts,
                "gaps": [{"boot": hexadecimal, "first": seq | null, "last": seq | null, "readings": number, "why", "reason"}]}]}

sampled = stored + pending + lost, and lost = dropped + refused + dead_letters + missing. `why` is one of
    dropped      the node's journal was full, and it let unconfirmed frames go
    refused      the node's journal could not take the readings (they have no seq)
    dead-letter  the host or the platform refused the frame or rows of it; the reason begins with its code
    spooled      on the bridge's disk, not yet at the platform
    on-its-way   in the node's journal, not yet received
    missing      none of these: lost without a reason
`duplicates`: readings that stand at the platform again. `unknown`: readings at the platform that no frame in the ledger accounts for.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from lamppost_host.bridge.database import open_for_reading
from lamppost_host.bridge.holdings import Held, Holdings, SensorThingsHoldings
from lamppost_host.bridge.locate import platform_url
from lamppost_host.bridge.report import open_spool
from lamppost_host.bridge.sinks.sta_client import Access
from lamppost_host.bridge.supervisor import store_path
from lamppost_host.home import Home

DROPPED: Final = "dropped"
REFUSED: Final = "refused"
DEAD_LETTER: Final = "dead-letter"
SPOOLED: Final = "spooled"
ON_ITS_WAY: Final = "on-its-way"
MISSING: Final = "missing"

COMPLETE, INCOMPLETE, PENDING = 0, 1, 3
"""Exit codes: every reading taken is stored; something is lost, doubled or unexplained; nothing is, but something is still on its way."""


@dataclass(slots=True)
class Gap:
    """Frames `first` to `last` of a boot (hexadecimal) of which `readings` are not at the platform, and why."""

    boot: str
    first: int | None
    last: int | None
    readings: int
    why: str
    reason: str


@dataclass(slots=True)
class Counts:
    """Readings, each counted once."""

    sampled: int = 0
    stored: int = 0
    pending: int = 0
    lost: int = 0
    duplicates: int = 0
    dropped: int = 0
    refused: int = 0
    dead_letters: int = 0
    missing: int = 0
    unknown: int = 0

    @property
    def exit_code(self) -> int:
        """0, 1 or 3, as in the module's docstring."""
        if self.lost or self.duplicates or self.unknown:
            return INCOMPLETE
        return PENDING if self.pending else COMPLETE


@dataclass(slots=True)
class NodeAudit:
    """One node."""

    node: str
    state: str | None
    boots: int
    at_risk: int | None
    counts: Counts
    gaps: list[Gap]


@dataclass(slots=True)
class Audit(Counts):
    """The counts over all nodes that were asked for, and each node's own."""

    platform: str = ""
    nodes: list[NodeAudit] = field(default_factory=list)

    @classmethod
    def of(cls, platform: str, nodes: list[NodeAudit]) -> "Audit":
        """Sum up."""
        total: Counter[str] = Counter()
        for node in nodes:
            total.update(asdict(node.counts))
        return cls(platform=platform, nodes=nodes, **total)

    def document(self) -> dict[str, Any]:
        """As JSON; see the module's docstring."""
        head = {
            "platform": self.platform,
            "complete": self.exit_code == COMPLETE,
            "exit_code": self.exit_code,
        }
        document = asdict(self)
        for node in document["nodes"]:
            node |= node.pop("counts")
        return head | document


@dataclass(slots=True)
class _Frame:
    seq: int
    taken: int | None
    readings: int | None
    refused: str | None


@dataclass(slots=True)
class _Boot:
    boot: str
    seq: int | None
    taken: int | None
    refused: int
    frames: list[_Frame] = field(default_factory=list)
    runs: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass(slots=True)
class _Ledger:
    """What the bridge knows of one node."""

    node: str
    state: str | None
    boot: str | None
    pending: int | None
    dropped: int
    at_risk: int | None
    boots: list[_Boot]
    spooled: set[tuple[str, int]]


def audit(
    home: Home,
    *,
    platform: str | None = None,
    node: str | None = None,
    sink: str = "sensorthings",
    holdings: Holdings | None = None,
) -> Audit:
    """Audit the bridge of `home` against the SensorThings service at the URL `platform`, by default the one of the same home.

    May run while everything else does: what moves meanwhile shows as pending or as stored, never as missing. `node` (tenant/node): only
    that one. LamppostError when no bridge has run or the platform can't be asked.
    """
    # In this order: what the sink delivers while we look is found at the platform; what comes in while we look is not expected there.
    folder = home.bridge
    platform = platform or platform_url(home)
    cursor = _cursor(folder, sink)
    with closing(open_spool(folder)) as db:
        db.execute("BEGIN")
        identity = db.execute("SELECT value FROM facts WHERE name='identity'").fetchone()[0]
        ledgers = list(_ledgers(db, cursor[1] if cursor[0] == identity else 0, node))
        db.execute("COMMIT")
        asked = holdings or SensorThingsHoldings(Access(platform))
        audits = []
        if not ledgers:
            asked.of("")  # it must answer, also where nothing is expected of it
        for ledger in ledgers:
            held = asked.of(ledger.node)
            audits.append(_audit_node(db, ledger, held, _refused_by_sink(folder, sink, ledger.node)))
        return Audit.of(platform, audits)


def _cursor(folder: Path, sink: str) -> tuple[str | None, int]:
    try:
        with closing(open_for_reading(store_path(folder, sink))) as store:
            spool, cursor = store.execute("SELECT spool, cursor FROM progress").fetchone()
            return spool, int(cursor)
    except sqlite3.DatabaseError:
        return None, 0


def _refused_by_sink(folder: Path, sink: str, node: str) -> dict[tuple[str, int], tuple[int, str]]:
    """(boot, seq) to the readings that the platform refused, and why."""
    try:
        with closing(open_for_reading(store_path(folder, sink))) as store:
            rows = store.execute(
                "SELECT boot, seq, sum(readings), max(code || ': ' || reason) FROM dead_letters WHERE node=? GROUP BY boot, seq",
                (node,),
            ).fetchall()
    except sqlite3.DatabaseError:
        return {}
    return {(boot, seq): (readings, reason) for boot, seq, readings, reason in rows}


def _ledgers(db: sqlite3.Connection, cursor: int, only: str | None) -> Iterable[_Ledger]:
    rows = db.execute(
        "SELECT id, tenant || '/' || node, state, lower(hex(boot)), pending, coalesce(dropped, 0), at_risk FROM nodes"
        " WHERE ?1 IS NULL OR tenant || '/' || node = ?1 ORDER BY tenant, node",
        (only,),
    ).fetchall()
    for number, name, state, boot, pending, dropped, at_risk in rows:
        boots: dict[int, _Boot] = {}
        for boot_id, boot_name, seq, taken, refused in db.execute(
            "SELECT id, lower(hex(boot)), seq, taken, coalesce(refused, 0) FROM boots WHERE node=? ORDER BY id",
            (number,),
        ):
            boots[boot_id] = _Boot(boot_name, seq, taken, refused)
        for boot_id, known in boots.items():
            known.frames = [
                _Frame(*row)
                for row in db.execute(
                    "SELECT seq, taken, readings, refused FROM frames WHERE boot=? ORDER BY seq", (boot_id,)
                )
            ]
            known.runs = db.execute(
                "SELECT first, last, readings FROM drops WHERE boot=? ORDER BY first", (boot_id,)
            ).fetchall()
        spooled = {
            (boots[boot_id].boot, seq)
            for boot_id, seq in db.execute(
                "SELECT boot, seq FROM spool WHERE id>? AND node=? AND boot IS NOT NULL", (cursor, number)
            )
        }
        yield _Ledger(name, state, boot, pending, dropped, at_risk, list(boots.values()), spooled)


def _audit_node(
    db: sqlite3.Connection,
    ledger: _Ledger,
    held: Held,
    refused_by_sink: dict[tuple[str, int], tuple[int, str]],
) -> NodeAudit:
    stored = 0
    sampled = 0
    gaps: list[Gap] = []
    known: set[tuple[str, int]] = set()
    for boot in ledger.boots:
        walk = _BootWalk(ledger, boot, held, refused_by_sink)
        walk.run()
        known |= walk.known
        stored += walk.stored
        sampled += walk.sampled
        gaps += walk.gaps
    _explain_by_unlisted_drops(ledger, gaps)
    counts = Counts(sampled=sampled, stored=stored, duplicates=held.duplicates)
    by_why: Counter[str] = Counter()
    for gap in gaps:
        by_why[gap.why] += gap.readings
    counts.dropped, counts.refused = by_why[DROPPED], by_why[REFUSED]
    counts.dead_letters, counts.missing = by_why[DEAD_LETTER], by_why[MISSING]
    counts.pending = by_why[SPOOLED] + by_why[ON_ITS_WAY]
    counts.lost = counts.dropped + counts.refused + counts.dead_letters + counts.missing
    counts.unknown = sum(
        number
        for frame, number in held.frames.items()
        if frame not in known and not _came_since(db, ledger.node, frame)
    )
    return NodeAudit(ledger.node, ledger.state, len(ledger.boots), ledger.at_risk, counts, gaps)


def _came_since(db: sqlite3.Connection, node: str, frame: tuple[str, int]) -> bool:
    """Whether the ledger has the frame now: it came while the platform was being asked."""
    tenant, _, name = node.partition("/")
    row = db.execute(
        "SELECT 1 FROM frames JOIN boots ON boots.id=frames.boot JOIN nodes ON nodes.id=boots.node"
        " WHERE tenant=? AND nodes.node=? AND boots.boot=? AND frames.seq=?",
        (tenant, name, _bytes(frame[0]), frame[1]),
    ).fetchone()
    return row is not None


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


class _BootWalk:
    """Goes through one boot's frames in order, and names what is not at the platform."""

    def __init__(
        self,
        ledger: _Ledger,
        boot: _Boot,
        held: Held,
        refused_by_sink: dict[tuple[str, int], tuple[int, str]],
    ) -> None:
        self._ledger = ledger
        self._boot = boot
        self._held = held
        self._refused_by_sink = refused_by_sink
        self.gaps: list[Gap] = []
        self.stored = 0
        self.sampled = 0
        self.known: set[tuple[str, int]] = set()

    def run(self) -> None:
        """Fill `gaps`, `stored`, `sampled`, `known`."""
        boot = self._boot
        taken = 0
        following = 0
        for frame in boot.frames:
            if frame.taken is None or frame.readings is None:
                continue
            self._stretch(following, frame.seq - 1, frame.taken - taken)
            self._frame(frame.seq, frame.readings, frame.refused)
            taken, following = frame.taken + frame.readings, frame.seq + 1
        ends = [boot.seq or 0, following]
        ends += [frame.seq + 1 for frame in boot.frames if frame.readings is None]
        ends += [last + 1 for _, last, _ in boot.runs]
        self._stretch(following, max(ends) - 1, None if boot.taken is None else boot.taken - taken)
        if boot.refused:
            self._gap(None, None, boot.refused, REFUSED, "the node's journal could not take them")
        self.sampled = self.stored + sum(gap.readings for gap in self.gaps)

    def _frame(self, seq: int, readings: int, refused: str | None) -> None:
        """One frame that came and could be read."""
        name = (self._boot.boot, seq)
        self.known.add(name)
        there = min(self._held.frames.get(name, 0), readings)
        self.stored += there
        lacking = readings - there
        if not lacking:
            return
        if refused is not None:
            self._gap(seq, seq, lacking, DEAD_LETTER, refused)
            return
        number, reason = self._refused_by_sink.get(name, (0, ""))
        if number:
            self._gap(seq, seq, min(number, lacking), DEAD_LETTER, reason)
            lacking -= min(number, lacking)
        if lacking and name in self._ledger.spooled:
            self._gap(seq, seq, lacking, SPOOLED, "on the bridge's disk, not yet delivered")
        elif lacking:
            self._gap(
                seq, seq, lacking, MISSING, "the bridge delivered it, and the platform does not have it"
            )

    def _stretch(self, first: int, last: int, readings: int | None) -> None:
        """Frames between two that tell how many readings came before them: `readings` in all, None where nobody says."""
        pieces = self._pieces(first, last)
        left = None if readings is None else max(0, readings)
        if not pieces:
            if left:
                self._gap(None, None, left, MISSING, "the node counts readings for which it has no frame")
            return
        sizes = [size for _, _, _, _, size in pieces]
        if left is not None:
            # What the node says of a run is right unless some of its frames came after all. The rest belongs to the others.
            open_pieces = [i for i, size in enumerate(sizes) if size is None] or [len(sizes) - 1]
            rest = left - sum(size or 0 for i, size in enumerate(sizes) if i not in open_pieces)
            for i in open_pieces:
                sizes[i] = 0
            sizes[open_pieces[0]] = max(0, rest)
            if rest < 0 and len(pieces) > 1:
                sizes = [0] * len(sizes)
                sizes[0] = left
        for (begin, end, why, reason, _), size in zip(pieces, sizes, strict=True):
            self._gap(begin, end, size or 0, why, reason)

    def _pieces(self, first: int, last: int) -> list[tuple[int, int, str, str, int | None]]:
        """(first, last, why, reason, readings where known) of the frames in a stretch, in order."""
        cuts: list[tuple[int, int, str, str, int | None]] = []
        for begin, end, readings in self._boot.runs:
            low, high = max(begin, first), min(end, last)
            if low <= high:
                size = readings if (low, high) == (begin, end) else None
                cuts.append((low, high, DROPPED, "the node's journal was full", size))
        for frame in self._boot.frames:
            if frame.readings is None and first <= frame.seq <= last:
                self.known.add((self._boot.boot, frame.seq))
                cuts.append((frame.seq, frame.seq, DEAD_LETTER, frame.refused or "", None))
        pieces: list[tuple[int, int, str, str, int | None]] = []
        following = first
        for cut in sorted(cuts):
            if cut[0] > following:
                pieces.append((following, cut[0] - 1, *self._absent(cut[0] - 1), None))
            if cut[1] >= following:
                pieces.append((max(cut[0], following), *cut[1:]))
                following = cut[1] + 1
        if following <= last:
            pieces.append((following, last, *self._absent(last), None))
        return pieces

    def _absent(self, last: int) -> tuple[str, str]:
        """Why frames up to `last` did not come, and are not said to be dropped."""
        ledger = self._ledger
        settled = self._boot.boot != ledger.boot or last < (self._boot.seq or 0)
        if ledger.pending == 0 and settled:
            return MISSING, "the node has nothing left to send, and it never came"
        return ON_ITS_WAY, "in the node's journal, not yet received"

    def _gap(self, first: int | None, last: int | None, readings: int, why: str, reason: str) -> None:
        previous = self.gaps[-1] if self.gaps else None
        if (
            previous is not None
            and first is not None
            and previous.last == first - 1
            and (previous.why, previous.reason) == (why, reason)
        ):
            previous.last = last
            previous.readings += readings
        else:
            self.gaps.append(Gap(self._boot.boot, first, last, readings, why, reason))


def _explain_by_unlisted_drops(ledger: _Ledger, gaps: list[Gap]) -> None:
    """A node lists its last 16 runs of dropped frames and counts them all: what is missing may lie in an older run."""
    listed = sum(readings for boot in ledger.boots for _, _, readings in boot.runs)
    unlisted = ledger.dropped - listed
    for gap in gaps:
        if gap.why == MISSING and gap.first is not None and 0 < gap.readings <= unlisted:
            unlisted -= gap.readings
            gap.why, gap.reason = DROPPED, "the node's journal was full (counted, but no longer listed)"


def lines(found: Audit) -> list[str]:
    """The audit for people."""
    said = []
    for node in found.nodes:
        c = node.counts
        said.append(
            f"{node.node}: sampled {c.sampled}, stored {c.stored}, pending {c.pending}, lost {c.lost}, duplicates {c.duplicates}"
        )
        by_boot: defaultdict[str, list[Gap]] = defaultdict(list)
        for gap in node.gaps:
            by_boot[gap.boot].append(gap)
        for boot, gaps in by_boot.items():
            for gap in gaps:
                frames = "" if gap.first is None else f" frames {gap.first} to {gap.last}:"
                said.append(f"    boot {boot}{frames} {gap.readings} readings {gap.why}: {gap.reason}")
        if c.unknown:
            said.append(f"    {c.unknown} readings at the platform that the bridge knows nothing of")
    said.append(
        f"in all: sampled {found.sampled}, stored {found.stored}, pending {found.pending}, lost {found.lost},"
        f" duplicates {found.duplicates}"
    )
    return said

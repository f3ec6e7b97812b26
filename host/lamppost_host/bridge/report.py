"""What `lamppost bridge status` and `dead-letters` show: read from the bridge's files, whether it runs or not."""

import fcntl
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from lamppost_host.bridge.database import open_for_reading
from lamppost_host.bridge.supervisor import spool_path, store_path
from lamppost_host.errors import LamppostError


def open_spool(folder: Path) -> sqlite3.Connection:
    """The spool, for reading; LamppostError when no bridge has run here."""
    path = spool_path(folder)
    if not path.exists():
        raise LamppostError(
            f"no bridge has run in {folder}", "Start one with `lamppost bridge`, or name its --home."
        )
    try:
        db = open_for_reading(path)
        db.execute("SELECT count(*) FROM nodes").fetchone()
    except sqlite3.DatabaseError as error:
        raise LamppostError(f"can't read {path}: {error}") from error
    return db


def running(folder: Path) -> bool:
    """Whether a bridge works in this folder now."""
    try:
        with (folder / "bridge.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def status(folder: Path) -> dict[str, Any]:
    """`running`; `broker` (state, reason, at); `nodes`, `frames`, `readings` taken in; `refused_frames`; `dead_letters` {code: number};
    `faults` {tenant/node: {key of a sensor's first Datastream: failed reads in the node's last boot}}; `spool_rows`;
    `sinks` {name: {state, cursor, lag_rows, lag_readings, lag_seconds, delivered, dead_letters {code: readings}, error, error_at}}.

    `at` and `error_at` are Unix milliseconds.
    """
    with closing(open_spool(folder)) as db:
        db.execute("BEGIN")  # one view of everything
        facts = dict(db.execute("SELECT name, value FROM facts"))
        frames, readings, refused = db.execute(
            "SELECT count(*), coalesce(sum(readings), 0), count(refused) FROM frames"
        ).fetchone()
        found: dict[str, Any] = {
            "running": running(folder),
            "broker": json.loads(facts.get("broker", "null")),
            "nodes": db.execute("SELECT count(*) FROM nodes").fetchone()[0],
            "frames": frames,
            "readings": readings,
            "refused_frames": refused,
            "dead_letters": dict(db.execute("SELECT code, count(*) FROM dead_letters GROUP BY code")),
            "faults": {
                node: counts
                for node, text in db.execute(
                    "SELECT nodes.tenant || '/' || nodes.node, boots.faults FROM nodes"
                    " JOIN boots ON boots.node=nodes.id AND boots.boot=nodes.boot WHERE boots.faults IS NOT NULL ORDER BY 1"
                )
                if (counts := json.loads(text))
            },
            "spool_rows": db.execute("SELECT count(*) FROM spool").fetchone()[0],
            "sinks": {},
        }
        for (name,) in db.execute("SELECT name FROM sinks ORDER BY name").fetchall():
            found["sinks"][name] = _sink_status(folder, name, db, facts["identity"])
        return found


def _sink_status(folder: Path, name: str, db: sqlite3.Connection, identity: str) -> dict[str, Any]:
    state, cursor, delivered, error, error_at = "not started", 0, 0, None, None
    refused: dict[str, int] = {}
    try:
        with closing(open_for_reading(store_path(folder, name))) as store:
            spool, cursor, delivered, state, error, error_at = store.execute(
                "SELECT spool, cursor, delivered, state, error, error_at FROM progress"
            ).fetchone()
            cursor = cursor if spool == identity else 0
            refused = dict(store.execute("SELECT code, sum(readings) FROM dead_letters GROUP BY code"))
    except sqlite3.DatabaseError as problem:
        error = error or f"its file can't be read: {problem}"
    rows, readings, oldest = db.execute(
        "SELECT count(*), coalesce(sum(readings), 0), min(received) FROM spool WHERE id>?", (cursor,)
    ).fetchone()
    return {
        "state": state,
        "cursor": cursor,
        "lag_rows": rows,
        "lag_readings": readings,
        "lag_seconds": 0.0 if oldest is None else max(0.0, time.time() - oldest / 1000),
        "delivered": delivered,
        "dead_letters": refused,
        "error": error,
        "error_at": error_at,
    }


def status_lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    broker = found["broker"] or {"state": "never connected", "reason": ""}
    state = broker["state"] if found["running"] else "bridge not running"
    lines = [
        f"broker      {state}" + (f": {broker['reason']}" if broker["reason"] and found["running"] else ""),
        f"taken in    {found['readings']} readings in {found['frames']} frames of {found['nodes']} nodes",
        f"refused     {found['refused_frames']} frames; dead letters: {_counts(found['dead_letters'])}",
    ]
    lines += [f"faults      {node}: {_counts(counts)}" for node, counts in found["faults"].items()]
    for name, sink in found["sinks"].items():
        lag = f"{sink['lag_readings']} readings behind"
        lag += f", {sink['lag_seconds']:.1f} s" if sink["lag_rows"] else ""
        lines.append(f"sink {name}: {sink['state']}, {sink['delivered']} readings delivered, {lag}")
        if sink["dead_letters"]:
            lines.append(f"    dead letters (readings): {_counts(sink['dead_letters'])}")
        if sink["error"]:
            lines.append(f"    last error, {_ago(sink['error_at'])}: {sink['error']}")
    return lines


def dead_letters(folder: Path, limit: int) -> list[dict[str, Any]]:
    """The newest dead letters of the intake (`where` "intake") and of each sink (its name).

    Each: `where`, `node`, `code`, `reason`, `at` (Unix ms), `boot` (hexadecimal), `seq`, `readings`; of the intake also `topic`, `payload` (hexadecimal)
    and `times`; of a sink `datastream` and `observations`.
    """
    found: list[dict[str, Any]] = []
    with closing(open_spool(folder)) as db:
        rows = db.execute(
            "SELECT tenant || '/' || nodes.node, code, reason, dead_letters.received, hex(boots.boot), dead_letters.seq, readings,"
            " topic, payload, times FROM dead_letters LEFT JOIN nodes ON nodes.id=dead_letters.node"
            " LEFT JOIN boots ON boots.id=dead_letters.boot ORDER BY dead_letters.id DESC LIMIT ?",
            (limit,),
        )
        for node, code, reason, at, boot, seq, readings, topic, payload, times in rows:
            entry = {"where": "intake", "node": node, "code": code, "reason": reason, "at": at}
            entry |= {"boot": (boot or "").lower() or None, "seq": seq, "readings": readings}
            found.append(entry | {"topic": topic, "payload": payload.hex(), "times": times})
        sinks = [name for (name,) in db.execute("SELECT name FROM sinks ORDER BY name")]
    for name in sinks:
        try:
            with closing(open_for_reading(store_path(folder, name))) as store:
                rows = store.execute(
                    "SELECT node, code, reason, at, boot, seq, readings, datastream, observations FROM dead_letters ORDER BY id DESC LIMIT ?",
                    (limit,),
                )
                keys = ("node", "code", "reason", "at", "boot", "seq", "readings", "datastream")
                found += [
                    {"where": name}
                    | dict(zip(keys, row[:-1], strict=True))
                    | {"observations": json.loads(row[-1])}
                    for row in rows
                ]
        except sqlite3.DatabaseError:
            continue
    found.sort(key=lambda entry: -entry["at"])
    return found[:limit]


def dead_letter_lines(found: list[dict[str, Any]]) -> list[str]:
    """The same for people."""
    lines = []
    for entry in found:
        where = entry["node"] or entry.get("topic", "")
        if entry.get("datastream"):
            where += "/" + entry["datastream"]
        frame = f" boot {entry['boot']} frame {entry['seq']}" if entry["boot"] else ""
        lines.append(
            f"{_ago(entry['at'])}  {entry['where']}  {where}{frame}  {entry['code']}: {entry['reason']}"
        )
    return lines or ["no dead letters"]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {code}" for code, number in sorted(counts.items())) or "none"


def _ago(at: int | None) -> str:
    if at is None:
        return "at an unknown time"
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at / 1000))

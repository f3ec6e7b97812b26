"""SQLite files with a versioned schema: numbered scripts beside the code, applied in order, each in one transaction."""

import os
import re
import sqlite3
from importlib import resources
from pathlib import Path

from lamppost_host.errors import LamppostError

BUSY_SECONDS = 1.0
"""How long a statement waits for another process's lock; short, because the intake has a connection to keep alive meanwhile."""


class SchemaError(LamppostError):
    """A file whose schema this version does not know."""


def scripts(name: str) -> list[str]:
    """The migrations `schema/<name>_v1.sql`, `_v2.sql`, …: item i brings version i to version i + 1."""
    folder = resources.files("lamppost_host.bridge") / "schema"
    pattern = re.compile(re.escape(name) + r"_v([0-9]+)\.sql\Z")
    found = {int(match[1]): file for file in folder.iterdir() if (match := pattern.match(file.name))}
    return [found[number].read_text(encoding="utf-8") for number in range(1, len(found) + 1)]


def open_database(path: Path, name: str, *, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open the file for writing, made or migrated to the newest schema `name`; in autocommit: transactions are the caller's.

    `synchronous` FULL: a commit survives a power cut. NORMAL: it survives a kill, and a power cut may undo the last ones.
    """
    if not path.exists():
        # The spool holds readings of a city's nodes: for the owner's eyes, like the credentials beside it.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=OFF")  # the writers keep them; a check a row costs a look-up
        _migrate(connection, path, scripts(name))
    except sqlite3.DatabaseError as error:
        connection.close()
        raise LamppostError(
            f"can't open {path}: {error}",
            "Is the disk full, or the file damaged or in use by another program?",
        ) from error
    except LamppostError:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open an existing file without the right to change it; sqlite3.OperationalError when it is not there."""
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS, isolation_level=None
    )


def _migrate(connection: sqlite3.Connection, path: Path, steps: list[str]) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise SchemaError(
            f"{path} is of schema version {version}; this Lamppost knows {len(steps)}",
            "A newer Lamppost wrote it: use that one.",
        )
    for number in range(version, len(steps)):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{steps[number]}\nPRAGMA user_version={number + 1};\nCOMMIT;"
        )

"""The SQLite file: opening, migrations, one connection that writes and several that read."""

import fcntl
import os
import queue
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from lamppost_host.errors import LamppostError
from lamppost_host.platform.errors import Unavailable

VERSION = 1
_BUSY_MS = 2_000
# A query that takes longer is abandoned: it would hold one of few readers.
_QUERY_SECONDS = 60.0
_STEPS_BETWEEN_CHECKS = 200_000


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    uri = path.absolute().as_uri() + ("?mode=ro" if read_only else "?mode=rwc")
    connection = sqlite3.connect(
        uri,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        timeout=_BUSY_MS / 1000,
    )
    connection.execute("PRAGMA temp_store = memory")
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema to VERSION, one numbered script after the other, each whole or not at all."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise LamppostError(
            f"{path} was written by a newer Lamppost (schema {version}; this one knows {VERSION})",
            "Upgrade Lamppost, or name another folder with --home.",
        )
    for number in range(version + 1, VERSION + 1):
        script = resources.files(__package__).joinpath(f"schema/v{number}.sql").read_text(encoding="utf-8")
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")


class Lock:
    """Held by the one process that writes to a folder; the system lets go of it when the process ends, however it does."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise LamppostError(
                f"another platform is running on {path.parent}",
                "Stop it, or name another folder with --home.",
            ) from error

    def release(self) -> None:
        os.close(self._descriptor)


def open_writer(path: Path) -> sqlite3.Connection:
    """The connection that writes; makes the file and brings it to this version's schema. LamppostError where that can't be."""
    try:
        connection = _connect(path, read_only=False)
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("PRAGMA journal_mode = wal")
        # FULL: what was answered is on the disk, and stays through a power cut.
        connection.execute("PRAGMA synchronous = full")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("PRAGMA secure_delete = off")
        _migrate(connection, path)
        connection.execute("PRAGMA foreign_keys = on")
    except sqlite3.Error as error:
        raise LamppostError(
            f"can't open the database {path}: {error}",
            "Is it a SQLite file of Lamppost's, on a disk with room, and are you allowed to write there?",
        ) from error
    return connection


class Readers:
    """A few connections that only read. A read sees one state of the database and never waits for the writer."""

    def __init__(self, path: Path, size: int) -> None:
        self._free: queue.Queue[sqlite3.Connection] = queue.Queue()
        self._all: list[sqlite3.Connection] = []
        for _ in range(size):
            connection = _connect(path, read_only=True)
            connection.execute("PRAGMA query_only = on")
            connection.execute("PRAGMA cache_size = -16384")
            connection.create_function("unicode_lower", 1, _lower, deterministic=True)
            connection.create_function("unicode_upper", 1, _upper, deterministic=True)
            self._all.append(connection)
            self._free.put(connection)

    @contextmanager
    def snapshot(self, wait_seconds: float = 5.0) -> Iterator[sqlite3.Connection]:
        """A connection in a read transaction; Unavailable when all stay in use."""
        try:
            connection = self._free.get(timeout=wait_seconds)
        except queue.Empty:
            raise Unavailable("too many reads at once; try again") from None
        deadline = time.monotonic() + _QUERY_SECONDS
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_CHECKS)
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.set_progress_handler(None, 0)
            connection.rollback()
            self._free.put(connection)

    def close(self) -> None:
        for connection in self._all:
            connection.close()


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _upper(text: str | None) -> str | None:
    return None if text is None else text.upper()

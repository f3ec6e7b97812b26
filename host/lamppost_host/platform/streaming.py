"""Answers sent a piece at a time, made on reader threads from one snapshot of the database."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Send

# A client that takes nothing for this long is cut off: it holds one of few readers.
_SEND_SECONDS = 30.0


class Page(StreamingResponse):
    """A streamed answer that gives up on a client which takes nothing."""

    async def stream_response(self, send: Send) -> None:
        async def impatient(message: Any) -> None:
            await asyncio.wait_for(send(message), _SEND_SECONDS)

        await super().stream_response(impatient)


class Pieces:
    """Runs a read on reader threads, keeping its snapshot from the first piece to the last.

    A client can go away while a piece is being made: `end`, on another thread, waits for it.
    """

    def __init__(self, snapshot: AbstractContextManager[sqlite3.Connection]) -> None:
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._state = _ReadState.NEW
        self._pieces: Iterator[bytes] = iter(())

    def begin(
        self, read: Callable[[sqlite3.Connection], Response | Iterator[bytes]]
    ) -> Response | bytes | None:
        """The whole answer, or its first piece with the snapshot held until `end`."""
        with self._lock:
            if self._state is not _ReadState.NEW:
                return None
            connection = self._snapshot.__enter__()
            self._state = _ReadState.OPEN
            try:
                answer = read(connection)
                if not isinstance(answer, Response):
                    self._pieces = answer
                    return next(self._pieces)
            except BaseException:
                self._close()
                raise
            self._close()
            return answer

    def next(self) -> bytes | None:
        with self._lock:
            return next(self._pieces, None) if self._state is _ReadState.OPEN else None

    def end(self) -> None:
        """Let go of the snapshot; safe to call at any time, and again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._state is _ReadState.OPEN:
            self._snapshot.__exit__(None, None, None)
        self._state = _ReadState.ENDED


class _ReadState(Enum):
    NEW = "new"
    OPEN = "open"
    ENDED = "ended"

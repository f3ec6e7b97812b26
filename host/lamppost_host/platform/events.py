"""The latest results as they arrive, for any number of listeners; a slow one gets fewer, never old ones in a queue."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson

from lamppost_host.platform import times

Latest = dict[int, tuple[int, int | None, Any]]  # Datastream id -> start, end (microseconds), result

_PAUSE_SECONDS = 0.25
_KEEP_ALIVE_SECONDS = 15.0


class Listener:
    """One open page: what is new since it was last told, one result a Datastream."""

    def __init__(self) -> None:
        self.news: Latest = {}
        self.event = asyncio.Event()


class Events:
    """Passes what the writer committed to the listeners. Lives on the event loop, but for `publish`."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """End all streams. From the event loop's thread or a signal handler on it."""
        self._closed = True
        for listener in self._listeners:
            listener.event.set()

    def publish(self, latest: Latest) -> None:
        """Called on the writer's thread after a commit; `latest` is not touched again by the caller."""
        if self._listeners and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._spread, latest)

    def _spread(self, latest: Latest) -> None:
        for listener in self._listeners:
            listener.news.update(latest)
            listener.event.set()

    async def stream(self) -> AsyncIterator[bytes]:
        """Server-sent events: each a JSON array of {"datastream", "phenomenonTime", "result"}."""
        listener = Listener()
        self._listeners.add(listener)
        try:
            yield b"retry: 2000\n: hello\n\n"
            while not self._closed:
                try:
                    await asyncio.wait_for(listener.event.wait(), _KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if self._closed:
                    return
                news, listener.news = listener.news, {}
                listener.event.clear()
                if news:
                    yield b"data: " + orjson.dumps([_event(*item) for item in news.items()]) + b"\n\n"
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            self._listeners.discard(listener)


def _event(datastream: int, latest: tuple[int, int | None, Any]) -> dict[str, Any]:
    start, end, result = latest
    return {"datastream": datastream, "phenomenonTime": times.format_period(start, end), "result": result}

"""Running the platform: one process, one port, one SQLite file."""

import gc
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from lamppost_host.errors import LamppostError
from lamppost_host.home import Home, announce_ready, read_or_make_secret
from lamppost_host.platform.app import VERSION, Services, make_app
from lamppost_host.platform.database import Lock, Readers, open_writer
from lamppost_host.platform.events import Events
from lamppost_host.platform.ingest import Ingest
from lamppost_host.platform.reader import Limits
from lamppost_host.platform.store import Store
from lamppost_host.platform.writer import Writer

logger = logging.getLogger(__name__)

_READERS = 4
_GRACE_SECONDS = 5
_BACKLOG = 256
# A data array is thousands of short-lived lists; looking through them for cycles took a tenth of its time.
_GARBAGE_THRESHOLDS = (50_000, 20, 50)


class _State:
    """Passes the writer's turns on to the ingest's memory and to the listeners."""

    def __init__(self, ingest: Ingest, events: Events) -> None:
        self._ingest = ingest
        self._events = events

    def forget(self) -> None:
        self._ingest.forget()

    def committed(self) -> None:
        latest = self._ingest.take_latest()
        if latest:
            self._events.publish(latest)


class _Server(uvicorn.Server):
    """Tells when it takes requests, and ends open event streams when it is told to stop."""

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], None], stopping: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn would raise the signal again when it is done; a clean stop ends with exit status 0.
        self.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # With the protocol named: asyncio sets TCP_NODELAY only then, and without it each answer waits 40 ms for an ACK.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise LamppostError(f"can't use the address {host}: {error}", "Name another with --host.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise LamppostError(
            f"can't listen on {host} port {port}: {error.strerror}",
            "Name another port with --port (0 takes a free one), or stop the program that uses it.",
        ) from error
    return listener


def serve(
    home: Home,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    ready_file: Path | None = None,
    ready: Callable[[str], None] | None = None,
    root_url: str | None = None,
    limits: Limits | None = None,
    max_body: int = 32 * 1024 * 1024,
) -> None:
    """Serve until SIGTERM or SIGINT. Call it in the main thread of a process of its own.

    port: 0 takes a free one. ready: called with the base URL (http://host:port) when the service takes requests;
    ready_file gets {"port", "url"} then, and HOME/platform/address.json {"url"}, both with the URL of the
    SensorThings root. root_url: the root as clients see it (https://.../v1.1), where a proxy stands before the service.
    Raises LamppostError when it can't start.
    """
    folder = home.platform
    lock = Lock(folder / "lock")
    try:
        token = read_or_make_secret(folder / "token")
        listener = _listen(host, port)
        database = folder / "platform.db"
        connection = open_writer(database)
        ingest, events = Ingest(connection), Events()
        services = Services(
            writer=Writer(connection, _State(ingest, events)),
            store=Store(connection, ingest),
            ingest=ingest,
            readers=Readers(database, _READERS),
            events=events,
            token=token,
            limits=limits or Limits(),
            max_body=max_body,
            root_url=root_url.rstrip("/") if root_url else None,
        )
        bound_port = listener.getsockname()[1]
        shown_host = f"[{host}]" if ":" in host else host
        base = f"http://{shown_host}:{bound_port}"

        def announce() -> None:
            announce_ready(folder / "address.json", url=f"{base}/{VERSION}")
            announce_ready(ready_file, port=bound_port, url=f"{base}/{VERSION}")
            logger.info("SensorThings at %s/%s, the page at %s/", base, VERSION, base)
            if ready is not None:
                ready(base)

        config = uvicorn.Config(
            make_app(services),
            log_config=None,
            access_log=False,
            lifespan="on",
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            timeout_keep_alive=75,
        )
        gc.freeze()
        gc.set_threshold(*_GARBAGE_THRESHOLDS)
        server = _Server(config, announce, events.close)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.handle_exit)
        server.run(sockets=[listener])
    finally:
        lock.release()

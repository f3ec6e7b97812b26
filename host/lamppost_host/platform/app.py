"""HTTP: routes, authorisation, limits and errors of the SensorThings service and its page."""

import asyncio
import logging
import re
import secrets
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from lamppost_host.platform import ingest as ingesting
from lamppost_host.platform import page
from lamppost_host.platform.conformance import root_document
from lamppost_host.platform.database import Readers
from lamppost_host.platform.errors import (
    BadRequest,
    MethodNotAllowed,
    RequestError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from lamppost_host.platform.events import Events
from lamppost_host.platform.ingest import Ingest
from lamppost_host.platform.model import OwnedBy, Owns, target_of
from lamppost_host.platform.odata.parser import parse_path, parse_query
from lamppost_host.platform.odata.syntax import Query, ResourcePath, Tail
from lamppost_host.platform.reader import Collection, Limits, One, PropertyOf, Reader
from lamppost_host.platform.store import Store
from lamppost_host.platform.streaming import Page, Pieces
from lamppost_host.platform.writer import Writer

logger = logging.getLogger(__name__)

VERSION = "v1.1"
_JSON = "application/json; charset=utf-8"
_HOST = re.compile(r"[A-Za-z0-9._-]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?")
_RETRY_AFTER_SECONDS = "2"
_READER_THREADS = 6


@dataclass
class Services:
    """What the routes work with."""

    writer: Writer
    store: Store
    ingest: Ingest
    readers: Readers
    events: Events
    token: str
    limits: Limits = field(default_factory=Limits)
    max_body: int = 32 * 1024 * 1024
    root_url: str | None = None
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_READER_THREADS, thread_name_prefix="reader")
    )


def _root(request: Request, services: Services) -> str:
    """The service's root URL as this client reaches it."""
    if services.root_url is not None:
        return services.root_url
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise BadRequest("the Host header names no host")
    return f"{request.url.scheme}://{host}/{VERSION}"


def error_response(error: RequestError) -> Response:
    headers = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = _RETRY_AFTER_SECONDS
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="lamppost"'
    body = {"code": error.status, "type": "error", "message": error.message}
    return Response(orjson.dumps(body), error.status, headers, _JSON)


def _answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, _JSON)


def _options(request: Request) -> dict[str, str]:
    """The query options, percent-decoded, each once."""
    options: dict[str, str] = {}
    try:
        text = request.scope["query_string"].decode("ascii")
        pairs = [pair.partition("=") for pair in text.split("&") if pair]
        for raw_name, _, raw_value in pairs:
            name = unquote_plus(raw_name, errors="strict")
            if name in options:
                raise BadRequest(f"{name[:40]!r} is given twice")
            options[name] = unquote_plus(raw_value, errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest("the query is not UTF-8") from error
    return options


def _path(request: Request) -> ResourcePath:
    return parse_path(request.path_params["path"].strip("/"))


async def _body(request: Request, limit: int) -> bytes:
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise TooLarge(f"the body is longer than {limit} bytes")
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise TooLarge(f"the body is longer than {limit} bytes")
        pieces.append(piece)
    return b"".join(pieces)


class Routes:
    """The SensorThings resources under /v1.1."""

    def __init__(self, services: Services) -> None:
        self._services = services

    # --- reads -----------------------------------------------------------------------------------------------------

    async def root(self, request: Request) -> Response:
        return _answer(root_document(_root(request, self._services)))

    async def read(self, request: Request) -> Response:
        path, root = _path(request), _root(request, self._services)
        query = parse_query(_options(request))
        loop = asyncio.get_running_loop()
        pieces = Pieces(self._services.readers.snapshot())
        run = self._services.threads

        try:
            first = await loop.run_in_executor(run, pieces.begin, lambda c: self._read(c, root, path, query))
        except asyncio.CancelledError:
            run.submit(pieces.end)
            raise
        if isinstance(first, Response):
            return first

        async def stream() -> AsyncIterator[bytes]:
            try:
                piece: bytes | None = first
                while piece is not None:
                    yield piece
                    piece = await loop.run_in_executor(run, pieces.next)
            finally:
                await asyncio.shield(loop.run_in_executor(run, pieces.end))

        return Page(stream(), media_type=_JSON)

    def _read(
        self, connection: sqlite3.Connection, root: str, path: ResourcePath, query: Query
    ) -> Response | Iterator[bytes]:
        reader = Reader(connection, root, self._services.limits)
        target = reader.resolve(path)
        if isinstance(target, Collection):
            if path.tail is Tail.VALUE:
                raise BadRequest("$value is for a single property")
            return reader.collection(target, query, references=path.tail is Tail.REF)
        if isinstance(target, One):
            if path.tail is Tail.VALUE:
                raise BadRequest("$value is for a single property")
            if path.tail is Tail.REF:
                query = Query(select=("@iot.selfLink",))
            return _answer(reader.entity(target, query))
        return self._property(reader, target, path.tail)

    @staticmethod
    def _property(reader: Reader, target: PropertyOf, tail: Tail) -> Response:
        if tail is Tail.REF:
            raise BadRequest("$ref is for entities")
        value = reader.property_value(target)
        name = target.members[-1] if target.members else target.name
        if tail is Tail.NONE:
            return _answer({name: value})
        if value is None:
            return Response(status_code=204)
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        return Response(text, media_type="text/plain; charset=utf-8")

    # --- writes ----------------------------------------------------------------------------------------------------

    def _authorise(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        expected = self._services.token.encode()
        if scheme.lower() != "bearer" or not secrets.compare_digest(
            given.strip().encode("utf-8", "replace"), expected
        ):
            raise Unauthorized("writing needs the header Authorization: Bearer <token>; reading needs none")

    async def _write_body(self, request: Request) -> bytes:
        self._authorise(request)
        return await _body(request, self._services.max_body)

    async def create_observations(self, request: Request) -> Response:
        body = await self._write_body(request)
        root = _root(request, self._services)
        ingest = self._services.ingest
        # Parsed on the writer's thread too: there it does not hold up other requests' answers.
        answer = await self._services.writer.submit(
            lambda: ingesting.links(root, ingest.create_observations(body)), undoable=False
        )
        return Response(answer, 201, media_type=_JSON)

    async def create(self, request: Request) -> Response:
        body = await self._write_body(request)
        path, root = _path(request), _root(request, self._services)
        if path.segments[0].name == "CreateObservations" and len(path.segments) == 1:
            return await self.create_observations(request)
        value = ingesting.parse_json(body)
        target, given = await self._in_snapshot(lambda reader: self._place(reader, path), root)
        store = self._services.store
        identity = await self._services.writer.submit(lambda: store.create(target.entity, value, given))
        link = f"{root}/{target.entity.collection}({identity})"
        return _answer({"@iot.id": identity, "@iot.selfLink": link}, 201, {"Location": link})

    @staticmethod
    def _place(reader: Reader, path: ResourcePath) -> tuple[Collection, dict[str, int]]:
        """The collection that a POST goes to, and the relations that its path gives to the new entity."""
        target = reader.resolve(path)
        if not isinstance(target, Collection) or path.tail is not Tail.NONE:
            raise MethodNotAllowed("POST makes an entity in a collection")
        if len(path.segments) == 1:
            return target, {}
        # What the path says before its last step is the other entity.
        parent = reader.resolve(ResourcePath(path.segments[:-1]))
        if not isinstance(parent, One):
            raise MethodNotAllowed("POST makes an entity in a collection")
        navigation = parent.entity.navigations[path.segments[-1].name]
        for name, back in target_of(navigation).navigations.items():
            if back.target == parent.entity.name and _same_relation(navigation.link, back.link):
                return target, {name: parent.identity}
        raise MethodNotAllowed(f"can't make {navigation.name} here")

    async def _in_snapshot(self, read: Callable[[Reader], Any], root: str) -> Any:
        def run() -> Any:
            with self._services.readers.snapshot() as connection:
                return read(Reader(connection, root, self._services.limits))

        return await asyncio.get_running_loop().run_in_executor(self._services.threads, run)

    async def _single(self, request: Request) -> One:
        path = _path(request)
        target = await self._in_snapshot(lambda reader: reader.resolve(path), _root(request, self._services))
        if not isinstance(target, One) or path.tail is not Tail.NONE:
            raise MethodNotAllowed(f"{request.method} is for a single entity")
        return target

    async def update(self, request: Request) -> Response:
        value = ingesting.parse_json(await self._write_body(request))
        one = await self._single(request)
        store, replace = self._services.store, request.method == "PUT"
        await self._services.writer.submit(
            lambda: store.update(one.entity, one.identity, value, replace=replace)
        )
        root = _root(request, self._services)
        return _answer(await self._in_snapshot(lambda reader: reader.entity(one, Query()), root))

    async def delete(self, request: Request) -> Response:
        self._authorise(request)
        one = await self._single(request)
        store = self._services.store
        await self._services.writer.submit(lambda: store.delete(one.entity, one.identity))
        return Response(status_code=200)

    async def resource(self, request: Request) -> Response:
        handlers: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "GET": self.read,
            "HEAD": self.read,
            "POST": self.create,
            "PATCH": self.update,
            "PUT": self.update,
            "DELETE": self.delete,
        }
        return await handlers[request.method](request)


def _same_relation(link: object, back: object) -> bool:
    if isinstance(link, OwnedBy) and isinstance(back, Owns):
        return link.column == back.column
    return getattr(link, "table", 0) == getattr(back, "table", 1)


class _Guard:
    """Turns errors into answers, for every route."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Any) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except (ClientDisconnect, TimeoutError):
            logger.info("the client of %s went away", scope.get("path"))
        except RequestError as error:
            if started:
                raise
            await error_response(error)(scope, receive, send)
        except sqlite3.Error as error:
            if started:
                raise
            logger.warning("a read of %s failed: %s", scope.get("path"), error)
            await error_response(Unavailable(f"the database could not answer: {error}"))(scope, receive, send)


async def _http_error(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = (
        error.detail
        if isinstance(error, HTTPException)
        else "this is a defect of the service; its log says more"
    )
    headers = error.headers if isinstance(error, HTTPException) else None
    body = {"code": status, "type": "error", "message": text}
    return Response(orjson.dumps(body), status, headers, _JSON)


async def _request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error)


def make_app(services: Services) -> Starlette:
    """The ASGI application."""
    routes = Routes(services)

    async def events(_: Request) -> Response:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(services.events.stream(), headers=headers, media_type="text/event-stream")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        services.events.open()
        services.writer.start()
        yield
        services.writer.stop()
        services.readers.close()
        services.threads.shutdown()

    return Starlette(
        routes=[
            Route("/", page.index),
            Mount("/page", page.files()),
            Route("/events", events),
            Route(f"/{VERSION}", routes.root, methods=["GET"]),
            Route(f"/{VERSION}/", routes.root, methods=["GET"]),
            Route(f"/{VERSION}/CreateObservations", routes.create_observations, methods=["POST"]),
            Route(
                f"/{VERSION}/{{path:path}}",
                routes.resource,
                methods=["GET", "POST", "PATCH", "PUT", "DELETE"],
            ),
        ],
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["GET", "HEAD"],
                expose_headers=["Location"],
            ),
            Middleware(_Guard),
        ],
        exception_handlers={HTTPException: _http_error, RequestError: _request_error, Exception: _http_error},
        lifespan=lifespan,
    )

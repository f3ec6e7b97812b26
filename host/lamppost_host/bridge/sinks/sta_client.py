"""A small SensorThings client over HTTP: one request at a time, and every answer told apart: done, refused, or not now."""

import ipaddress
import logging
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import orjson

from lamppost_host.bridge.sinks import Unavailable
from lamppost_host.home import read_object

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
"""How long the platform may take over one batch; it is sent again after that."""

_IDENTIFIER = re.compile(r"\(((?:'(?:[^']|'')*')|[^()']+)\)/?\Z")
_NOT_NOW = frozenset({401, 402, 403, 404, 405, 406, 407, 408, 425, 429})
"""Client errors that say something of us or the service, and nothing of the content: trying again can mend them."""


class Refused(Exception):
    """The platform understood the request and refuses its content for good. `status`: HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


class Gone(Exception):
    """The platform has no entity of that id."""


def identifier_of(url: str) -> str:
    """The id in an entity's URL, as it stands there: `17` of `…/Things(17)`, `'a8f3'` of `…/Things('a8f3')`."""
    match = _IDENTIFIER.search(url.strip())
    if match is None:
        raise Unavailable(f"the platform answered with no entity's address: {url[:200]!r}")
    return match[1]


def json_of(identifier: str) -> str:
    """The same id as JSON: a number as it is, a text in double quotes."""
    if identifier.startswith("'"):
        return orjson.dumps(identifier[1:-1].replace("''", "'")).decode()
    return identifier if identifier.isdigit() else orjson.dumps(identifier).decode()


def url_of(value: object) -> str:
    """An `@iot.id` of an answer, as it stands in a URL."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value)


def quoted(text: str) -> str:
    """A string literal of `$filter`."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True)
class Access:
    """Where the platform is and how to be let in: a URL, or a file of JSON that says `url`; a file with a bearer token.

    The files are read again after a failure: a platform may come back elsewhere, or with another token.
    """

    url: str | None = None
    address_file: Path | None = None
    token_file: Path | None = None

    def root(self) -> str:
        """The service's root URL, with no slash at its end."""
        url = self.url
        if url is None and self.address_file is not None:
            try:
                url = str(read_object(self.address_file)["url"])
            except (OSError, ValueError, KeyError) as error:
                raise Unavailable(
                    f"no platform has run here yet: {self.address_file} does not say where it is"
                ) from error
        parts = urlsplit(url or "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unavailable(f"{url!r} is not the URL of a SensorThings service")
        return str(url).rstrip("/")

    def headers(self) -> dict[str, str]:
        """The Authorization header; nothing without a token file."""
        if self.token_file is None:
            return {}
        try:
            token = self.token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Unavailable(f"can't read the token file {self.token_file}: {error.strerror}") from error
        return {"Authorization": f"Bearer {token}"}


class StaClient:
    """Requests relative to the service's root. Raises Unavailable (try again), Refused (the content) or Gone (404 on an entity)."""

    def __init__(self, access: Access, transport: httpx.BaseTransport | None = None) -> None:
        self._access = access
        self._timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._limits = httpx.Limits(max_connections=4, keepalive_expiry=60.0)
        self._transport = transport
        self._open: tuple[str, httpx.Client] | None = None
        self._tls: ssl.SSLContext | None = None
        self.connections_lost = 0
        """Counts up when the platform could not be reached: the one that answers next may be another."""

    def close(self) -> None:
        """Close the connections."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _connection(self) -> tuple[str, httpx.Client]:
        """The root URL and the client that talks to it."""
        if self._open is None:
            root = self._access.root()
            if root.startswith("https:"):
                self._tls = self._tls or ssl.create_default_context()
            client = httpx.Client(
                # Reading the system's certificates takes a quarter of a second: once, and not for plain HTTP.
                verify=self._tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                timeout=self._timeout,
                limits=self._limits,
                trust_env=not _is_loopback(
                    urlsplit(root).hostname or ""
                ),  # a proxy for the world outside does not know our loopback
                transport=self._transport,
                headers={"Accept": "application/json", "Content-Type": "application/json"}
                | self._access.headers(),
            )
            self._open = root, client
        return self._open

    def _lost(self) -> None:
        """Begin anew with the next request: address, token, connection."""
        self.connections_lost += 1
        self.close()

    def __enter__(self) -> "StaClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def find(self, entity_set: str, key: str) -> str | None:
        """The id of the entity whose `properties/lamppost` is `key`; the oldest one where there are several."""
        query = quote(f"properties/lamppost eq {quoted(key)}", safe="/'")
        document = self.get(f"{entity_set}?$filter={query}&$orderby=id&$top=1")
        values = document.get("value")
        if not isinstance(values, list):
            raise Unavailable(
                f"the platform's list of {entity_set} has no value: is it a SensorThings service?"
            )
        if not values:
            return None
        return url_of(values[0]["@iot.id"])

    def get(self, path: str) -> dict[str, Any]:
        """A JSON object."""
        document = self._json(self._send("GET", path, None))
        if not isinstance(document, dict):
            raise Unavailable(f"the platform answered {path} with no JSON object")
        return document

    def next_page(self, document: dict[str, Any]) -> str | None:
        """The path of a list's next page, below the root by which we reach the service, whatever name it has for itself."""
        link = document.get("@iot.nextLink")
        if link is None:
            return None
        parts = urlsplit(str(link))
        path = parts.path.partition("/v1.1/")[2]
        return f"{path or parts.path.lstrip('/')}?{parts.query}"

    def create(self, path: str, entity: dict[str, Any]) -> str:
        """POST an entity; its id."""
        response = self._send("POST", path, orjson.dumps(entity))
        if response.status_code != 201:
            raise Unavailable(f"the platform answered {response.status_code} instead of 201 to POST {path}")
        location = response.headers.get("location")
        if location:
            return identifier_of(location)
        document = self._json(response)
        if not isinstance(document, dict) or "@iot.id" not in document:
            raise Unavailable(f"the platform does not say what it made of POST {path}")
        return url_of(document["@iot.id"])

    def update(self, path: str, changes: dict[str, Any]) -> None:
        """PATCH an entity."""
        self._send("PATCH", path, orjson.dumps(changes))

    def create_observations(self, body: bytes, count: int) -> list[str]:
        """POST to CreateObservations; the answer's rows, `count` of them, each a link or an error."""
        response = self._send("POST", "CreateObservations", body)
        rows = self._json(response)
        if response.status_code != 201 or not isinstance(rows, list):
            raise Unavailable(f"CreateObservations answered {response.status_code} without a list of links")
        if len(rows) != count:
            raise Unavailable(f"CreateObservations answered {len(rows)} rows to {count} observations")
        return [row if isinstance(row, str) else orjson.dumps(row).decode() for row in rows]

    def _send(self, method: str, path: str, body: bytes | None) -> httpx.Response:
        root, http = self._connection()
        try:
            response = http.request(method, f"{root}/{path}", content=body)
        except httpx.TimeoutException as error:
            self._lost()
            raise Unavailable(
                f"the platform at {root} did not answer {method} {path[:80]} in time"
            ) from error
        except httpx.TransportError as error:
            # Refused, reset, cut short, a broken TLS handshake: whether the platform did the work is not known.
            self._lost()
            raise Unavailable(f"the platform at {root} can't be reached: {error}") from error
        if response.is_success:
            return response
        raise self._problem(response, method, path)

    def _problem(self, response: httpx.Response, method: str, path: str) -> Exception:
        status = response.status_code
        said = f"{method} {path[:80]} answered {status}: {_message(response)}"
        if status == 404 and "(" in path.split("?")[0]:
            return Gone(said)
        if status in (401, 403):
            self.close()  # the token is read again
            log.error(
                "the platform does not let us write (%s); the token is in %s", status, self._access.token_file
            )
        if status in _NOT_NOW or not 400 <= status < 500:
            return Unavailable(said, _retry_after(response))
        return Refused(status, _message(response))

    def _json(self, response: httpx.Response) -> Any:
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            kind = response.headers.get("content-type", "no type")
            raise Unavailable(
                f"the platform answered {response.status_code} with {kind} that is not JSON"
            ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _message(response: httpx.Response) -> str:
    """What the platform said, in one short line."""
    text = response.text
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        document = None
    if isinstance(document, dict):
        told = document.get("message") or document.get("error") or document.get("detail") or text
        text = told.get("message", str(told)) if isinstance(told, dict) else str(told)
    return " ".join(text.split())[:300]


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "")
    return min(float(value), 300.0) if value.isdigit() else 0.0

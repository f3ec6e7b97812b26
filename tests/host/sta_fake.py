"""A SensorThings service in memory that can be told to fail: what the sink meets when the platform is not the embedded one, or not well.

Small on purpose: what the sink asks for, and no more. The real platform is tested with the sink in test_bridge.py.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx

SETS = ("Things", "Locations", "Sensors", "ObservedProperties", "Datastreams", "FeaturesOfInterest")
Answer = tuple[int, dict[str, str], bytes]
Fault = Callable[[str, str, bytes], Answer | None]

_ENTITY = re.compile(r"/v1\.1/(\w+)\((\d+)\)\Z")
_SET = re.compile(r"/v1\.1/(\w+)\Z")
_ONE = re.compile(r"/v1\.1/Datastreams\((\d+)\)/Observations\Z")


class FakePlatform:
    """Keeps (Datastream, parameters.reading) unique. `fault(method, path, body)`: an answer instead of the real one, or None.

    `refuse(observation)`: a reason why a row is refused, or None.
    """

    def __init__(self) -> None:
        self.entities: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in SETS}
        self.observations: dict[tuple[int, str], dict[str, Any]] = {}
        self.repeated = 0
        self.requests: list[tuple[str, str]] = []
        self.fault: Fault = lambda method, path, body: None
        self.refuse: Callable[[dict[str, Any]], str | None] = lambda observation: None
        self.root = "http://platform.test/v1.1"
        self._next = 0
        self._lock = threading.Lock()

    def handle(self, method: str, target: str, body: bytes) -> Answer:
        """One request."""
        with self._lock:
            path = unquote(urlsplit(target).path)
            self.requests.append((method, path))
            return self.fault(method, path, body) or self._handle(method, path, target, body)

    def work(self, method: str, path: str, body: bytes) -> None:
        """Do what is asked, for a fault that loses the answer."""
        self._handle(method, path, path, body)

    def _handle(self, method: str, path: str, target: str, body: bytes) -> Answer:
        document = json.loads(body) if body else None
        if path.endswith("/CreateObservations"):
            return self._create_observations(document)
        if (match := _ONE.match(path)) and method == "POST":
            datastream = int(match[1])
            if datastream not in self.entities["Datastreams"]:
                return said(404, "no such Datastream")
            link, problem = self._observe(datastream, document)
            return (201, {"location": link}, b"") if link else said(400, problem)
        if match := _ENTITY.match(path):
            entity = self.entities.get(match[1], {}).get(int(match[2]))
            if entity is None:
                return said(404, "nothing found")
            if method == "PATCH":
                entity.update(document)
            return 200, {}, json.dumps({"@iot.id": int(match[2])} | entity).encode()
        if (match := _SET.match(path)) and match[1] in self.entities:
            known = self.entities[match[1]]
            if method == "POST":
                self._next += 1
                known[self._next] = document
                return 201, {"location": f"{self.root}/{match[1]}({self._next})"}, b""
            key = parse_qs(urlsplit(target).query)["$filter"][0].partition(" eq ")[2][1:-1].replace("''", "'")
            value = [
                {"@iot.id": i} | e for i, e in sorted(known.items()) if e["properties"]["lamppost"] == key
            ]
            return 200, {}, json.dumps({"value": value}).encode()
        return said(404, "no such path")

    def _create_observations(self, groups: list[dict[str, Any]]) -> Answer:
        rows = []
        for group in groups:
            for values in group["dataArray"]:
                observation = dict(zip(group["components"], values, strict=True))
                link, problem = self._observe(group["Datastream"]["@iot.id"], observation)
                rows.append(link or f"error: {problem}")
        return 201, {"content-type": "application/json"}, json.dumps(rows).encode()

    def _observe(self, datastream: int, observation: dict[str, Any]) -> tuple[str, str]:
        problem = self.refuse(observation)
        if datastream not in self.entities["Datastreams"]:
            problem = "no such Datastream"
        if problem:
            return "", problem
        key = (datastream, observation["parameters"]["reading"])
        if key in self.observations:
            self.repeated += 1
        self.observations.setdefault(key, observation)
        return (
            f"{self.root}/Observations({list(self.observations).index(key) + 1 if len(self.observations) < 100 else 1})",
            "",
        )

    def results(self, datastream_key: str) -> list[tuple[str, float]]:
        """(phenomenonTime, result) of a Datastream by its stable key, in the order of arrival."""
        ids = {
            i
            for i, e in self.entities["Datastreams"].items()
            if e["properties"]["lamppost"] == datastream_key
        }
        return [(o["phenomenonTime"], o["result"]) for (i, _), o in self.observations.items() if i in ids]

    def transport(self) -> httpx.MockTransport:
        """For a client in this process. A fault may raise an httpx error."""

        def respond(request: httpx.Request) -> httpx.Response:
            status, headers, content = self.handle(request.method, str(request.url), request.content)
            return httpx.Response(status, headers=headers, content=content)

        return httpx.MockTransport(respond)

    @contextmanager
    def served(self, port: int = 0) -> Iterator[str]:
        """The same on a real socket; the service's URL."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, headers, content = fake.handle(self.command, self.path, body)
                self.send_response(status)
                for name, value in ({"content-length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = _do

            def log_message(self, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.root = f"http://127.0.0.1:{server.server_address[1]}/v1.1"
        try:
            yield self.root
        finally:
            server.shutdown()
            server.server_close()


def said(status: int, message: str) -> Answer:
    return (
        status,
        {"content-type": "application/json"},
        json.dumps({"code": status, "message": message}).encode(),
    )

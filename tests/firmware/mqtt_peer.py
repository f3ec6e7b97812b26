"""The other end of an MQTT connection, with the faults that a test writes into it."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

CONNACK = b"\x20\x02\x00\x00"
PUBACK, SUBACK, PINGRESP = 0x40, 0x90, b"\xd0\x00"

# Put before a test's script: `client(...)` with short times that prints its failures and messages, and `connected(...)`.
PRELUDE = """
import asyncio, gc, os, sys
from time import ticks_diff, ticks_ms
from lamppost.mqtt import MqttClient, MqttError, MqttRefused

def client(port, host="127.0.0.1", **options):
    c = MqttClient(host, port, "alpha.one", **dict({"timeout_ms": 2000, "backoff_ms": (10, 40)}, **options))
    c.on_error = lambda error: print("error:", type(error).__name__, error)
    c.on_message = lambda topic, payload, retained: print("message:", topic.decode(), bytes(payload), retained)
    return c

async def connected(c, timeout_ms=5000):
    task = asyncio.create_task(c.run())
    await asyncio.wait_for_ms(c.event_connected.wait(), timeout_ms)
    return task

async def until(condition, timeout_ms=10000):
    began = ticks_ms()
    while not condition():
        if ticks_diff(ticks_ms(), began) > timeout_ms:
            raise RuntimeError("waited in vain")
        await asyncio.sleep_ms(2)
"""


class Gone(Exception):
    """The client closed the connection."""


class Connection:
    """One connection of a client, packet by packet."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        """0 for the first connection to the peer."""

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self.sock.recv(count - len(data))
            except ConnectionError:
                more = b""
            if not more:
                raise Gone
            data += more
        return data

    def packet(self) -> tuple[int, bytes]:
        """The next packet: its first byte, and what follows the length."""
        first = self.exactly(1)[0]
        size = shift = 0
        while True:
            byte = self.exactly(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first, self.exactly(size)
            assert shift < 28, "the client sent a malformed length"

    def expect(self, kind: int) -> bytes:
        """The body of the next packet, which must be of type `kind`."""
        first, body = self.packet()
        assert first >> 4 == kind, f"expected a packet of type {kind}, got {first:#x} {body!r}"
        return body

    def accept(self, session_present: bool = False) -> bytes:
        """Take CONNECT, answer that all is well; the body of the CONNECT."""
        body = self.expect(1)
        self.send(bytes((0x20, 2, session_present, 0)))
        return body

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except ConnectionError as error:
            raise Gone from error

    def until_gone(self) -> None:
        """Read until the client closes."""
        with contextlib.suppress(Gone):
            while True:
                self.exactly(1)


class Peer:
    """A server whose every connection is handled by `script(connection)`. What fails in it fails the test, at the `with`'s end."""

    def __init__(self, script: Callable[[Connection], None]) -> None:
        self.script = script
        self.accepted: list[float] = []
        """time.monotonic() of each connection."""
        self.failures: list[BaseException] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.port = self._socket.getsockname()[1]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._serve)]

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                sock, _ = self._socket.accept()
            except TimeoutError:
                continue
            self.accepted.append(time.monotonic())
            thread = threading.Thread(target=self._handle, args=(sock, len(self.accepted) - 1))
            self._threads.append(thread)
            thread.start()

    def _handle(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(20)
        with sock:
            try:
                self.script(Connection(sock, number))
            except Gone:
                pass
            except BaseException as error:
                self.failures.append(error)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(25)
        self._socket.close()
        if self.failures and error is None:
            raise self.failures[0]


def publish(topic: str, payload: bytes, qos: int = 0, packet_id: int = 1, retain: bool = False) -> bytes:
    """A PUBLISH packet."""
    body = len(topic).to_bytes(2, "big") + topic.encode()
    if qos:
        body += packet_id.to_bytes(2, "big")
    return bytes((0x30 | qos << 1 | retain,)) + length(len(body) + len(payload)) + body + payload


def length(size: int) -> bytes:
    """MQTT's variable-length integer."""
    out = b""
    while True:
        out += bytes((size & 127 | (128 if size > 127 else 0),))
        size >>= 7
        if not size:
            return out

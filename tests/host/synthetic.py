"""A node without a board: publishes frames over paho and keeps them until a `mark` covers them, as WIRE.md asks of a node."""

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from lamppost_host import wire
from tests import frames

SECONDS = 180_000_000
"""When row 0 of frame 0 is: seconds since 2020."""


class SyntheticNode:
    """Keeps its frames in `journal` and forgets one only when a mark covers it; sends again what is not confirmed after every connection.

    `address`: (host, port, password).
    """

    def __init__(self, node: str, host: str, port: int, password: str, about: bytes | None = None) -> None:
        self.node = node
        self.tenant, self.name = node.split("/")
        self.about = about or frames.encode_about()
        self.boot = os.urandom(8)
        self.journal: dict[int, bytes] = {}
        self.seq = 0
        self.taken = 0
        self.marked = -1
        self.resend_s = 1.0
        self._lock = threading.Lock()
        self._confirmed = threading.Condition(self._lock)
        self._connected = threading.Event()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"{self.tenant}.{self.name}", clean_session=False
        )
        self._client.username_pw_set(node, password)
        self._client.reconnect_delay_set(0.05, 0.2)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.max_inflight_messages_set(100)
        self._client.connect_async(host, port, 10)
        self._client.loop_start()
        self._resender = threading.Thread(target=self._resend, daemon=True)
        self._closing = threading.Event()
        self._resender.start()

    def topic(self, kind: str) -> str:
        return wire.topic(self.tenant, self.name, kind)

    def wait_connected(self, seconds: float = 10.0) -> None:
        assert self._connected.wait(seconds)

    def take(self, columns: Sequence[Sequence[int | None]], **fields: Any) -> int:
        """Journal one frame and send it; its seq."""
        fields.setdefault("seconds", SECONDS + self.seq * 60)
        with self._lock:
            seq = self.seq
            payload = frames.encode_obs(
                frames.revision(self.about), self.boot, seq, columns, taken=self.taken, **fields
            )
            self.journal[seq] = payload
            self.seq += 1
            self.taken += wire.decode_obs(payload).readings
        if self._connected.is_set():
            self._client.publish(self.topic("obs"), payload, qos=1)
        return seq

    def status(self, state: str = "online", **fields: Any) -> None:
        """Publish the counters."""
        import msgpack

        document = {"v": 1, "state": state, "boot": self.boot, "seq": self.seq, "taken": self.taken}
        document |= {"pending": len(self.journal), "dropped": 0, "drops": [], "refused": 0} | fields
        self._client.publish(self.topic("status"), msgpack.packb(document), qos=1, retain=True)

    def publish(self, kind: str, payload: bytes) -> None:
        self._client.publish(self.topic(kind), payload, qos=1).wait_for_publish(5)

    def wait_confirmed(self, seconds: float = 20.0) -> None:
        """Wait until every frame is covered by a mark."""
        with self._confirmed:
            assert self._confirmed.wait_for(lambda: not self.journal, seconds), (
                f"{len(self.journal)} of {self.seq} frames not confirmed, marked {self.marked}"
            )

    def close(self) -> None:
        self._closing.set()
        self._client.disconnect()
        self._client.loop_stop()
        self._resender.join()

    def _on_connect(
        self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if reason.is_failure:
            return
        client.subscribe(self.topic("mark"), 1)
        client.publish(self.topic("about"), self.about, qos=1, retain=True)
        self._send_all()
        self._connected.set()

    def _send_all(self) -> None:
        with self._lock:
            waiting = [self.journal[seq] for seq in sorted(self.journal)]
        for payload in waiting:
            self._client.publish(self.topic("obs"), payload, qos=1)

    def _resend(self) -> None:
        before = -1
        while not self._closing.wait(self.resend_s):
            if self.journal and self.marked == before and self._client.is_connected():
                self._send_all()
            before = self.marked

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        for boot, seq in wire.decode_mark(message.payload):
            if boot == self.boot:
                with self._confirmed:
                    self.marked = max(self.marked, seq)
                    for confirmed in [number for number in self.journal if number <= self.marked]:
                        del self.journal[confirmed]
                    self._confirmed.notify_all()


def wait_for(what: Any, seconds: float = 20.0, why: str = "") -> Any:
    """Ask again until `what()` is true; its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < deadline, why or "it did not come about in time"
        time.sleep(0.01)

"""The intake: MQTT to spool in one thread. A message is acknowledged when it is on disk, in the order of arrival, and not before.

One thread because it is nearly twice as fast as handing messages to another for the database (measured with paho 2.2), and because
the order of commit and acknowledgement is then plain to see.
"""

import enum
import logging
import select
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from lamppost_host import wire
from lamppost_host.bridge.backoff import Backoff, Outage
from lamppost_host.bridge.marks import Marks
from lamppost_host.bridge.spool import Message, Receipt, Spool, SpoolError
from lamppost_host.errors import LamppostError

log = logging.getLogger(__name__)

CLIENT_ID = "lamppost-bridge"

BATCH = 500
"""Messages in one commit; the broker's window, where it is smaller, makes the socket idle before."""

GATHER_SECONDS = 0.002
"""How long the socket is idle before what came is committed."""

AGE_SECONDS = 0.02
"""How long a message waits for its commit when others keep coming."""

HELD = 2_000
"""Unacknowledged messages held in memory while the disk refuses them; beyond that the socket is not read."""

KEEPALIVE_SECONDS = 30
CONNECT_SECONDS = 5.0
RECONNECT_SECONDS = (0.2, 10.0)
COMMIT_RETRY_SECONDS = (0.1, 10.0)
TURN_SECONDS = 0.25
"""The longest that one turn waits."""

UNANSWERED = 5
"""Connections that the broker closes without a CONNACK before we take it for a refusal, which is how some brokers refuse a password."""

_CHECK_ACCESS = "Check --user and the password file, or the broker's credentials for the bridge."
_REFUSED_CREDENTIALS = frozenset({"Bad user name or password", "Not authorized"})


class State(enum.StrEnum):
    """Of the connection to the broker."""

    CONNECTING = "connecting"
    SUBSCRIBED = "subscribed"
    WAITING = "waiting"  # lost or not reached: tried again after a delay
    REFUSED = "refused"  # the broker does not accept our credentials: tried again, rarely
    STOPPED = "stopped"


class BrokerRefusal(LamppostError):
    """The broker answered, and does not let the bridge in."""


@dataclass(frozen=True)
class BrokerAccess:
    """Where the broker is, and how to be let in. The password stays out of the representation, and so out of logs.

    `ca`: certificates to trust (default with `tls`: the system's). `pinned`: `ca` is the broker's own, so its host name does not matter.
    """

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: Path | None = None
    pinned: bool = False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Intake:
    """The connection to the broker and what passes over it.

    Call `step` again and again; it never waits longer than a quarter of a second, except to connect.
    """

    def __init__(
        self,
        find_broker: Callable[[], BrokerAccess],
        spool: Spool,
        on_commit: Callable[[Receipt], None],
        on_state: Callable[[State, str], None],
        wakeup: socket.socket | None = None,
        client_id: str = CLIENT_ID,
    ) -> None:
        """`find_broker` is asked before every connection: a broker may come back elsewhere, or with another password."""
        self._find_broker = find_broker
        self._access: BrokerAccess | None = None
        self._client_id = client_id
        self._spool = spool
        self._on_commit = on_commit
        self._on_state = on_state
        self._wakeup = wakeup
        self._marks = Marks()
        self._pending: list[Message] = []
        self._acks: list[int] = []
        self._reconnect = Backoff(*RECONNECT_SECONDS)
        self._outage = Outage()
        self._commit_retry = Backoff(*COMMIT_RETRY_SECONDS)
        self._connect_at = 0.0
        self._commit_at = 0.0
        self._misc_at = 0.0
        self._marked = 0.0
        self._oldest = 0.0
        self._ever_subscribed = False
        self._session_present = False
        self._answered = False
        self._unanswered = 0
        self._refusal: BrokerRefusal | None = None
        self._reason = ""
        self.state = State.CONNECTING
        self.messages = 0
        """Messages taken in since the start."""
        self._client: mqtt.Client | None = None

    def _make_client(self, access: BrokerAccess) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=False,
            protocol=mqtt.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_SECONDS
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        # With this set, paho queues packets and leaves the writing to `step`.
        client.on_socket_register_write = lambda *_: None
        client.username_pw_set(access.user, access.password)
        if access.tls:
            context = ssl.create_default_context(cafile=str(access.ca) if access.ca else None)
            if access.pinned:
                context.check_hostname = False
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            client.tls_set_context(context)
        return client

    # One turn

    def step(self) -> None:
        """Wait for something to happen, and do it. Raises BrokerRefusal if the broker refuses the very first connection."""
        if self._refusal is not None and not self._ever_subscribed:
            raise self._refusal
        client = self._client
        sock = None if client is None else client.socket()
        now = time.monotonic()
        if client is None or sock is None:
            if now >= self._connect_at:
                self._connect()
            else:
                self._sleep(min(TURN_SECONDS, self._connect_at - now))
            return
        if now >= self._misc_at:
            self._misc_at = now + 1.0
            client.loop_misc()
        arrived = self._read(client, sock)
        if self._pending and (
            arrived == 0 or len(self._pending) >= BATCH or time.monotonic() - self._oldest > AGE_SECONDS
        ):
            self._commit(client)
        if not self._pending or time.monotonic() - self._marked >= 1.0:
            self._publish_marks(client)
        if client.want_write():
            client.loop_write()

    def _read(self, client: mqtt.Client, sock: Any) -> int:
        """Take in what the socket has, up to a batch; the number of messages."""
        reading = len(self._pending) < HELD
        if self._pending:
            patience = GATHER_SECONDS if time.monotonic() >= self._commit_at else 0.05
        else:
            due = self._marks.wait()
            patience = TURN_SECONDS if due is None else max(0.01, min(TURN_SECONDS, due))
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            patience = 0.0
        waiting = [sock] if reading else []
        if self._wakeup is not None:
            waiting.append(self._wakeup)
        readable, _, _ = select.select(waiting, [sock] if client.want_write() else [], [], patience)
        if self._wakeup is not None and self._wakeup in readable:
            self._wakeup.recv(4096)
        if not reading or (sock not in readable and patience > 0.0):
            return 0
        before = len(self._pending)
        count = before - 1
        while client.socket() is not None and count < len(self._pending) < before + BATCH:
            count = len(self._pending)
            client.loop_read()
        return len(self._pending) - before

    def _sleep(self, seconds: float) -> None:
        readable, _, _ = select.select([self._wakeup] if self._wakeup else [], [], [], max(0.0, seconds))
        if readable and self._wakeup is not None:
            self._wakeup.recv(4096)

    def _commit(self, client: mqtt.Client) -> None:
        """Messages to disk, then PUBACKs in the order of arrival; nothing is acknowledged where the disk refused."""
        if time.monotonic() < self._commit_at:
            return
        messages = self._pending
        try:
            receipt = self._spool.receive(messages)
        except SpoolError as error:
            delay = self._commit_retry.next()
            self._commit_at = time.monotonic() + delay
            log.error("%s Trying again in %.1f s.", error, delay)  # noqa: TRY400 - a person's to mend
            return
        self._commit_retry.reset()
        self.messages += len(messages)
        for mid in self._acks:
            client.ack(mid, 1)
        self._pending.clear()
        self._acks.clear()
        self._marks.touch(receipt.touched)
        if receipt.dead_letters:
            log.warning("%d dead letters, the last one: %s", receipt.dead_letters, receipt.last_reason)
        self._on_commit(receipt)

    def _publish_marks(self, client: mqtt.Client) -> None:
        self._marked = time.monotonic()
        if self.state is not State.SUBSCRIBED:
            return
        for topic, payload in self._marks.take():
            client.publish(topic, payload, qos=0, retain=True)

    def stop(self, seconds: float = 2.0) -> None:
        """Commit and acknowledge what came, publish the marks, and leave cleanly; the session stays with the broker."""
        client = self._client
        if client is not None and client.socket() is not None:
            if self._pending:
                self._commit_at = 0.0
                self._commit(client)
            self._publish_marks(client)
            self._change(State.STOPPED)
            client.disconnect()
            deadline = time.monotonic() + seconds
            while (
                (sock := client.socket()) is not None and client.want_write() and time.monotonic() < deadline
            ):
                select.select([], [sock], [], 0.1)
                client.loop_write()
        self._change(State.STOPPED)

    # Connection

    def _connect(self) -> None:
        self._change(State.CONNECTING)
        self._refusal = None
        self._access = None
        self._answered = False
        try:
            self._access = access = self._find_broker()
            self._client = self._make_client(access)
            self._client.connect(access.host, access.port, KEEPALIVE_SECONDS)
        except LamppostError as error:
            self._lost(error.message)
        except (OSError, ValueError) as error:
            self._lost(_why(self._access, error))

    @property
    def _user(self) -> str | None:
        return self._access.user if self._access else None

    def _on_connect(
        self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        self._answered = True
        self._unanswered = 0
        if reason.is_failure:
            text = str(reason)
            remedy = _CHECK_ACCESS if text in _REFUSED_CREDENTIALS else "See the broker's log."
            self._refusal = BrokerRefusal(
                f"the broker {self._access} refuses user {self._user!r}: {text}", remedy
            )
            return
        self._session_present = flags.session_present
        prefix = f"lamppost/{wire.VERSION}/+/+/"
        client.subscribe(
            [(prefix + "about", 1), (prefix + "obs", 1), (prefix + "status", 1), (prefix + "ask", 0)]
        )

    def _on_subscribe(
        self, client: mqtt.Client, userdata: Any, mid: int, reasons: Any, properties: Any
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._refusal = BrokerRefusal(
                f"the broker {self._access} does not let user {self._user!r} subscribe",
                "Let it read lamppost/1/+/+/about, obs, status and ask, and write mark, time and cmd.",
            )
            client.disconnect()
            return
        self._ever_subscribed = True
        self._reconnect.reset()
        self._outage.over()
        self._change(State.SUBSCRIBED)
        if not self._session_present:
            # The broker may have forgotten everything, the retained marks too.
            self._marks.touch({node: set() for node in self._spool.nodes()})

    def _on_disconnect(
        self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        # What was not acknowledged comes again, under other packet numbers.
        self._pending.clear()
        self._acks.clear()
        if not self._answered and self._refusal is None:
            self._unanswered += 1
            message = (
                f"the broker {self._access} closes the connection of user {self._user!r} without an answer"
            )
            if self._unanswered >= UNANSWERED:
                self._refusal = BrokerRefusal(message, _CHECK_ACCESS)
            else:
                self._lost(message)
                return
        if self._refusal is not None:
            self._lost(self._refusal.message, State.REFUSED)
        else:
            self._lost(f"the connection to the broker {self._access} is lost: {reason}")

    def _lost(self, reason: str, state: State = State.WAITING) -> None:
        delay = self._reconnect.next()
        self._connect_at = time.monotonic() + delay
        if self.state is not State.STOPPED:
            if self._outage.worth_telling(reason):
                level = logging.ERROR if state is State.REFUSED else logging.WARNING
                log.log(level, "%s; trying again", reason)
            self._change(state, reason)

    def _change(self, state: State, reason: str = "") -> None:
        if (state, reason) != (self.state, self._reason) or state is State.SUBSCRIBED:
            self.state, self._reason = state, reason
            self._on_state(state, reason)

    # Messages

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        received = time.time_ns() // 1_000_000
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "not UTF-8"
        if topic.endswith("/ask"):
            self._answer(client, topic, message.payload, received)
            return
        if not self._pending:
            self._oldest = time.monotonic()
        self._pending.append(Message(topic, bytes(message.payload), received))
        if message.qos:
            self._acks.append(message.mid)

    def _answer(self, client: mqtt.Client, topic: str, payload: bytes | bytearray, received: int) -> None:
        try:
            tenant, node, _ = wire.parse_topic(topic)
            ticks = wire.decode_ask(bytes(payload))
        except wire.WireError as error:
            log.warning("a request for the time on %s can't be read: %s", topic, error.message)
            return
        client.publish(wire.topic(tenant, node, "time"), wire.encode_time(ticks, received), qos=0)


def _why(access: BrokerAccess | None, error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker {access} shows a certificate that can't be trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with the broker {access}: {error.reason}"
    return f"the broker {access} can't be reached: {error}"

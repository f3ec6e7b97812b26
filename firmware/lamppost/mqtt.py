"""An MQTT 3.1.1 client on asyncio: a window of QoS 1 messages in flight, keepalive, will, TLS, persistent session.

One task, `run()`, keeps the connection. Any task may `publish` and `subscribe` while it stands. What is in flight when a
connection ends is forgotten here: whoever must not lose it keeps it (in Lamppost, the journal) and sends it again.

Memory: two buffers made once, `tx_bytes` to send and `rx_bytes` to receive. Small packets gather in the first and go out
together; a payload larger than it goes through it piece by piece. A publish that larger than `rx_bytes` comes in is skipped,
acknowledged and counted in `oversized`, since a broker would only send it again.

Every wait ends: `timeout_ms` bounds connecting (with the TLS handshake), CONNACK, SUBACK, each write, the wait for the
next PUBACK, and the answer to a PINGREQ. The one exception is the look-up of a host name, once a connection: MicroPython's
getaddrinfo blocks the whole program until the network stack gives up. Name the broker by its address where that matters.

Numbers in comments are sections and conformance clauses of "MQTT Version 3.1.1", OASIS Standard, 29 October 2014.
"""

import asyncio
import os
from time import ticks_add, ticks_diff, ticks_ms

from .mqtt_packets import (
    CONNACK,
    LONGEST_HEADER,
    MOST_REMAINING,
    PINGRESP,
    PUBACK,
    PUBLISH,
    SUBACK,
    UNSUBACK,
    MqttError,
    MqttRefused,
    connect_packet,
    encoded,
    field,
    packet,
    packet_size,
    publish_header,
    put_publish_header,
)
from .mqtt_socket import open_socket


def _ignore(*_):
    pass


class MqttClient:
    """A connection to one broker.

    `ssl` is an SSLContext that verifies the broker's certificate against `server_hostname` (default: `host`). `will` is
    (topic, payload, qos, retain). `keepalive` is in s (0: none); times `_ms` in ms; `backoff_ms` the first and the
    longest wait before connecting again, of which a random half is taken off. `clean` False keeps the session.

    Callbacks, all plain functions that must be short: `on_message(topic: bytes, payload: memoryview, retained: bool)`
    (the payload is only valid until it returns), `on_connect(session_present: bool)`, `on_disconnect()`,
    `on_puback(packet_id)`, `on_error(error)` for every connection that failed or ended by itself. What a callback raises
    ends up in `error` and hurts nothing else; its message counts as received.
    """

    def __init__(
        self,
        host,
        port,
        client_id,
        user=None,
        password=None,
        keepalive=60,
        window=8,
        timeout_ms=10000,
        ssl=None,
        server_hostname=None,
        will=None,
        clean=False,
        backoff_ms=(1000, 60000),
        tx_bytes=1460,
        rx_bytes=1024,
    ):
        if not 1 <= window <= 1000:
            raise ValueError("a window is 1 to 1,000 messages")
        if not 0 <= keepalive <= 65535:
            raise ValueError("keepalive is 0 to 65,535 s")
        if ssl is not None and not getattr(ssl, "verify_mode", 1):
            # What MicroPython's ssl module starts with. Whoever answers would get the password.
            raise ValueError("an SSLContext that checks no certificate: use mqtt_socket.tls_context")
        self.host = host
        self.port = port
        self.window = window
        self.timeout_ms = timeout_ms
        self.on_message = self.on_connect = self.on_disconnect = self.on_puback = self.on_error = _ignore
        self.event_connected = asyncio.Event()
        self.connected = False
        self.error = None  # the last failure, an exception
        self.oversized = 0  # publishes skipped because they did not fit
        self.connections = 0  # accepted by a broker since the start
        self._ssl = ssl
        self._server_hostname = server_hostname or host
        self._keepalive_ms = keepalive * 1000
        self._backoff_ms = backoff_ms
        self._connect = connect_packet(client_id, user, password, keepalive, will, clean)
        self._stream = None
        self._writer = None
        self._running = self._stopping = self._accepted = False
        self._ended = asyncio.Event()
        self._generation = 0  # counts connections, so that who waited through two of them notices
        self._changed = asyncio.Event()  # room, a slot, an answer, or the end: who waits looks again
        self._in_flight = set()
        # Ids go on from connection to connection, from a random start: a late PUBACK of an earlier one finds nothing.
        self._packet_id = int.from_bytes(os.urandom(2), "big")
        self._answers = {}  # packet id of a SUBSCRIBE -> [its tick, return code or None]
        self._tx = bytearray(max(tx_bytes, 128))
        self._tx_view = memoryview(self._tx)
        self._tx_end = 0
        self._tx_ready = asyncio.Event()
        self._sending = (
            False  # a publish larger than the buffer is half in it: nobody else may put a packet there
        )
        self._writing = False
        self._rx = bytearray(max(rx_bytes, 128))
        # Ticks of: start of the connection or its last complete packet, write under way, last write, last PUBACK, PINGREQ.
        self._heard = self._write_began = self._wrote = self._acked = self._pinged = 0
        self._awaiting_pong = False

    # ---- what a node calls ----

    @property
    def in_flight(self):
        """QoS 1 messages sent on this connection that the broker has not acknowledged."""
        return len(self._in_flight)

    async def run(self):
        """Connect, and connect again, until cancelled or until `disconnect()`."""
        if self._running:
            raise RuntimeError("run() is already running")
        self._running = True
        delay = self._backoff_ms[0]
        try:
            while not self._stopping:
                began = ticks_ms()
                try:
                    await self._connection()
                except (
                    Exception
                ) as error:  # OSError, and what the TLS library says of a certificate: ValueError
                    self._report(error)
                if self._stopping:
                    break
                if self._accepted and ticks_diff(ticks_ms(), began) > delay:
                    delay = self._backoff_ms[0]  # it stood for longer than we waited for it: it works
                self._ended.clear()
                await self._pause(delay)
                delay = min(delay * 2, self._backoff_ms[1])
        finally:
            self._running = self._stopping = False

    async def disconnect(self):
        """Say DISCONNECT (so that the broker drops the will), and end `run()`. Does nothing when that isn't running."""
        if not self._running:
            return
        self._stopping = True
        if self.connected:
            generation = self._generation
            try:
                await self._room(2, generation)
                self._tx[self._tx_end] = 0xE0
                self._tx[self._tx_end + 1] = 0
                self._put(2)
                while self._tx_end or self._writing:
                    await self._change(generation)
                # The broker closes (3.14.4). Closing first, with bytes of its unread, could reset the connection
                # under the DISCONNECT.
                await asyncio.wait_for_ms(self._ended.wait(), min(self.timeout_ms, 1000))
            except (MqttError, asyncio.TimeoutError):
                pass  # gone already, and that is what was asked for
        self._ended.set()

    async def publish(self, topic, payload, qos=0, retain=False):
        """Send `payload` (bytes, bytearray or memoryview). Returns its packet id, 0 for QoS 0.

        QoS 1 waits for a free slot of the window, not for the PUBACK. `payload` may be changed as soon as this returns.
        Raises MqttError if there is no connection or it ends meanwhile; cancelled within a payload too large for the
        buffer, it ends the connection, since a packet can't stop half way.
        """
        if qos not in (0, 1):
            raise ValueError("QoS 0 and 1 only")
        topic = encoded(topic)
        size = len(payload)
        remaining = 2 + len(topic) + 2 * qos + size
        if remaining > MOST_REMAINING or len(topic) > 65535:
            raise ValueError("too large for MQTT")
        header = remaining - size + LONGEST_HEADER
        if not topic or header > len(self._tx):
            raise ValueError("a topic that is empty or does not fit the buffer")
        generation = self._generation
        if not self.connected:
            raise MqttError("not connected")
        room = min(header + size, len(self._tx))
        while (
            self._sending
            or self._tx_end + room > len(self._tx)
            or (qos and len(self._in_flight) >= self.window)
        ):
            await self._change(generation)

        # From here to the end of the header nothing waits, so no other task comes between.
        tx = self._tx
        packet_id = self._new_id() if qos else 0
        first = PUBLISH << 4 | qos << 1 | (1 if retain else 0)
        at = put_publish_header(tx, self._tx_end, first, remaining, topic, packet_id)
        whole = at + size <= len(tx)
        if whole:
            self._tx_view[at : at + size] = payload
            at += size
        if qos:
            if not self._in_flight:
                self._acked = ticks_ms()
            self._in_flight.add(packet_id)
        self._put(at - self._tx_end)
        if not whole:
            await self._pieces(payload, generation)
        return packet_id

    async def subscribe(self, topic, qos=0):
        """Subscribe to one topic filter; returns the QoS granted. Raises MqttError when refused, or with no connection."""
        if not self.connected:
            raise MqttError("not connected")
        generation = self._generation
        packet_id = self._new_id()
        request = packet(0x82, bytes((packet_id >> 8, packet_id & 255)) + field(topic) + bytes((qos,)))
        if len(request) > len(self._tx):
            raise ValueError("a topic filter that does not fit the buffer")
        answer = self._answers[packet_id] = [ticks_ms(), None]
        try:
            await self._room(len(request), generation)
            answer[0] = ticks_ms()
            self._tx_view[self._tx_end : self._tx_end + len(request)] = request
            self._put(len(request))
            while answer[1] is None:
                await self._change(generation)
        finally:
            self._answers.pop(packet_id, None)
        if answer[1] > 2:
            raise MqttError(f"the broker refuses the subscription to {topic}")
        return answer[1]

    async def drain(self, timeout_ms):
        """Wait until everything published is acknowledged. Raises MqttError when it takes longer, or the connection ends."""
        if not self.connected:
            raise MqttError("not connected")
        generation = self._generation
        deadline = ticks_add(ticks_ms(), timeout_ms)
        while self._in_flight or self._tx_end or self._writing:
            if ticks_diff(deadline, ticks_ms()) <= 0:
                raise MqttError(f"{len(self._in_flight)} messages unacknowledged after {timeout_ms} ms")
            await self._change(generation)

    # ---- one connection, from its opening to its end ----

    async def _connection(self):
        self._accepted = False
        self._ended.clear()
        sock = await open_socket(self.host, self.port, self.timeout_ms, self._ssl, self._server_hostname)
        tasks = ()
        try:
            self._stream = asyncio.StreamWriter(sock)
            self._generation += 1
            self._tx_end = 0
            self._sending = self._writing = self._awaiting_pong = False
            self._heard = ticks_ms()
            tasks = (
                asyncio.create_task(self._guard(self._converse(), self._generation)),
                asyncio.create_task(self._guard(self._watch(), self._generation)),
            )
            await self._ended.wait()
        finally:
            was_connected = self.connected
            self.connected = False
            self.event_connected.clear()
            # Cancelling takes a task off the poll at once, so the socket can close before the task runs again.
            for task in tasks:
                task.cancel()
            if self._writer is not None:
                self._writer.cancel()
                self._writer = None
            self._stream = None
            sock.close()
            self._in_flight.clear()
            self._tx_end = 0
            self._writing = False
            self._generation += 1
            self._changed.set()
            if was_connected:
                self._call(self.on_disconnect)

    async def _guard(self, work, generation):
        """Run one of a connection's tasks; whatever it ends with ends the connection."""
        try:
            await work
        except asyncio.CancelledError:
            return
        except Exception as error:
            # One reason a connection: when it breaks, reader and writer can both find out.
            if generation == self._generation and not self._ended.is_set():
                self._report(error)
                self._ended.set()

    async def _converse(self):
        """Say CONNECT, then read until the connection ends."""
        stream = self._stream
        stream.write(self._connect)
        await stream.drain()  # the TLS handshake too
        self._wrote = ticks_ms()
        self._writer = asyncio.create_task(self._guard(self._write(), self._generation))
        rx = self._rx
        view = memoryview(rx)
        start = end = 0  # what is read and not yet looked at
        while True:
            # Take every packet that is whole.
            while True:
                size = packet_size(rx, start, end)
                if size > len(rx):
                    start, end = await self._skip(view, start, end, size)
                    continue
                if not size or size > end - start:
                    break
                await self._take(view, start, size)
                self._heard = ticks_ms()
                self._awaiting_pong = False
                start += size
            if start == end:
                start = end = 0
            elif start and (size > len(rx) - start or len(rx) - start < LONGEST_HEADER):
                view[: end - start] = view[start:end]
                end -= start
                start = 0
            end += await self._read(view[end:])

    async def _read(self, into):
        while True:
            count = await self._stream.readinto(into)
            if count:
                return count
            if count == 0:
                raise MqttError("the broker closed the connection")
            # None: TLS took a record that held nothing for us

    async def _write(self):
        """Send what gathers in the buffer, in as few writes as it takes."""
        stream = self._stream
        while True:
            while not self._tx_end:
                self._tx_ready.clear()
                await self._tx_ready.wait()
            self._write_began = ticks_ms()
            self._writing = True
            stream.write(
                self._tx_view[: self._tx_end]
            )  # what the socket does not take at once, the stream copies
            self._tx_end = 0
            self._changed.set()
            await stream.drain()
            self._writing = False
            self._wrote = ticks_ms()
            self._changed.set()

    async def _watch(self):
        """Hold every wait to its time, and the connection alive."""
        limit = self.timeout_ms
        keepalive = self._keepalive_ms
        period = limit if not keepalive else min(limit, keepalive)
        period = max(10, min(1000, period // 8))
        while True:
            await asyncio.sleep_ms(period)
            now = ticks_ms()
            if not self.connected:
                if ticks_diff(now, self._heard) > limit:
                    raise MqttError(f"no CONNACK in {limit} ms")
                continue
            if self._writing and ticks_diff(now, self._write_began) > limit:
                raise MqttError(f"the broker takes nothing for {limit} ms")
            if self._in_flight and ticks_diff(now, self._acked) > limit:
                raise MqttError(f"no PUBACK in {limit} ms")
            for answer in self._answers.values():
                if answer[1] is None and ticks_diff(now, answer[0]) > limit:
                    raise MqttError(f"no SUBACK in {limit} ms")
            if self._awaiting_pong:
                # Any packet counts as an answer: a broker with much to say gets to its PINGRESP late.
                if ticks_diff(now, self._pinged) > limit:
                    raise MqttError(f"no PINGRESP in {limit} ms")
            elif keepalive and (
                # Also when we send and hear nothing: QoS 0 alone would not notice a dead connection. Half of the
                # keepalive, so that a write that waits does not make us late (3.1.2.10).
                2 * ticks_diff(now, self._heard) > keepalive or 2 * ticks_diff(now, self._wrote) > keepalive
            ):
                if not self._sending and self._tx_end + 2 <= len(self._tx):
                    self._tx[self._tx_end] = 0xC0
                    self._tx[self._tx_end + 1] = 0
                    self._put(2)
                self._pinged = now
                self._awaiting_pong = True

    # ---- receiving ----

    async def _take(self, view, start, size):
        """Act on one whole packet, at `start` in the receive buffer."""
        first = view[start]
        kind = first >> 4
        body = start + 2
        while view[body - 1] > 127:
            body += 1
        end = start + size
        if not self.connected:
            if kind != CONNACK:
                raise MqttError(f"a packet of type {kind} before CONNACK")
            self._take_connack(view, first, body, end)
        elif kind == PUBLISH:
            packet_id, payload = publish_header(view, first, body, end)
            topic_end = payload - (2 if packet_id else 0)
            self._call(self.on_message, bytes(view[body + 2 : topic_end]), view[payload:end], bool(first & 1))
            if packet_id:
                await self._acknowledge(packet_id)
        elif kind == PUBACK and end - body == 2 and not first & 15:
            self._acked = ticks_ms()
            packet_id = view[body] << 8 | view[body + 1]
            if packet_id in self._in_flight:
                self._in_flight.remove(packet_id)
                self._changed.set()
                self._call(self.on_puback, packet_id)
        elif kind == SUBACK and end - body == 3 and not first & 15:
            answer = self._answers.get(view[body] << 8 | view[body + 1])
            if answer is not None:
                answer[1] = view[body + 2]
                self._changed.set()
        elif not ((first == PINGRESP << 4 and body == end) or (first == UNSUBACK << 4 and end - body == 2)):
            raise MqttError(f"a malformed or unexpected packet, first byte {first}, {end - body} bytes long")

    def _take_connack(self, view, first, body, end):
        if first & 15 or end - body != 2 or view[body] > 1:
            raise MqttError("a malformed CONNACK")
        if view[body + 1]:
            raise MqttRefused(view[body + 1])
        self.connected = self._accepted = True
        self.connections += 1
        self.error = None
        self._acked = ticks_ms()
        self.event_connected.set()
        self._call(self.on_connect, view[body] == 1)

    async def _acknowledge(self, packet_id):
        """PUBACK, in the order of arrival: only the reading task sends them (4.6; iotcore closes on any other order)."""
        await self._room(4, self._generation)
        tx = self._tx
        at = self._tx_end
        tx[at] = PUBACK << 4
        tx[at + 1] = 2
        tx[at + 2] = packet_id >> 8
        tx[at + 3] = packet_id & 255
        self._put(4)

    async def _skip(self, view, start, end, size):
        """Read past a publish that is larger than the buffer; returns what is then in the buffer, as (start, end)."""
        view[: end - start] = view[start:end]
        end -= start
        first = view[0]
        if first >> 4 != PUBLISH or not self.connected:
            raise MqttError(f"a packet of type {first >> 4} of {size} bytes")
        body = 2
        while view[body - 1] > 127:
            body += 1
        while end < body + 2 or end < min(len(view), body + 4 + (view[body] << 8 | view[body + 1])):
            end += await self._read(view[end:])
        packet_id, _ = publish_header(view, first, body, len(view))
        size -= end
        if size < 0:  # can't be: the buffer is smaller than the packet
            raise MqttError("a malformed packet")
        while size:
            size -= await self._read(view[: min(size, len(view))])
            self._heard = ticks_ms()
            self._pinged = self._heard
        self.oversized += 1
        if packet_id:
            await self._acknowledge(packet_id)
        return 0, 0

    # ---- sending ----

    def _put(self, count):
        self._tx_end += count
        self._tx_ready.set()

    async def _room(self, count, generation):
        """Wait until `count` bytes fit the buffer and no other packet is half in it."""
        while self._sending or self._tx_end + count > len(self._tx):
            await self._change(generation)

    async def _pieces(self, payload, generation):
        """Send a payload that does not fit the buffer; its header is in there already."""
        self._sending = True
        payload = memoryview(payload)
        at = 0
        try:
            while at < len(payload):
                count = min(len(self._tx) - self._tx_end, len(payload) - at)
                self._tx_view[self._tx_end : self._tx_end + count] = payload[at : at + count]
                at += count
                if count:
                    self._put(count)
                if at < len(payload):
                    await self._change(generation)
        finally:
            if generation == self._generation:
                self._sending = False
                if at < len(payload):
                    self._report(MqttError("a publish was cancelled within its packet"))
                    self._ended.set()
                self._changed.set()

    async def _change(self, generation):
        """Wait until something happened on the connection. MqttError if that was its end."""
        if generation == self._generation:
            self._changed.clear()
            await self._changed.wait()
        if generation != self._generation or not self.connected:
            raise MqttError("the connection ended")

    def _new_id(self):
        while True:
            self._packet_id = self._packet_id % 65535 + 1
            if self._packet_id not in self._in_flight and self._packet_id not in self._answers:
                return self._packet_id

    # ---- the rest ----

    def _call(self, callback, *arguments):
        try:
            callback(*arguments)
        except Exception as error:
            self.error = error

    def _report(self, error):
        if self._stopping:
            return  # after our DISCONNECT an end is no failure
        self.error = error
        self._call(self.on_error, error)

    async def _pause(self, delay_ms):
        """Wait between half of `delay_ms` and all of it, at random, so that a fleet does not come back as one."""
        delay_ms -= delay_ms * int.from_bytes(os.urandom(1), "big") // 512
        try:
            await asyncio.wait_for_ms(self._ended.wait(), delay_ms)
        except asyncio.TimeoutError:
            pass

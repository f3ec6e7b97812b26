"""Carries the journal to the broker, and the host's marks back into it (WIRE.md, confirmation)."""

import asyncio
import time

from micropython import const

from . import msgpack
from .clock import believable
from .cursor import Cursor

_MARK_WAIT_MS = const(1000)  # for the retained mark, after SUBACK
_LONGEST_RESEND_MS = const(3600000)
_LONGEST_ROUND_TRIP_MS = const(10000)
_ASK_EVERY_MS = const(60000)  # while the time is not well known
_IDLE_MS = const(1000)  # looks at its timers at least so often
_MOST_EARLY = const(100)  # the widest window
_RETRY_MS = const(1000)  # after flash could not be read


class Sender:
    """The task between a Journal and an MqttClient (`mqtt.py`, or anything that behaves alike).

    `prefix`: the node's topics without their last word, "lamppost/1/tenant/node/". `documents` has `about()`: (document,
    revision) in force, `status(state)`: the status document, and `changes()`: something that differs when the status has
    changed. `resend_s`: how long without a mark before what is not confirmed is sent again; it doubles up to an hour.
    `undated_s`: how long a connected node holds readings of unknown time back. `status_s`: the status goes out no more often.
    """

    def __init__(
        self, client, journal, clock, prefix, documents, log, resend_s=30, undated_s=600, status_s=10
    ):
        self._client = client
        self._journal = journal
        self._clock = clock
        self._prefix = prefix
        self._documents = documents
        self._log = log
        self._first_resend_ms = resend_s * 1000
        self._undated_ms = undated_s * 1000
        self._status_ms = status_s * 1000
        self._resend_ms = self._first_resend_ms
        self._wake = asyncio.Event()
        self._marked = asyncio.Event()  # a mark came in since the connection began
        self._cursor = Cursor(journal)
        self._mark_topic = (prefix + "mark").encode()
        self._time_topic = (prefix + "time").encode()
        self._forgotten = True  # by the broker, since the last time that everything was sent again: what it acknowledged may be lost
        self._connection = 0  # counts connections, so that a session notices that its own is over
        self._about_sent = None  # revision of the last about document on this connection
        self._quiet_since = 0  # ticks: since then no mark moved
        self._in_flight = []  # [packet id, segment, offset] of frames sent on this connection and not yet acknowledged
        self._early = []  # packet ids acknowledged since the last frame began to be published, and not known as a frame's
        self._status_sent = None  # what the last status said
        self._status_at = 0
        self._held_since = None
        self._asked_at = None
        self.sent = 0  # frames handed to the client, repeated ones too
        client.on_message = self._on_message
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_puback = self._on_puback
        self._cursor.rewind()

    def wake(self):
        """Something changed: a frame in the journal, a fault, the time. Cheap and synchronous."""
        self._wake.set()

    # What the client calls

    def _on_connect(self, session_present):
        self._forgotten = self._forgotten or not session_present
        self._connection += 1
        self._marked.clear()

    def _on_disconnect(self):
        self._wake.set()

    def _on_puback(self, packet_id):
        for i in range(len(self._in_flight)):
            if self._in_flight[i][0] == packet_id:
                self._in_flight.pop(i)
                return
        if len(self._early) >= _MOST_EARLY:
            self._early.pop(0)
        self._early.append(
            packet_id
        )  # the acknowledgement of a document, or of a frame whose `publish` has yet to return

    def _on_message(self, topic, payload, retained):
        try:
            if topic == self._mark_topic:
                self._take_mark(msgpack.unpack(payload))
            elif topic == self._time_topic and not retained:
                self._take_time(msgpack.unpack(payload))
        except (ValueError, TypeError) as error:
            # A node ignores what it can't read.
            self._log("mqtt: a message that can't be read: {}".format(error))

    def _take_mark(self, message):
        if len(message) != 2 or message[0] != 1:
            raise ValueError("another mark")
        head = self._journal.head
        for boot, seq in message[1]:
            if not isinstance(boot, bytes) or len(boot) != 8 or not isinstance(seq, int):
                raise ValueError("another mark")
            self._journal.confirm(boot, seq)
        if self._journal.head != head:
            # The oldest frame is confirmed. That others are is no reason to wait: a broker may have lost an earlier boot's.
            self._quiet_since = time.ticks_ms()
            self._resend_ms = self._first_resend_ms
        self._marked.set()
        self._wake.set()

    def _take_time(self, message):
        if len(message) != 4 or message[0] != 1 or not all([isinstance(item, int) for item in message]):
            raise ValueError("another time")
        _, ticks, seconds, milliseconds = message
        if ticks != self._asked_at or not 0 <= milliseconds < 1000 or not believable(seconds):
            return
        self._asked_at = None
        round_trip = time.ticks_diff(time.ticks_ms(), ticks)
        if not 0 <= round_trip <= _LONGEST_ROUND_TRIP_MS:
            return
        milliseconds += round_trip // 2
        # A millisecond for what the two clocks round off.
        self._clock.set_utc(seconds + milliseconds // 1000, milliseconds % 1000, round_trip // 2 + 1, "host")

    # The task

    async def run(self):
        """Serve one connection after the other until cancelled."""
        client = self._client
        while True:
            await client.event_connected.wait()
            connection = self._connection
            try:
                await self._session(connection)
            except OSError as error:
                # The connection, or the flash. The client comes back from the one; the other may pass.
                if client.connected:
                    self._log("sender: {}".format(error))
                    await asyncio.sleep_ms(_RETRY_MS)

    async def _session(self, connection):
        client = self._client
        self._about_sent = None
        self._asked_at = None
        self._resume()
        await client.subscribe(self._prefix + "mark", 0)
        await client.subscribe(self._prefix + "time", 0)
        await self._publish_about(None)
        await self._publish_status("online")
        await self._ask()
        asked = time.ticks_ms()
        try:
            await asyncio.wait_for_ms(self._marked.wait(), _MARK_WAIT_MS)
        except asyncio.TimeoutError:
            pass  # a node that the host has not heard of yet has none
        self._quiet_since = time.ticks_ms()
        self._held_since = self._quiet_since
        while client.connected and connection == self._connection:
            self._wake.clear()
            if self._resend_due():
                self._cursor.rewind()
                self._quiet_since = time.ticks_ms()
                self._resend_ms = min(2 * self._resend_ms, _LONGEST_RESEND_MS)
                self._log("sender: no mark; sending {} frames again".format(self._journal.pending))
            await self._send_frames()
            await self._refresh_status()
            if time.ticks_diff(time.ticks_ms(), asked) > _ASK_EVERY_MS:
                asked = time.ticks_ms()
                await self._ask()
            await self._wait(_IDLE_MS)

    async def _wait(self, milliseconds):
        try:
            await asyncio.wait_for_ms(self._wake.wait(), milliseconds)
        except asyncio.TimeoutError:
            pass

    def _resume(self):
        """Where to send from on a new connection: what the last one left unacknowledged, or all that is not confirmed if the broker has forgotten us."""
        cursor = self._cursor
        if self._forgotten:
            cursor.rewind()
            self._forgotten = False
        elif self._in_flight:
            cursor.go(*min([entry[1:] for entry in self._in_flight]))
        self._in_flight.clear()
        self._early.clear()

    def _resend_due(self):
        now = time.ticks_ms()
        if not self._journal.pending:
            self._quiet_since = now
            self._resend_ms = self._first_resend_ms
        return time.ticks_diff(now, self._quiet_since) >= self._resend_ms

    async def _send_frames(self):
        cursor = self._cursor
        client = self._client
        while client.connected and cursor.load():
            if cursor.undated() and not self._date(cursor):
                return
            revision = cursor.about_revision()
            if revision != self._about_sent:
                await self._publish_about(revision)
                continue  # the journal may have moved meanwhile: look again
            number = cursor.number
            offset = cursor.offset
            self._early.clear()
            packet_id = await client.publish(self._prefix + "obs", cursor.frame(), 1, False)
            if packet_id not in self._early:
                self._in_flight.append((packet_id, number, offset))
            self.sent += 1
            if (cursor.number, cursor.offset) == (number, offset):
                cursor.skip()
            if self._status_due():
                await self._refresh_status()
        if client.connected and self._about_sent != self._documents.about()[1]:
            await self._publish_about(
                None
            )  # after frames of an older one, the one in force is to be retained

    def _date(self, cursor):
        """Give the copy in the cursor's buffer its UTC, if that can be known. False: hold it back."""
        if cursor.boot == self._journal.boot:
            if not self._clock.synced:
                return time.ticks_diff(time.ticks_ms(), self._held_since) >= self._undated_ms
            offset = self._clock.boot_utc()
        else:
            offset = cursor.boot_utc()
            if offset is None:
                return True  # that boot never learnt it: it goes out as it is
        cursor.date(offset[0], offset[1])
        return True

    async def _publish_about(self, revision):
        """Publish the about document of that revision; None for the one in force."""
        document, current = self._documents.about()
        if revision is None or revision == current:
            revision = current
        else:
            document = self._cursor.find_about(revision)
        if document is not None:
            await self._client.publish(self._prefix + "about", document, 1, True)
        else:
            self._log(
                "sender: a frame's about document is gone"
            )  # the host keeps such a frame as a dead letter
        self._about_sent = revision

    # Status

    def _status_due(self):
        return time.ticks_diff(time.ticks_ms(), self._status_at) >= self._status_ms

    async def _refresh_status(self):
        if self._status_due() and self._documents.changes() != self._status_sent:
            await self._publish_status("online")

    async def _publish_status(self, state):
        self._status_sent = self._documents.changes()
        self._status_at = time.ticks_ms()
        await self._client.publish(self._prefix + "status", self._documents.status(state), 1, True)

    async def _ask(self):
        if not self._clock.wants_better():
            return
        self._asked_at = time.ticks_ms()
        await self._client.publish(self._prefix + "ask", msgpack.pack([1, self._asked_at]), 0, False)

    async def finish(self, timeout_ms):
        """Before a clean stop: wait until the host has confirmed everything, `timeout_ms` at most, and publish the last status."""
        client = self._client
        deadline = time.ticks_add(time.ticks_ms(), timeout_ms)
        # What was lost on the way must be sent again within the time that there is.
        self._first_resend_ms = self._resend_ms = min(self._first_resend_ms, max(1000, timeout_ms // 4))
        self.wake()
        while self._journal.pending and time.ticks_diff(deadline, time.ticks_ms()) > 0:
            left = time.ticks_diff(deadline, time.ticks_ms())
            await asyncio.sleep_ms(max(1, min(20, left)))
        if client.connected:
            try:
                await asyncio.wait_for_ms(self._last_words(), 2000)
            except (OSError, asyncio.TimeoutError) as error:
                self._log("sender: the last status did not get through: {!r}".format(error))

    async def _last_words(self):
        await self._publish_status("stopped")
        await self._client.drain(2000)

"""MicroPython code that the tests of sender and node share: `Broker` stands in for MqttClient and for the host behind it."""

from tests.firmware.journal_lab import LAB

PARTS = (
    LAB
    + """
import asyncio, struct
from binascii import crc32
from lamppost import msgpack
from lamppost.clock import Clock
from lamppost.sender import Sender

PREFIX = "lamppost/1/t/n/"

class Broker:
    def __init__(self):
        self.event_connected = asyncio.Event()
        self.connected = False
        self.published = []  # (topic, payload, qos, retain)
        self.acknowledging = True
        self.host = True  # confirms what it gets
        self.marks = {}
        self.retained_mark = None
        self.packet_id = 0
        self.unacknowledged = []
    def connect(self, session_present=False):
        self.connected = True
        self.event_connected.set()
        self.on_connect(session_present)
    def drop(self):
        self.connected = False
        self.event_connected.clear()
        del self.unacknowledged[:]
        self.on_disconnect()
    async def subscribe(self, topic, qos=0):
        await asyncio.sleep_ms(0)
        if topic == PREFIX + "mark" and self.retained_mark:
            self.on_message(topic.encode(), memoryview(self.retained_mark), True)
        return qos
    async def publish(self, topic, payload, qos=0, retain=False):
        if not self.connected:
            raise OSError("not connected")
        topic = topic[len(PREFIX):]
        self.published.append((topic, bytes(payload), qos, retain))
        self.packet_id += 1
        if qos:
            if self.acknowledging:
                asyncio.create_task(self._acknowledge(self.packet_id))
            else:
                self.unacknowledged.append(self.packet_id)
        if topic == "obs" and self.host:
            boot, seq = identity(payload)
            self.marks[boot] = max(seq, self.marks.get(boot, -1))
            asyncio.create_task(self.mark())
        await asyncio.sleep_ms(0)
        return self.packet_id
    async def _acknowledge(self, packet_id):
        self.on_puback(packet_id)
    async def mark(self):
        self.say("mark", [1, [[boot, self.marks[boot]] for boot in self.marks]])
    def say(self, topic, message):
        if self.connected:
            self.on_message((PREFIX + topic).encode(), memoryview(msgpack.pack(message)), False)
    async def drain(self, timeout_ms):
        pass
    def frames(self):
        return [identity(payload) for topic, payload, qos, retain in self.published if topic == "obs"]
    def of(self, topic):
        return [payload for name, payload, qos, retain in self.published if name == topic]

def identity(frame):
    '''(number of the boot, seq) of a frame.'''
    frame = bytes(frame)
    boot = frame[9:17]
    seq = frame[17]
    if seq == 0xCC:
        seq = frame[18]
    return boot, seq

def is_undated(frame):
    at = 17
    for _ in range(4):
        at += {0xCC: 2, 0xCD: 3, 0xCE: 5}.get(frame[at], 1)
    return frame[at] == 1

class Documents:
    def __init__(self, journal):
        self.journal = journal
        self.document = b"the about document"
        self.said = 0
        journal.set_about(self.document, crc32(self.document))
    def about(self):
        return self.document, crc32(self.document)
    def status(self, state):
        self.said += 1
        return msgpack.pack({"state": state, "pending": self.journal.pending})
    def changes(self):
        return self.journal.seq, self.journal.pending

log = []
def set_up(boot=1, clock=None, **settings):
    journal = open_journal(boot, limit=200000)
    documents = Documents(journal)
    journal.begin()
    broker = Broker()
    clock = clock or Clock()
    settings.setdefault("status_s", 0)
    sender = Sender(broker, journal, clock, PREFIX, documents, log.append, **settings)
    return journal, documents, broker, sender, clock

async def until(condition, milliseconds=8000):
    for _ in range(milliseconds // 5):
        if condition():
            return
        await asyncio.sleep_ms(5)
    raise AssertionError("waited in vain")

def go(main):
    asyncio.new_event_loop()
    asyncio.run(main)
"""
)

"""A whole node in one process: real sampling, journal and sender; the client is the test's. Clean stops, whatever they interrupt."""

import pytest

from tests.firmware.conftest import RunFirmware
from tests.firmware.sender_lab import PARTS

NODE = (
    PARTS
    + """
from lamppost import Node

class Client(Broker):
    '''A broker that is there as soon as the client runs.'''
    running = 0
    reachable = True
    async def run(self):
        self.running += 1
        if self.reachable:
            self.connect()
        try:
            while True:
                await asyncio.sleep_ms(1000)
        finally:
            if self.connected:
                self.drop()
    async def disconnect(self):
        self.said_goodbye = True
        if self.connected:
            self.drop()

class Driver:
    model = "test"
    sensor_id = None
    conversion_ms = 0
    datastreams = (Datastream("a", "air_temperature", "Cel", 2), Datastream("b", "relative_humidity", "%", 1))
    reads = 0
    def start(self):
        pass
    def read(self, out):
        self.reads += 1
        out[0] = 2000 + self.reads
        out[1] = 500
        self.act()
    def act(self):
        if self.reads == 12:
            node.stop()

SETTINGS = {"tenant": "t", "node": "n", "broker": {"host": "h"}, "journal": {"path": "/flash/j"}, "batch": {"rows": 5, "seconds": 60},
            "status_s": 0, "stop_s": 2}

def make(driver, client=None, **more):
    global node
    settings = dict(SETTINGS)
    settings.update(more)
    node = Node(settings, client=client or Client())
    node.observe(driver, every=0.02)
    return node

def status():
    return node.client.of("status")[-1]

def rows_of(frame):
    '''How many rows a frame has.'''
    at = 17
    for _ in range(3):
        at += {0xCC: 2, 0xCD: 3, 0xCE: 5}.get(frame[at], 1)
    return frame[at]

def delivered():
    '''Rows that reached the host, each frame once.'''
    frames = {}
    for payload in node.client.of("obs"):
        frames[identity(payload)] = payload
    return sum([rows_of(frame) for frame in frames.values()])
"""
)


def test_stop_delivers_everything_and_says_so(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        NODE
        + """
new_flash(64)
driver = Driver()
make(driver).run()
assert delivered() == driver.reads, (delivered(), driver.reads)
assert node.journal.taken == 2 * driver.reads and node.journal.pending == 0
assert b"stopped" in status() and node.client.said_goodbye
assert open_journal(2).cuts == 0, "a clean stop is no cut"
print("done")
"""
    )
    assert "done" in out


def test_stop_without_a_broker_keeps_everything_for_the_next_boot(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        NODE
        + """
import time
new_flash(64)
class Unreachable(Client):
    reachable = False
driver = Driver()
began = time.ticks_ms()
make(driver, Unreachable(), stop_s=1).run()
assert time.ticks_diff(time.ticks_ms(), began) < 5000
first = driver.reads
assert node.journal.pending == 3
driver = Driver()
make(driver).run()
assert delivered() == first + driver.reads
assert node.journal.pending == 0 and node.journal.cuts == 0
print("done")
"""
    )
    assert "done" in out


def test_ctrl_c_before_the_first_sample_still_sends_what_earlier_boots_left(
    run_firmware: RunFirmware,
) -> None:
    out = run_firmware(
        NODE
        + """
new_flash(64)
class Unreachable(Client):
    reachable = False
driver = Driver()
make(driver, Unreachable(), stop_s=0).run()
make(Driver())
describe = node._describe
def interrupted():
    node._describe = describe
    raise KeyboardInterrupt()
node._describe = interrupted
node.run()
assert delivered() == driver.reads and node.journal.pending == 0
assert open_journal(3).cuts == 0
print("done")
"""
    )
    assert "done" in out


@pytest.mark.parametrize("where", ["read", "append", "after the append", "publish", "confirm"])
def test_ctrl_c_anywhere_is_a_clean_stop(run_firmware: RunFirmware, where: str) -> None:
    """MicroPython raises KeyboardInterrupt wherever the program is: no reading may be lost or stored twice for it."""
    out = run_firmware(
        NODE
        + f"""
WHERE = {where!r}
new_flash(64)
struck = []
def strike(condition):
    if condition and not struck:
        struck.append(True)
        raise KeyboardInterrupt()

class Striking(Driver):
    def act(self):
        strike(WHERE == "read" and self.reads == 12)
        if self.reads > 200:
            node.stop()

class StrikingClient(Client):
    async def publish(self, topic, payload, qos=0, retain=False):
        result = await Client.publish(self, topic, payload, qos, retain)
        strike(WHERE == "publish" and len(self.frames()) == 2)
        return result

class File:
    '''The journal's file, that is interrupted when its record is in flash, but nobody knows it yet.'''
    def __init__(self, file):
        self.file = file
    def write(self, record):
        return self.file.write(record)
    def flush(self):
        self.file.flush()
        strike(WHERE == "append" and node.journal.seq == 2)
    def close(self):
        self.file.close()

driver = Striking()
make(driver, StrikingClient())
prepare = node._prepare
def prepared():
    prepare()
    journal = node.journal
    create = journal._create
    journal._create = lambda number, first: File(create(number, first))
    append = journal.append
    def append_and_strike(end, batch):
        done = append(end, batch)
        strike(WHERE == "after the append" and journal.seq == 2)
        return done
    journal.append = append_and_strike
    journal._close()  # so that the next segment is one of ours
    remove = journal.reader.peek
    def peek(*arguments):
        strike(WHERE == "confirm" and len(node.client.frames()) == 2)
        return remove(*arguments)
    journal.reader.peek = peek
node._prepare = prepared
node.run()
assert struck, "the test did not strike"
# A read that was interrupted before its row was kept is none.
kept = driver.reads - (WHERE == "read")
assert kept - 1 <= delivered() <= kept, (delivered(), driver.reads)
assert node.journal.taken == 2 * delivered(), (node.journal.taken, delivered())
assert node.journal.pending == 0
assert b"stopped" in status()
assert open_journal(2).cuts == 0
print("done")
"""
    )
    assert "done" in out


def test_ctrl_c_while_one_of_two_sensors_is_stored_costs_neither(run_firmware: RunFirmware) -> None:
    """The other sensor's batch, stored at the stop, must not be taken for the one that was interrupted."""
    out = run_firmware(
        NODE
        + """
new_flash(64)
class Other(Driver):
    datastreams = (Datastream("c", "air_temperature", "Cel", 2), Datastream("d", "relative_humidity", "%", 1))
Driver.act = lambda self: None
first, second = Other(), Driver()
node = Node(dict(SETTINGS), client=Client())
node.observe(first, every=0.03)
node.observe(second, every=0.02)
batches = [observer.batch for observer in node._observers]
encode = batches[1].encode
held = []
def interrupted(*arguments):
    if not held and batches[0].rows and node.journal.seq >= 2:
        held.append(batches[0].rows + batches[1].rows + node.journal.taken // 2)
        raise KeyboardInterrupt()
    return encode(*arguments)
batches[1].encode = interrupted
node.run()
assert delivered() == held[0], (delivered(), held)
assert node.journal.taken == 2 * held[0]
print("done")
"""
    )
    assert "done" in out


def test_a_time_server_out_of_reach_is_asked_seldom_once_the_time_is_known(run_firmware: RunFirmware) -> None:
    """Each look-up of its name can block the sampling for seconds."""
    out = run_firmware(
        NODE
        + """
import lamppost.node, lamppost.sntp
async def out_of_reach(server, clock):
    raise OSError("no answer")
lamppost.sntp.ask = out_of_reach
waits = []
class Asyncio:
    Event = asyncio.Event
    async def sleep(self, seconds):
        waits.append(seconds)
        raise asyncio.CancelledError()
lamppost.node.asyncio = Asyncio()
def ask(clock):
    try:
        asyncio.run(Node(SETTINGS, clock=clock, client=Client())._keep_time())
    except asyncio.CancelledError:
        pass
clock = Clock(calendar=False)
ask(clock)
clock.set_utc(200000000, 0, 20, "host")
ask(clock)
print(waits)
"""
    )
    assert out.strip() == "[60, 3600]"


def test_two_sensors_of_a_model_need_a_key(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        NODE
        + """
make(Driver())
try:
    node.observe(Driver(), every=1)
except ValueError as error:
    print(error)
node.observe(Driver(), every=1, key="roof")
print([key for observer in node._observers for key in observer.keys])
try:
    node.observe(Driver(), every=1, key="Roof of the house")
except ValueError as error:
    print(error)
try:
    Node(SETTINGS).run()
except ValueError as error:
    print(error)
"""
    )
    lines = out.strip().split("\n")
    assert "give this sensor a key=" in lines[0]
    assert lines[1] == "['a', 'b', 'roof_a', 'roof_b']"
    assert "1 to 32" in lines[2]
    assert lines[3] == "observe() a sensor first"


def test_a_mistake_in_the_sender_does_not_stop_the_sampling(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        NODE
        + """
new_flash(64)
class Mistaken(Client):
    failures = 0
    async def subscribe(self, topic, qos=0):
        if self.failures < 1:
            self.failures += 1
            raise TypeError("a mistake")
        return await Client.subscribe(self, topic, qos)
class Longer(Driver):
    def act(self):
        if self.reads == 100:
            node.stop()
driver = Longer()
make(driver, Mistaken()).run()
assert delivered() == driver.reads >= 100
assert [line for line in node.log.lines() if "a mistake" in line]
print("done")
"""
    )
    assert "done" in out


def test_running_out_of_memory_ends_the_program_with_what_was_taken_kept(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        NODE
        + """
new_flash(64)
class Hungry(Driver):
    def act(self):
        if self.reads == 8:
            raise MemoryError()
try:
    make(Hungry()).run()
    print("went on")
except MemoryError:
    print(delivered(), node.journal.pending)
"""
    )
    assert out.strip() == "7 0"


def test_full_flash_is_reported_and_the_node_lives_on(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        NODE
        + """
flash = new_flash(8)
with open("/flash/other", "wb") as file:
    try:
        while True:
            file.write(bytes(512))
            file.flush()
    except OSError:
        pass
class Freeing(Driver):
    def act(self):
        if self.reads == 15:
            os.remove("/flash/other")
        if self.reads == 30:
            node.stop()
driver = Freeing()
make(driver).run()
assert node.journal.refused > 0
assert 2 * delivered() + node.journal.refused == 2 * driver.reads, (delivered(), node.journal.refused, driver.reads)
assert node.journal.taken == 2 * delivered()
assert [line for line in node.log.lines() if "refuses" in line]
print("done")
"""
    )
    assert "done" in out


def test_the_log_is_bounded(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        """
from lamppost.log import Log
class Stream:
    text = ""
    def write(self, text):
        if len(self.text) > 200:
            raise OSError(32)
        self.text += text
stream = Stream()
log = Log(size=4, width=20, stream=stream)
for i in range(100):
    log("line %d %s\\n" % (i, "x" * 100))
print(len(log.lines()), log.lines()[-1], log.count, len(stream.text) < 300)
"""
    )
    assert out.strip() == "4 line 99 xxxxxxxxxxxx 100 True"

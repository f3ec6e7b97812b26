"""The PMS5003 driver against a simulated sensor on a UART, and against bytes of any kind."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.firmware.conftest import RunFirmware
from tests.firmware.conversation import Conversation, integers

MISSING = -(2**30)

SIMULATED = """
import machine
from array import array
from simulated.build import attach
from simulated.world import world
from lamppost.datastream import MISSING
from lamppost.drivers.pms5003 import PMS5003

class Clock:
    now = 1_700_000_000_000
    def read(self):
        return self.now
clock = Clock()
world.use_clock(clock.read)
out = array("i", [0, 0, 0])

def sample(driver):
    driver.start()
    clock.now += driver.conversion_ms
    driver.read(out)
    return list(out)

def failure(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return str(error)
    raise AssertionError("no error")
"""

# A UART that has received what `answer` is given: the frames are made in CPython.
BYTES = """
from array import array
from lamppost.drivers.pms5003 import PMS5003

class Received:
    data = b""
    def any(self):
        return len(self.data)
    def readinto(self, buf):
        count = min(len(buf), len(self.data))
        buf[:count] = self.data[:count]
        self.data = self.data[count:]
        return count

uart = Received()
driver = PMS5003(uart)
out = array("i", [0, 0, 0])

def answer(*numbers):
    driver.start()
    uart.data = bytes(numbers)
    try:
        driver.read(out)
    except OSError:
        assert list(out) == [-0x40000000] * 3
        return [-1]
    finally:
        uart.data = b""
    return list(out)
"""


def frame(*values: int, wrong: int = 0) -> bytes:
    """Appendix I of the manual: "BM", 28, 13 values, their sum. `values`: the three of the atmosphere."""
    body = b"BM\0\x1c" + b"".join(
        value.to_bytes(2, "big") for value in (1, 2, 3, *values, 0, 0, 0, 0, 0, 0, 0x9700)
    )
    return body + ((sum(body) + wrong) & 0xFFFF).to_bytes(2, "big")


@pytest.fixture(scope="module")
def received(micropython: list[str]) -> Iterator[Conversation]:
    conversation = Conversation(micropython, BYTES)
    yield conversation
    conversation.close()


VALUES = st.tuples(*[st.integers(0, 65535)] * 3)
# Noise that is likely to look like a frame's beginning.
NOISE = st.lists(st.sampled_from([0x42, 0x4D, 0, 28, 0x43, 255]), max_size=70).map(bytes)


@settings(max_examples=500, deadline=None)
@given(NOISE, VALUES, st.integers(0, 31), VALUES)
def test_finds_the_frame_after_noise(
    received: Conversation,
    noise: bytes,
    earlier: tuple[int, int, int],
    cut: int,
    values: tuple[int, int, int],
) -> None:
    """Noise, a frame that breaks off, and then one frame: that one is found, whatever the noise began."""
    data = noise + frame(*earlier)[:cut] + frame(*values)
    assert integers(received.ask(*data)) == list(values)


@settings(max_examples=300, deadline=None)
@given(VALUES, st.integers(1, 0xFFFF))
def test_refuses_a_wrong_checksum(received: Conversation, values: tuple[int, int, int], wrong: int) -> None:
    assert received.ask(*frame(*values, wrong=wrong)) == "[-1]"


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=900))
def test_any_bytes_do_no_harm(received: Conversation, data: bytes) -> None:
    assert integers(received.ask(*data)) == [-1] or b"BM" in data
    assert integers(received.ask(*frame(7, 8, 9))) == [7, 8, 9]


def test_takes_the_latest_frame(received: Conversation) -> None:
    assert integers(received.ask(*frame(1, 2, 3), *frame(4, 5, 6))) == [4, 5, 6]
    assert integers(received.ask(*frame(1, 2, 3), *frame(4, 5, 6, wrong=1))) == [1, 2, 3]


def test_refuses_another_length(received: Conversation) -> None:
    """A PMS of another kind (PMSA003I and others send other frames) is no PMS5003."""
    other = bytearray(frame(1, 2, 3))
    other[3] = 20
    other[30:] = (sum(other[:30])).to_bytes(2, "big")
    assert received.ask(*other) == "[-1]"


def test_reads_what_the_simulated_sensor_sends(run_firmware: RunFirmware) -> None:
    run_firmware(
        SIMULATED
        + """
attach({"sensor": "pms5003", "pm1": 0, "pm2_5": 35, "pm10": 999, "interval_ms": 600,
        "faults": {"bad_checksum_every": 4, "garbage_every": 3, "short_frame_every": 5}})
driver = PMS5003(machine.UART(2, 9600))
for _ in range(200):
    clock.now += 60000  # the receive buffer runs over between the samples
    assert sample(driver) == [0, 35, 999]
"""
    )


def test_old_frames_do_not_count(run_firmware: RunFirmware) -> None:
    """What the receive buffer kept from the last minute is not a measurement of now."""
    run_firmware(
        SIMULATED
        + """
device = attach({"sensor": "pms5003", "pm1": 1, "pm2_5": 2, "pm10": 3})
driver = PMS5003(machine.UART(2, 9600))
clock.now += 60000
driver.start()
assert "sends nothing" in failure(driver.read, out)
assert list(out) == [MISSING] * 3
device._inputs[1]._value = 50
assert sample(driver) == [1, 50, 3]
assert "sends nothing" in failure(driver.read, out), "a measurement is read once"
"""
    )


def test_faults_are_named(run_firmware: RunFirmware) -> None:
    run_firmware(
        SIMULATED
        + """
driver = PMS5003(machine.UART(2, 9600))
assert failure(sample, driver) == "PMS5003: it sends nothing"
device = attach({"sensor": "pms5003", "faults": {"bad_checksum_every": 1}})
assert failure(sample, driver) == "PMS5003: wrong checksum"
world.clear()
device = attach({"sensor": "pms5003"})
assert "no whole frame" in failure(sample, PMS5003(machine.UART(2, 115200))), "another baud rate"
driver = PMS5003(machine.UART(2, 9600))
assert sample(driver) == [5, 8, 12]
device.absent = True
assert failure(sample, driver) == "PMS5003: it sends nothing"
device.absent = False
assert sample(driver) == [5, 8, 12]
"""
    )


def test_start_and_read_allocate_nothing(run_firmware: RunFirmware) -> None:
    run_firmware(
        SIMULATED
        + """
import gc, micropython, time
world.use_clock(None)
attach({"sensor": "pms5003", "pm1": 1, "pm2_5": 20, "pm10": 300, "interval_ms": 10, "faults": {"garbage_every": 2, "bad_checksum_every": 3}})
driver = PMS5003(machine.UART(2, 9600))
def measure():
    driver.start()
    time.sleep_ms(100)
    driver.read(out)
measure()
gc.collect()
before = gc.mem_alloc()
micropython.heap_lock()
measure()
micropython.heap_unlock()
assert gc.mem_alloc() == before
assert list(out) == [1, 20, 300]
"""
    )

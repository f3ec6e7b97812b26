"""The DS18B20 driver against simulated slaves on a 1-Wire bus."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.firmware.conftest import RunFirmware
from tests.firmware.conversation import Conversation, integers

MISSING = -(2**30)

SIMULATED = """
import machine, onewire
from array import array
from simulated.build import attach
from simulated.world import world
from lamppost.datastream import MISSING
from lamppost.drivers.ds18b20 import DS18B20, crc8

class Clock:
    now = 1_700_000_000_000
    def read(self):
        return self.now
clock = Clock()
world.use_clock(clock.read)
out = array("i", [0])

def sample(driver):
    driver.start()
    clock.now += driver.conversion_ms
    driver.read(out)
    return out[0]

def failure(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return str(error)
    raise AssertionError("no error")

def bus():
    return onewire.OneWire(machine.Pin(4))
"""

# A bus that holds any nine bytes as its scratchpad.
SCRATCHPAD = """
from array import array
from lamppost.drivers.ds18b20 import DS18B20

class Bus:
    pad = bytes(9)
    def reset(self):
        return True
    def writebyte(self, byte):
        pass
    def readinto(self, buf):
        buf[:] = self.pad

bus = Bus()
driver = DS18B20(bus, rom="28a1b2c3d4e5f6ac")
out = array("i", [0])

def answer(*numbers):
    bus.pad = bytes(numbers)
    driver.start()
    try:
        driver.read(out)
    except OSError:
        pass
    return list(out)
"""


def crc8(data: bytes) -> int:
    """Bit by bit from the polynomial of Maxim application note 27: x⁸ + x⁵ + x⁴ + 1, low bit first."""
    register = 0
    for byte in data:
        for bit in range(8):
            feedback = (register ^ (byte >> bit)) & 1
            register >>= 1
            if feedback:
                register ^= 0b10001100
    return register


def scratchpad(raw: int, configuration: int = 0x7F) -> bytes:
    body = (raw & 0xFFFF).to_bytes(2, "little") + bytes([0x4B, 0x46, configuration, 0xFF, 0x0C, 0x10])
    return body + bytes([crc8(body)])


@pytest.fixture(scope="module")
def pad(micropython: list[str]) -> Iterator[Conversation]:
    conversation = Conversation(micropython, SCRATCHPAD)
    yield conversation
    conversation.close()


def test_every_temperature_of_the_range_is_rounded_right(pad: Conversation) -> None:
    """−55 to 125 °C in sixteenths: the nearest hundredth, halves away from zero."""
    for raw in range(-55 * 16, 125 * 16 + 1):
        if raw == 85 * 16:
            continue
        magnitude = (abs(raw) * 100 + 8) // 16
        assert integers(pad.ask(*scratchpad(raw))) == [magnitude if raw >= 0 else -magnitude]


@pytest.mark.parametrize(
    ("raw", "hundredths"),
    # Table 1 of the data sheet.
    [(0x07D0, 12500), (0x0191, 2506), (0x00A2, 1013), (0x0008, 50), (0, 0), (0xFFF8, -50), (0xFF5E, -1013), (0xFE6F, -2506), (0xFC90, -5500)],
)  # fmt: skip
def test_the_datasheets_table(pad: Conversation, raw: int, hundredths: int) -> None:
    assert integers(pad.ask(*scratchpad(raw))) == [hundredths]


def test_the_undefined_bits_of_a_lower_resolution_are_dropped(pad: Conversation) -> None:
    assert integers(pad.ask(*scratchpad(0x0197, 0x1F))) == [2500]
    assert integers(pad.ask(*scratchpad(0x0197, 0x3F))) == [2525]
    assert integers(pad.ask(*scratchpad(-1, 0x1F))) == [-50]


@settings(max_examples=500, deadline=None)
@given(st.integers(-55 * 16, 125 * 16), st.integers(0, 71), st.data())
def test_one_wrong_bit_is_noticed(pad: Conversation, raw: int, bit: int, data: st.DataObject) -> None:
    wrong = bytearray(scratchpad(raw))
    wrong[bit // 8] ^= 1 << (bit % 8)
    assert integers(pad.ask(*wrong)) == [MISSING]


@pytest.mark.parametrize("content", [bytes(9), b"\xff" * 9, scratchpad(85 * 16), scratchpad(400, 0x00)])
def test_what_is_no_measurement_is_refused(pad: Conversation, content: bytes) -> None:
    """A shorted bus (whose CRC is right), an idle one, the value of power-on, a chip with another configuration register."""
    assert integers(pad.ask(*content)) == [MISSING]


def test_reads_what_the_simulated_sensor_measures(run_firmware: RunFirmware) -> None:
    run_firmware(
        SIMULATED
        + """
device = attach({"sensor": "ds18b20", "temperature": 20})
driver = DS18B20(bus(), observed_property="water_temperature")
assert driver.sensor_id == "28a1b2c3d4e5f6ac", driver.sensor_id
assert driver.datastreams[0].property == "water_temperature"
for sixteenths in range(-880, 2001, 9):
    device._input._value = sixteenths * 625
    wanted = (abs(sixteenths) * 25 + 2) // 4 * (1 if sixteenths >= 0 else -1)
    assert sample(driver) == wanted, (sixteenths, wanted, out[0])
"""
    )


def test_several_on_one_bus_are_told_apart(run_firmware: RunFirmware) -> None:
    run_firmware(
        SIMULATED
        + """
roms = ["28000000000001", "28ff0000000001", "2800000000ff02", "10000000000003"]
devices = [attach({"sensor": "ds18b20", "rom": rom, "temperature": 10 + i}) for i, rom in enumerate(roms)]
found = sorted([bytes(rom).hex() for rom in bus().scan()])
assert found == sorted([bytes(device.rom).hex() for device in devices]), found
for i in range(3):
    assert sample(DS18B20(bus(), rom=bytes(devices[i].rom))) == 1000 + 100 * i
    assert sample(DS18B20(bus(), rom=bytes(devices[i].rom).hex())) == 1000 + 100 * i
driver = DS18B20(bus())
text = failure(driver.start)
assert "several" in text and bytes(devices[1].rom).hex() in text and bytes(devices[3].rom).hex() not in text, text
for rom in ("28a1b2c3d4e5f6ad", "10000000000003" + "%02x" % devices[3].rom[7], "28"):
    try:
        DS18B20(bus(), rom=rom)
        raise AssertionError(rom)
    except ValueError:
        pass
"""
    )


def test_faults_are_named(run_firmware: RunFirmware) -> None:
    run_firmware(
        SIMULATED
        + """
driver = DS18B20(bus())
assert driver.sensor_id is None
assert "none found" in failure(driver.start)
assert "no measurement was started" in failure(driver.read, out)
device = attach({"sensor": "ds18b20", "temperature": 7, "faults": {"bad_crc_every": 3}})
seen = []
for _ in range(6):
    try:
        seen.append(sample(driver))
    except OSError as error:
        assert "wrong CRC" in str(error) and out[0] == MISSING
        seen.append(None)
assert seen == [700, 700, None] * 2, seen
assert driver.sensor_id == "28a1b2c3d4e5f6ac"

device.absent = True
assert "nothing answers" in failure(driver.start)
assert driver.sensor_id == "28a1b2c3d4e5f6ac", "a sensor that is away keeps its name"
assert "none found" in failure(driver.start)
attach({"sensor": "ds18b20", "rom": "28000000000001", "temperature": 8})
assert sample(driver) == 800, "another in its place"
assert driver.sensor_id[:14] == "28000000000001"

world.clear()
device = attach({"sensor": "ds18b20", "temperature": 7, "faults": {"never_converts": True}})
driver = DS18B20(bus())
assert "85" in failure(sample, driver)

world.clear()
device = attach({"sensor": "ds18b20", "temperature": 7})
driver = DS18B20(bus(), rom=bytes(device.rom))
assert sample(driver) == 700
device.rom[7] ^= 1
driver.start()
assert "does not answer to its ROM" in failure(driver.read, out)
"""
    )


def test_a_reading_before_its_time_is_not_new(run_firmware: RunFirmware) -> None:
    """The sensor converts for 750 ms; until then its scratchpad has the old value, after power-on 85 °C."""
    run_firmware(
        SIMULATED
        + """
device = attach({"sensor": "ds18b20", "temperature": 7})
driver = DS18B20(bus())
driver.start()
clock.now += 749
assert "85" in failure(driver.read, out)
clock.now += 1
driver.read(out)
assert out[0] == 700
"""
    )


def test_start_and_read_allocate_nothing(run_firmware: RunFirmware) -> None:
    run_firmware(
        SIMULATED
        + """
import gc, micropython, time
world.use_clock(None)
attach({"sensor": "ds18b20", "temperature": -12.34})
driver = DS18B20(bus())
def measure():
    driver.start()
    time.sleep_ms(driver.conversion_ms)
    driver.read(out)
measure()
gc.collect()
before = gc.mem_alloc()
micropython.heap_lock()
measure()
micropython.heap_unlock()
assert gc.mem_alloc() == before
assert out[0] == -1231, out[0]
"""
    )

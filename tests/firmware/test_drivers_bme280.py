"""The BME280 driver against the datasheet's formulas, and against the simulated sensor's registers."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.firmware.conftest import RunFirmware
from tests.firmware.conversation import Conversation, integers

MISSING = -(2**30)

# Registers in memory: the test says what the sensor's calibration and results are. `answer` gets locked, then 18 trimming values, then 3 results.
REGISTERS = """
import gc, micropython, struct
from array import array
from lamppost.drivers.bme280 import BME280

class Registers:
    def __init__(self):
        self.memory = bytearray(256)
        self.memory[0xD0] = 0x60
    def readfrom_mem(self, address, register, count):
        return bytes(self.memory[register:register + count])
    def readfrom_mem_into(self, address, register, buf):
        for i in range(len(buf)):
            buf[i] = self.memory[register + i]
    def writeto_mem(self, address, register, buf):
        self.memory[register] = buf[0] & ~skipped[register]

i2c = Registers()
skipped = {0xF2: 0, 0xF4: 0}
out = array("i", [0, 0, 0])

def answer(locked, *numbers):
    if len(numbers) == 23:
        skipped[0xF2], skipped[0xF4] = numbers[21:]
        numbers = numbers[:21]
    memory = i2c.memory
    struct.pack_into("<HhhHhhhhhhhh", memory, 0x88, *numbers[:12])
    h1, h2, h3, h4, h5, h6, adc_t, adc_p, adc_h = numbers[12:]
    memory[0xA1] = h1
    struct.pack_into("<hB", memory, 0xE1, h2, h3)
    memory[0xE4] = (h4 >> 4) & 0xFF
    memory[0xE5] = (h4 & 0x0F) | (h5 & 0x0F) << 4
    memory[0xE6] = (h5 >> 4) & 0xFF
    memory[0xE7] = h6 & 0xFF
    for at, value in ((0xF7, adc_p), (0xFA, adc_t)):
        memory[at], memory[at + 1], memory[at + 2] = value >> 12, (value >> 4) & 0xFF, (value & 0x0F) << 4
    memory[0xFD], memory[0xFE] = adc_h >> 8, adc_h & 0xFF
    driver = BME280(i2c)
    driver.start()
    if locked:
        gc.collect()
        micropython.heap_lock()
        driver.start()
        driver.read(out)
        micropython.heap_unlock()
    else:
        driver.read(out)
    return list(out)
"""


class Overflow(Exception):
    """The datasheet's C would have left 32 bits: its result means nothing."""


def s32(value: int) -> int:
    if not -(2**31) <= value < 2**31:
        raise Overflow
    return value


def u32(value: int) -> int:
    if not 0 <= value < 2**32:
        raise Overflow
    return value


def c_division(a: int, b: int) -> int:
    return a // b  # both are unsigned where the datasheet divides


def datasheet_t_fine(t: list[int], adc: int) -> int:
    """BST-BME280-DS002, section 4.2.3, in C's integers: every signed intermediate is checked."""
    var1 = s32(s32((adc >> 3) - (t[0] << 1)) * t[1]) >> 11
    var2 = s32(s32(((adc >> 4) - t[0]) ** 2) >> 12)
    return s32(var1 + (s32(var2 * t[2]) >> 14))


def datasheet_temperature(t_fine: int) -> int:
    return s32(s32(t_fine * 5) + 128) >> 8


def datasheet_pressure(p: list[int], t_fine: int, adc: int) -> int | None:
    """Section 8.2, the 32-bit variant; None where it says that there is no result."""
    p1, p2, p3, p4, p5, p6, p7, p8, p9 = p
    var1 = s32((t_fine >> 1) - 64000)
    var2 = s32(s32(s32((var1 >> 2) ** 2) >> 11) * p6)
    var2 = s32(var2 + s32(s32(var1 * p5) * 2))
    var2 = s32((var2 >> 2) + s32(p4 * 65536))
    square = s32((var1 >> 2) ** 2) >> 13
    var1 = s32((s32(p3 * square) >> 3) + (s32(p2 * var1) >> 1)) >> 18
    var1 = s32((32768 + var1) * p1) >> 15
    if var1 == 0:
        return None
    result = u32(u32(u32(1048576 - adc) - (var2 >> 12)) * 3125)
    u32(var1)
    if result < 0x80000000:
        result = u32(c_division(u32(result << 1), var1))
    else:
        result = u32(c_division(result, var1) * 2)
    var1 = s32(p9 * s32(u32((result >> 3) ** 2) >> 13)) >> 12
    var2 = s32(s32(result >> 2) * p8) >> 13
    return u32(s32(result) + (s32(s32(var1 + var2) + p7) >> 4))


def datasheet_humidity(h: list[int], t_fine: int, adc: int) -> int:
    """Section 4.2.3: 1/1024 %."""
    h1, h2, h3, h4, h5, h6 = h
    v = s32(t_fine - 76800)
    left = s32(s32(s32(s32(adc << 14) - s32(h4 * 2**20)) - s32(h5 * v)) + 16384) >> 15
    inner = s32(s32(s32(v * h6) >> 10) * s32((s32(v * h3) >> 11) + 32768)) >> 10
    right = s32(s32(s32(inner + 2097152) * h2) + 8192) >> 14
    v = s32(left * right)
    v = s32(v - (s32(s32(s32((v >> 15) ** 2) >> 7) * h1) >> 4))
    return min(max(v, 0), 419430400) >> 12


def expected(numbers: list[int]) -> list[int | None]:
    """What the driver has to read; None where the datasheet's formula has no meaning."""
    t, p, h = numbers[:3], numbers[3:12], numbers[12:18]
    adc_t, adc_p, adc_h = numbers[18:]
    try:
        t_fine = datasheet_t_fine(t, adc_t)
        values: list[int | None] = [datasheet_temperature(t_fine)]
    except Overflow:
        return [None] * 3
    try:
        values.append((datasheet_humidity(h, t_fine, adc_h) * 25 + 128) >> 8)
    except Overflow:
        values.append(None)
    try:
        pressure = datasheet_pressure(p, t_fine, adc_p)
        # The driver gives nothing over 2621 hPa: no air has that.
        values.append(pressure if pressure is None or pressure <= 200000 else None)
    except Overflow:
        values.append(None)
    return values


@pytest.fixture(scope="module")
def registers(micropython: list[str]) -> Iterator[Conversation]:
    conversation = Conversation(micropython, REGISTERS)
    yield conversation
    conversation.close()


S16 = st.integers(-(2**15), 2**15 - 1)
U16 = st.integers(1, 2**16 - 1)
S12 = st.integers(-(2**11), 2**11 - 1)
ANY_CALIBRATION = st.tuples(
    *[U16, S16, S16],
    *[U16, *[S16] * 8],
    *[st.integers(0, 255), S16, st.integers(0, 255), S12, S12, st.integers(-128, 127)],
)

# An ordinary sensor's, and how far others are from it.
TYPICAL = [28485, 26735, 50, 36738, -10635, 3024, 6980, -4, -7, 9900, -10230, 4285, 75, 370, 1, 313, 50, 30]
SPREAD = [900, 900, 950, 1200, 600, 100, 2500, 250, 0, 5700, 4500, 1800, 0, 25, 1, 50, 12, 1]
PLAUSIBLE_CALIBRATION = st.tuples(
    *[st.integers(middle - spread, middle + spread) for middle, spread in zip(TYPICAL, SPREAD, strict=True)]
)
# All but the pair that a sensor holds after its reset: the driver refuses that one.
ANY_RESULTS = st.tuples(st.integers(0, 0xFFFFF), st.integers(0, 0xFFFFF), st.integers(0, 0xFFFF)).filter(
    lambda results: results[:2] != (0x80000, 0x80000)
)


def check(registers: Conversation, numbers: list[int], locked: bool) -> list[int | None]:
    read = integers(registers.ask(int(locked), *numbers))
    wanted = expected(numbers)
    for got, value in zip(read, wanted, strict=True):
        if value is not None:
            assert got == value, (read, wanted)
    return wanted


@settings(max_examples=1000, deadline=None)
@given(ANY_CALIBRATION, ANY_RESULTS)
def test_equals_the_datasheet_for_any_calibration(
    registers: Conversation, calibration: tuple[int, ...], results: tuple[int, ...]
) -> None:
    check(registers, [*calibration, *results], locked=False)


@settings(max_examples=1000, deadline=None)
@given(PLAUSIBLE_CALIBRATION, ANY_RESULTS)
def test_equals_the_datasheet_for_plausible_sensors(
    registers: Conversation, calibration: tuple[int, ...], results: tuple[int, ...]
) -> None:
    check(registers, [*calibration, *results], locked=False)


def adc_of_temperature(calibration: tuple[int, ...], wanted: int) -> int:
    low, high = 0, 0xFFFFF
    while low < high:
        middle = (low + high) // 2
        if datasheet_temperature(datasheet_t_fine(list(calibration[:3]), middle)) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@settings(max_examples=1000, deadline=None)
@given(PLAUSIBLE_CALIBRATION, st.integers(-4000, 8500), st.integers(100000, 900000), st.integers(0, 0xFFFF))
def test_reads_without_allocating_over_the_whole_range(
    registers: Conversation, calibration: tuple[int, ...], temperature: int, adc_p: int, adc_h: int
) -> None:
    """−40 to 85 °C, every pressure and humidity: no intermediate becomes a big integer, on a 32-bit interpreter neither."""
    adc_t = adc_of_temperature(calibration, temperature)
    wanted = check(registers, [*calibration, adc_t, adc_p, adc_h], locked=True)
    assert wanted[0] == pytest.approx(temperature, abs=1)
    assert wanted[1] is not None


def test_the_datasheets_own_example(registers: Conversation) -> None:
    """The worked example that Bosch gives for the temperature and pressure formulas (BMP280 data sheet, section 3.12: the same formulas)."""
    calibration = [
        27504,
        26435,
        -1000,
        36477,
        -10685,
        3024,
        2855,
        140,
        -7,
        15500,
        -14600,
        6000,
        *TYPICAL[12:],
    ]
    read = integers(registers.ask(1, *calibration, 519888, 415148, 30000))
    assert read[0] == 2508
    assert read[2] == 100656  # 32-bit formula; 100653.27 Pa in floating point


def test_skipped_values_are_missing(registers: Conversation) -> None:
    """What was not measured is told from the oversampling that the sensor says is in force."""
    results = [519888, 415148, 0x8000]
    whole = integers(registers.ask(1, *TYPICAL, *results, 0, 0))
    assert MISSING not in whole, "0x8000 is a humidity like any other when the humidity was measured"
    assert integers(registers.ask(1, *TYPICAL, *results, 0x07, 0)) == [whole[0], MISSING, whole[2]]
    assert integers(registers.ask(1, *TYPICAL, *results, 0, 0x1C)) == [whole[0], whole[1], MISSING]
    assert integers(registers.ask(1, *TYPICAL, *results, 0, 0xE0)) == [MISSING] * 3
    registers.ask(1, *TYPICAL, *results, 0, 0)


SIMULATED = """
import machine, time
from array import array
from simulated.build import attach
from simulated.world import world
from lamppost.datastream import MISSING
from lamppost.drivers.bme280 import BME280

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


def test_reads_what_the_simulated_sensor_measures(run_firmware: RunFirmware) -> None:
    """Both ways through the registers, over the whole range and every oversampling that resolves it."""
    run_firmware(
        SIMULATED
        + """
device = attach({"sensor": "bme280"})
for oversampling in ((1, 16, 1), (2, 16, 1), (16, 16, 16)):
    driver = BME280(machine.I2C(0), oversampling=oversampling)
    for t in range(-4000, 8501, 311):
        for h, p in ((0, 30000), (1, 50001), (4890, 101325), (9999, 99999), (10000, 110000)):
            device._inputs[0]._value, device._inputs[1]._value, device._inputs[2]._value = t, h, p
            read = sample(driver)
            # Where it would leave 32 bits, the datasheet's formula gives every other pascal only.
            assert read[:2] == [t, h] and abs(read[2] - p) <= (2 if p > 105000 else 0), (oversampling, (t, h, p), read)
"""
    )


def test_faults_are_named(run_firmware: RunFirmware) -> None:
    run_firmware(
        SIMULATED
        + """
driver = BME280(machine.I2C(0))
assert failure(driver.start) == "[Errno 19] ENODEV", failure(driver.start)
assert "no measurement was started" in failure(driver.read, out)

device = attach({"sensor": "bme280", "temperature": 21.5, "humidity": 40, "pressure": 1000})
assert sample(driver) == [2150, 4000, 100000], "a sensor plugged in later works"

driver.start()
assert failure(driver.read, out) == "BME280: still measuring"
assert list(out) == [MISSING] * 3

driver.start()
device.absent = True
assert "ENODEV" in failure(driver.read, out)
assert "ENODEV" in failure(driver.start)
device.absent = False
device.calibration["T"] = (28000, 26000, 40)
device.power_on()
assert sample(driver) == [2150, 4000, 100000], "another one in its place, with its own calibration"

driver.start()
clock.now += 100
device.power_on()
assert failure(driver.read, out) == "BME280: it lost its power while it measured"
assert sample(driver) == [2150, 4000, 100000]

for chip, text in ((0x58, "a BMP280 at 0x76"), (0x61, "chip id 0x61")):
    world.clear()
    attach({"sensor": "bme280", "faults": {"chip_id": chip}})
    assert text in failure(BME280(machine.I2C(0)).start)

world.clear()
device = attach({"sensor": "bme280"})
for i in range(0x88, 0xA2):
    device.registers[i] = 0
assert "calibration" in failure(BME280(machine.I2C(0)).start)

try:
    BME280(machine.I2C(0), oversampling=(3, 1, 1))
    raise AssertionError
except ValueError:
    pass
"""
    )


def test_a_bus_that_fails_now_and_then_is_an_error_each_time(run_firmware: RunFirmware) -> None:
    run_firmware(
        SIMULATED
        + """
attach({"sensor": "bme280", "temperature": 21.5})
world.bus("i2c", 0).error_every = 7
driver = BME280(machine.I2C(0))
good = bad = 0
for _ in range(100):
    try:
        good += sample(driver)[0] == 2150
    except OSError as error:
        assert error.errno == 110
        bad += 1
assert good + bad == 100 and good > 30 and bad > 30, (good, bad)
"""
    )


def test_start_and_read_allocate_nothing_on_the_simulated_bus(run_firmware: RunFirmware) -> None:
    run_firmware(
        SIMULATED
        + """
import gc, micropython
world.use_clock(None)
attach({"sensor": "bme280", "temperature": -3.21, "humidity": 99.5, "pressure": 1040})
driver = BME280(machine.I2C(0))
for _ in range(2):
    driver.start(); time.sleep_ms(driver.conversion_ms); driver.read(out)
gc.collect()
before = gc.mem_alloc()
micropython.heap_lock()
driver.start(); time.sleep_ms(driver.conversion_ms); driver.read(out)
micropython.heap_unlock()
assert gc.mem_alloc() == before
assert list(out) == [-321, 9950, 104000]
"""
    )


def test_the_conversion_time_is_the_datasheets_maximum(run_firmware: RunFirmware) -> None:
    """Section 9.1: 9.3 ms with all at ×1; 112.8 ms with all at ×16."""
    printed = run_firmware(
        "from lamppost.drivers.bme280 import BME280\n"
        "print([BME280(None, oversampling=(n, n, n)).conversion_ms for n in (1, 16)], BME280(None).conversion_ms)"
    )
    assert printed.strip() == "[10, 113] 47"

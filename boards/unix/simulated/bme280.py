"""A BME280 as its registers (Bosch BST-BME280-DS002, section 5: the memory map).

It measures by turning the sensor's arithmetic round: it looks for the ADC values that the datasheet's compensation (sections
4.2.3 and 8.2) turns into the wanted temperature, humidity and pressure, as far as the oversampling's resolution allows.
"""

import struct

from simulated.inputs import build_input
from simulated.world import world

CALIBRATION = {
    "T": (28485, 26735, 50),
    "P": (36738, -10635, 3024, 6980, -4, -7, 9900, -10230, 4285),
    "H": (75, 290, 0, 313, 50, 30),
}
"""Trimming values of a good sensor: T1 to T3, P1 to P9, H1 to H6. With most sensors' H2 (about 370) two neighbouring results are 0.011 %
apart; this one has a result for every 0.01 %."""

CHIP_ID, RESET, CTRL_HUM, STATUS, CTRL_MEAS, CONFIG, DATA = 0xD0, 0xE0, 0xF2, 0xF3, 0xF4, 0xF5, 0xF7
MEASURING = 0x08
SKIPPED_20, SKIPPED_16 = 0x80000, 0x8000
_OVERSAMPLING = (0, 1, 2, 4, 8, 16, 16, 16)


def temperature(calibration, adc):
    """-> (t_fine, temperature in 0.01 °C)."""
    t1, t2, t3 = calibration["T"]
    var1 = (((adc >> 3) - (t1 << 1)) * t2) >> 11
    var2 = (((((adc >> 4) - t1) * ((adc >> 4) - t1)) >> 12) * t3) >> 14
    t_fine = var1 + var2
    return t_fine, (t_fine * 5 + 128) >> 8


def pressure(calibration, t_fine, adc):
    """-> Pa, by the 32-bit formula."""
    p1, p2, p3, p4, p5, p6, p7, p8, p9 = calibration["P"]
    var1 = (t_fine >> 1) - 64000
    var2 = (((var1 >> 2) * (var1 >> 2)) >> 11) * p6
    var2 = var2 + ((var1 * p5) << 1)
    var2 = (var2 >> 2) + (p4 << 16)
    var1 = (((p3 * (((var1 >> 2) * (var1 >> 2)) >> 13)) >> 3) + ((p2 * var1) >> 1)) >> 18
    var1 = ((32768 + var1) * p1) >> 15
    if var1 <= 0:
        return 0
    p = ((1048576 - adc) - (var2 >> 12)) * 3125
    p = (p << 1) // var1 if p < 0x80000000 else (p // var1) * 2
    var1 = (p9 * (((p >> 3) * (p >> 3)) >> 13)) >> 12
    var2 = ((p >> 2) * p8) >> 13
    return p + ((var1 + var2 + p7) >> 4)


def humidity(calibration, t_fine, adc):
    """-> relative humidity in 1/1024 %."""
    h1, h2, h3, h4, h5, h6 = calibration["H"]
    v = t_fine - 76800
    left = ((adc << 14) - (h4 << 20) - h5 * v + 16384) >> 15
    right = ((((((v * h6) >> 10) * (((v * h3) >> 11) + 32768)) >> 10) + 2097152) * h2 + 8192) >> 14
    v = left * right
    v -= ((((v >> 15) * (v >> 15)) >> 7) * h1) >> 4
    return min(max(v, 0), 419430400) >> 12


def search(function, low, high, wanted):
    """The least k of low ... high with function(k) >= wanted, for a rising function; `high` where there is none.

    Interpolates, because the sensor's curves are nearly straight: some five evaluations instead of twenty.
    """
    below, above = function(low), function(high)
    if below >= wanted:
        return low
    if above < wanted:
        return high
    straight = True
    while high - low > 1:
        if straight and above > below:
            middle = low + (wanted - below) * (high - low) // (above - below)
            # A step towards the wanted side makes the bracket close from both ends.
            middle += 1 if middle - low > high - middle else -1
            middle = min(max(middle, low + 1), high - 1)
        else:
            middle = (low + high) // 2
        straight = not straight
        value = function(middle)
        if value >= wanted:
            high, above = middle, value
        else:
            low, below = middle, value
    return high


class BME280:
    """`temperature` (°C), `humidity` (%), `pressure` (hPa): inputs; None at a time: that value is not measured; all None: no answer.

    `faults`: `absent` (true: never answers), `chip_id` (another chip answers).
    """

    bus = "i2c"

    def __init__(self, description, open_file=open):
        self.address = description.get("address", 0x76)
        self._inputs = (
            build_input(description.get("temperature", 20), 2, open_file),
            build_input(description.get("humidity", 50), 2, open_file),
            build_input(description.get("pressure", 1013.25), 2, open_file),
        )
        given = description.get("calibration", {})
        self.calibration = {key: tuple(given.get(key, CALIBRATION[key])) for key in CALIBRATION}
        self._faults = description.get("faults", {})
        self.absent = bool(self._faults.get("absent"))
        self._pointer = 0
        self.registers = bytearray(256)
        self._result = bytearray(8)
        self.power_on()

    def power_on(self):
        """The registers as after power-on or a soft reset."""
        registers = self.registers
        for i in range(256):
            registers[i] = 0
        t, p, h = self.calibration["T"], self.calibration["P"], self.calibration["H"]
        struct.pack_into("<HhhHhhhhhhhh", registers, 0x88, *(t + p))
        registers[0xA1] = h[0]
        struct.pack_into("<hB", registers, 0xE1, h[1], h[2])
        registers[0xE4] = (h[3] >> 4) & 0xFF
        registers[0xE5] = (h[3] & 0x0F) | ((h[4] & 0x0F) << 4)
        registers[0xE6] = (h[4] >> 4) & 0xFF
        registers[0xE7] = h[5] & 0xFF
        registers[CHIP_ID] = self._faults.get("chip_id", 0x60)
        self._store(self._result, SKIPPED_20, SKIPPED_20, SKIPPED_16)
        self._measured = None
        self._publish()
        self._conversion = -1
        self._conversion_ms = 0
        self._humidity_oversampling = 0

    # What the bus calls

    def answers(self):
        if self.absent:
            return False
        temperature, humidity, _pressure = self._inputs
        # The pressure of a recording with temperature and humidity is often a constant: it alone makes no sensor.
        return temperature.read() is not None or humidity.read() is not None

    def select(self, register):
        self._pointer = register

    def read_into(self, buf):
        """Read on from the register selected; the address counts up."""
        self._settle()
        pointer = self._pointer
        for i in range(len(buf)):
            buf[i] = self.registers[pointer & 0xFF]
            pointer += 1
        self._pointer = pointer

    def write(self, register, value):
        self._settle()
        if register == RESET:
            if value == 0xB6:
                self.power_on()
        elif register == CTRL_HUM:
            self.registers[CTRL_HUM] = value & 0x07
        elif register == CONFIG:
            self.registers[CONFIG] = value & 0xFD
        elif register == CTRL_MEAS:
            self.registers[CTRL_MEAS] = value
            # Section 5.4.3: a change of ctrl_hum takes effect with the next write of ctrl_meas.
            self._humidity_oversampling = self.registers[CTRL_HUM]
            if value & 0x03:
                self._start(value)

    # Measuring

    def _start(self, control):
        self._measure(control >> 5, (control >> 2) & 0x07, self._humidity_oversampling)
        t = _OVERSAMPLING[control >> 5]
        p = _OVERSAMPLING[(control >> 2) & 0x07]
        h = _OVERSAMPLING[self._humidity_oversampling]
        # Section 9.1, the typical time, in µs: shorter than the maximum that a driver has to wait.
        microseconds = 1000 + 2000 * t + (2000 * p + 500 if p else 0) + (2000 * h + 500 if h else 0)
        self._conversion_ms = microseconds // 1000 + 1
        self._conversion = world.ticks()
        self.registers[STATUS] |= MEASURING

    def _settle(self):
        if self._conversion >= 0 and world.since(self._conversion) >= self._conversion_ms:
            self._publish()
            self._conversion = -1
            self.registers[STATUS] &= ~MEASURING & 0xFF
            self.registers[CTRL_MEAS] &= self._asked[0] & 0xFC
            self.registers[CTRL_HUM] &= self._asked[1]

    def _measure(self, osrs_t, osrs_p, osrs_h):
        temperature, humidity, pressure = self._inputs
        t = temperature.read()
        h = humidity.read()
        p = pressure.read()
        last = self._measured
        if last is not None and t == last[0] and h == last[1] and p == last[2]:
            if osrs_t == last[3] and osrs_p == last[4] and osrs_h == last[5]:
                return
        self._measured = (t, h, p, osrs_t, osrs_p, osrs_h)
        adc_t, adc_p, adc_h, t_fine = SKIPPED_20, SKIPPED_20, SKIPPED_16, None
        if osrs_t and t is not None:
            adc_t, t_fine = self._adc_of_temperature(t, max(5 - osrs_t, 0))
        if t_fine is None:
            # The air has a temperature, whether it is measured or not.
            t_fine = 102400 if t is None else self._adc_of_temperature(t, 0)[1]
        if osrs_p and p is not None:
            adc_p = self._adc_of_pressure(p, t_fine, max(5 - osrs_p, 0))
        if osrs_h and h is not None:
            adc_h = self._adc_of_humidity(h, t_fine)
        self._store(self._result, adc_p, adc_t, adc_h)
        # A value that the world does not have reads as one that was not asked for.
        self._asked = (
            (0xE3 if t is not None else 0x03) | (0x1C if p is not None else 0),
            0x07 if h is not None else 0,
        )

    def _adc_of_temperature(self, wanted, spare_bits):
        calibration = self.calibration
        k = search(lambda k: temperature(calibration, k << spare_bits)[1], 1, (0xFFFFF >> spare_bits), wanted)
        return k << spare_bits, temperature(calibration, k << spare_bits)[0]

    def _adc_of_pressure(self, wanted, t_fine, spare_bits):
        calibration = self.calibration
        top = 0xFFFFF >> spare_bits
        k = search(lambda k: pressure(calibration, t_fine, (top - k) << spare_bits), 1, top - 1, wanted)
        return (top - k) << spare_bits

    def _adc_of_humidity(self, wanted, t_fine):
        calibration = self.calibration
        above = search(lambda adc: humidity(calibration, t_fine, adc) * 25, 1, 0xFFFF, wanted * 256)
        # 1/1024 % × 25 and 0.01 % × 256 are the same unit. Of two neighbours the nearer.
        over = humidity(calibration, t_fine, above) * 25 - wanted * 256
        under = wanted * 256 - humidity(calibration, t_fine, above - 1) * 25
        return above if over <= under else above - 1

    def _store(self, result, adc_p, adc_t, adc_h):
        result[0], result[1], result[2] = adc_p >> 12, (adc_p >> 4) & 0xFF, (adc_p << 4) & 0xF0
        result[3], result[4], result[5] = adc_t >> 12, (adc_t >> 4) & 0xFF, (adc_t << 4) & 0xF0
        result[6], result[7] = adc_h >> 8, adc_h & 0xFF

    def _publish(self):
        for i in range(8):
            self.registers[DATA + i] = self._result[i]

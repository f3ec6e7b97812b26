"""Bosch BME280: temperature, relative humidity and air pressure over I2C.

Source: BST-BME280-DS002. Forced mode (section 3.3.3): the sensor sleeps between measurements and does not warm itself.
"""

from micropython import const

from lamppost.datastream import LIMIT, MISSING, Datastream
from lamppost.drivers import SensorError

# Section 5.3, memory map.
_CALIBRATION_1 = const(0x88)  # to 0xA1
_CALIBRATION_2 = const(0xE1)  # to 0xE7
_CHIP_ID = const(0xD0)
_CTRL_HUM = const(0xF2)  # to 0xFE: ctrl_hum, status, ctrl_meas, config, reserved, then the data
_CTRL_MEAS = const(0xF4)
_BME280 = const(0x60)
_BMP280 = const(0x58)
_MEASURING = const(0x08)
_FORCED = const(0x01)
_NOTHING = const(0x80000)  # temperature and pressure before the first measurement
_FULL_HUMIDITY = const(419430400)  # 100 % in the formula's unit
_SURELY_FULL = const(600000000)

_OVERSAMPLING = {1: 1, 2: 2, 4: 3, 8: 4, 16: 5}


class BME280:
    """One BME280.

    `i2c`: a `machine.I2C`. `address`: 0x76 (SDO to ground) or 0x77. `oversampling`: of temperature, pressure and humidity, each
    1, 2, 4, 8 or 16. Values: temperature and humidity in 0.01 °C and 0.01 %, pressure in Pa (0.01 hPa).
    """

    model = "BME280"
    sensor_id = None
    datastreams = (
        Datastream("air_temperature", "air_temperature", "Cel", 2, -4000, 8500),
        Datastream("relative_humidity", "relative_humidity", "%", 2, 0, 10000),
        Datastream("air_pressure", "air_pressure", "hPa", 2, 30000, 110000),
    )

    def __init__(self, i2c, address=0x76, oversampling=(2, 16, 1)):
        temperature, pressure, humidity = oversampling
        for times in oversampling:
            if times not in _OVERSAMPLING:
                raise ValueError("BME280: oversampling is 1, 2, 4, 8 or 16, not " + str(times))
        self._i2c = i2c
        self._address = address
        self._control_humidity = bytes([_OVERSAMPLING[humidity]])
        self._control = bytes([_OVERSAMPLING[temperature] << 5 | _OVERSAMPLING[pressure] << 2 | _FORCED])
        # Section 9.1: the longest time a measurement takes is 1.25 + 2.3 T + (2.3 P + 0.575) + (2.3 H + 0.575) ms.
        self.conversion_ms = (2400 + 2300 * (temperature + pressure + humidity) + 999) // 1000
        self._data = bytearray(13)
        self._calibrated = False
        self._t = self._p = self._h = ()

    def start(self):
        """Start a measurement. OSError where nothing answers, SensorError where something else does."""
        try:
            if not self._calibrated:
                self._calibrate()
            # Written each time: the sensor may have lost its power since the last measurement. ctrl_hum takes effect with ctrl_meas.
            self._i2c.writeto_mem(self._address, _CTRL_HUM, self._control_humidity)
            self._i2c.writeto_mem(self._address, _CTRL_MEAS, self._control)
        except OSError:
            self._calibrated = False  # what answers next may be another sensor
            raise

    def read(self, out):
        """The measurement that start() began: temperature, humidity, pressure into out[0], out[1], out[2]."""
        data = self._data
        out[0] = out[1] = out[2] = MISSING
        if not self._calibrated:
            raise SensorError("BME280: no measurement was started")
        try:
            self._i2c.readfrom_mem_into(self._address, _CTRL_HUM, data)
        except OSError:
            self._calibrated = False
            raise
        if data[1] & _MEASURING:
            raise SensorError("BME280: still measuring")
        adc_p = data[5] << 12 | data[6] << 4 | data[7] >> 4
        adc_t = data[8] << 12 | data[9] << 4 | data[10] >> 4
        # What was not measured is told from the oversampling in force, not from its value alone: 0x8000 is a humidity like any other.
        measured = data[2]
        if not measured & 0xFC or (adc_t == _NOTHING and adc_p == _NOTHING):
            self._calibrated = False
            raise SensorError("BME280: it lost its power while it measured")
        if not measured & 0xE0:
            return  # without a temperature neither of the others can be compensated
        t_fine = self._t_fine(adc_t)
        out[0] = _bounded((t_fine * 5 + 128) >> 8)
        if data[0] & 0x07:
            # The formula's 1/1024 % to 0.01 %.
            out[1] = _bounded((self._humidity(t_fine, data[11] << 8 | data[12]) * 25 + 128) >> 8)
        if measured & 0x1C:
            out[2] = _bounded(self._pressure(t_fine, adc_p))

    def _calibrate(self):
        """Read the chip's id and its trimming values (section 4.2.2)."""
        import struct

        chip = self._i2c.readfrom_mem(self._address, _CHIP_ID, 1)[0]
        if chip == _BMP280:
            raise SensorError(
                "BME280: there is a BMP280 at 0x%02x, which measures no humidity" % self._address
            )
        if chip != _BME280:
            raise SensorError("BME280: chip id 0x%02x at 0x%02x is not a BME280's" % (chip, self._address))
        first = self._i2c.readfrom_mem(self._address, _CALIBRATION_1, 26)
        second = self._i2c.readfrom_mem(self._address, _CALIBRATION_2, 7)
        values = struct.unpack("<HhhHhhhhhhhh", first)
        h2, h3 = struct.unpack("<hB", second)
        h4 = _signed(second[3], 0x80) << 4 | second[4] & 0x0F
        h5 = _signed(second[5], 0x80) << 4 | second[4] >> 4
        if not values[0] or not values[3]:
            raise SensorError("BME280: its calibration reads as nothing")
        self._t, self._p = values[:3], values[3:]
        self._h = (first[25], h2, h3, h4, h5, _signed(second[6], 0x80))
        self._calibrated = True

    # The datasheet's integer formulas: temperature and humidity of section 4.2.3, the 32-bit pressure of section 8.2. They are written there
    # for 32-bit integers; here no intermediate value of a real measurement leaves 31 bits, so that none is allocated on an ESP32.
    # Products are taken in two parts (`_product_shifted`), and multiples of a later divisor are divided before they are added. The
    # results are the formulas', exactly.

    def _t_fine(self, adc):
        t = self._t
        t1 = t[0]
        near = (adc >> 4) - t1
        return _product_shifted((adc >> 3) - (t1 << 1), t[1], 11) + _product_shifted(
            _product_shifted(near, near, 12), t[2], 14
        )

    def _pressure(self, t_fine, adc):
        p = self._p
        v = (t_fine >> 1) - 64000
        quarter = v >> 2
        offset = (_product_shifted(quarter, quarter, 11) * p[5] + ((v * p[4]) << 1)) >> 14
        offset += p[3] << 4
        # ((P3 · (q² >> 13)) >> 3) + ((P2 · v) >> 1), all >> 18: the second product in two parts, of which the high one is a multiple of 2¹³.
        low = _product_shifted(_product_shifted(quarter, quarter, 13), p[2], 3) + (((v & 0x3FFF) * p[1]) >> 1)
        scale = ((low >> 13) + (v >> 14) * p[1]) >> 5
        scale = _product_shifted(32768 + scale, p[0], 15)
        rest = 1048576 - adc - offset
        if scale <= 0 or rest < 0:
            return MISSING
        # rest · 3125 · 2 / scale where rest · 3125 < 2³¹, else twice (rest · 3125 / scale): a long division in base 1024.
        small = rest <= 687194
        factor = 6250 if small else 3125
        high = (rest >> 10) * factor
        quotient = high // scale
        pascal = (quotient << 10) + (((high - quotient * scale) << 10) + (rest & 0x3FF) * factor) // scale
        if not small:
            pascal <<= 1
        if pascal > 262143:
            return MISSING  # twice what any pressure is: its square would not fit
        eighth = pascal >> 3
        return pascal + (
            (((p[8] * ((eighth * eighth) >> 13)) >> 12) + (((pascal >> 2) * p[7]) >> 13) + p[6]) >> 4
        )

    def _humidity(self, t_fine, adc):
        h1, h2, h3, h4, h5, h6 = self._h
        v = t_fine - 76800
        left = (adc - (h4 << 6) + 1 + ((-h5 * v) >> 14)) >> 1
        slope = _product_shifted(((v * h3) >> 11) + 32768, (v * h6) >> 10, 10) + 2097152
        right = (slope >> 14) * h2 + (((slope & 0x3FFF) * h2 + 8192) >> 14)
        if left > 0 and right > 0:
            if left > _SURELY_FULL // right:
                return _FULL_HUMIDITY >> 12
        elif left >= 0 or right >= 0:
            return 0  # a product that is not positive
        v = left * right
        thousand = v >> 15
        v -= (((thousand * thousand) >> 7) * h1) >> 4
        if v < 0:
            return 0
        return (_FULL_HUMIDITY if v > _FULL_HUMIDITY else v) >> 12


def _product_shifted(a, b, shift):
    """floor(a · b / 2^shift) with nothing over 31 bits on the way, for |a| < 2²⁸ and |b| < 2¹⁶, as far as the result fits."""
    low = (a & 0x3FFF) * b
    high = (a >> 14) * b
    if shift <= 14:
        return (high << (14 - shift)) + (low >> shift)
    return (high + (low >> 14)) >> (shift - 14)


def _signed(value, sign_bit):
    return (value ^ sign_bit) - sign_bit


def _bounded(value):
    """`value`, or MISSING where a corrupt calibration makes it one that no frame can carry."""
    return value if -LIMIT <= value <= LIMIT else MISSING

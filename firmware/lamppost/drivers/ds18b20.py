"""Maxim DS18B20: temperature over 1-Wire.

Source: the DS18B20's data sheet 19-7487 (Maxim, now Analog Devices): scratchpad, commands and CRC.
"""

from micropython import const

from lamppost.datastream import MISSING, Datastream
from lamppost.drivers import SensorError

_FAMILY = const(0x28)
_MATCH_ROM = const(0x55)
_CONVERT = const(0x44)
_READ_SCRATCHPAD = const(0xBE)
_POWER_ON = const(0x0550)  # 85 °C: no conversion since the power came


class DS18B20:
    """One DS18B20.

    `bus`: a `onewire.OneWire`. `rom`: the sensor's ROM, 8 bytes or 16 hexadecimal digits; without it, the only DS18B20 on the bus.
    `observed_property`: what it is the temperature of, a key of the host's vocabulary ("water_temperature", "soil_temperature"). Values in
    0.01 °C. `sensor_id` is the ROM in hexadecimal, None until the sensor has been found. A true 85.00 °C can't be told from a
    sensor that did not convert, and counts as a fault.
    """

    model = "DS18B20"
    conversion_ms = 750  # 12 bits

    def __init__(self, bus, rom=None, observed_property="air_temperature"):
        if isinstance(rom, str):
            rom = bytes.fromhex(rom)
        if rom is not None:
            _check_rom(rom)
        self._bus = bus
        self._named = rom is not None
        self._rom = rom
        self.sensor_id = None if rom is None else bytes(rom).hex()
        self._lost = rom is None
        self._scratchpad = bytearray(9)
        self.datastreams = (Datastream(observed_property, observed_property, "Cel", 2, -5500, 12500),)
        if rom is None:
            try:
                self._find()
            except OSError:
                pass  # start() tries again, and says what is wrong

    def start(self):
        """Begin a conversion. SensorError where the sensor does not answer."""
        if self._lost:
            self._find()
        self._select()
        self._bus.writebyte(_CONVERT)

    def read(self, out):
        """The temperature of the last conversion into out[0]. SensorError where the bytes are not a measurement."""
        out[0] = MISSING
        if self._lost:
            raise SensorError("DS18B20: no measurement was started")
        self._select()
        self._bus.writebyte(_READ_SCRATCHPAD)
        pad = self._scratchpad
        self._bus.readinto(pad)
        # An idle bus reads as ones, a shorted one as zeros; the CRC of nine zeros is right, but five bits of a true configuration are set.
        silent = True
        for i in range(9):
            if pad[i] != 0xFF:
                silent = False
        if silent:
            self._lose()
            raise SensorError("DS18B20: it does not answer to its ROM")
        if crc8(pad, 8) != pad[8]:
            raise SensorError("DS18B20: wrong CRC")
        if pad[4] & 0x9F != 0x1F:
            raise SensorError("DS18B20: the bus is shorted, or this is another sensor")
        raw = pad[0] | pad[1] << 8
        if raw == _POWER_ON:
            raise SensorError("DS18B20: 85 degrees, so it lost its power before it measured")
        # Below 12 bits the last ones are undefined.
        spare = 3 - (pad[4] >> 5)
        raw = (raw ^ 0x8000) - 0x8000 >> spare << spare
        # 1/16 °C to 0.01 °C is × 25 / 4, halves away from zero.
        out[0] = (raw * 25 + 2) >> 2 if raw >= 0 else -((2 - raw * 25) >> 2)

    def _select(self):
        bus = self._bus
        if not bus.reset():
            self._lose()
            raise SensorError("DS18B20: nothing answers on the 1-Wire bus")
        bus.writebyte(_MATCH_ROM)
        rom = self._rom
        for i in range(8):
            bus.writebyte(rom[i])

    def _lose(self):
        """Look for the sensor afresh at the next start(), unless the maker named one: another may be plugged in."""
        self._lost = not self._named

    def _find(self):
        roms = [rom for rom in self._bus.scan() if rom[0] == _FAMILY and crc8(rom, 7) == rom[7]]
        if not roms:
            raise SensorError("DS18B20: none found on the 1-Wire bus")
        if len(roms) > 1:
            raise SensorError(
                "DS18B20: several on the bus; name one with rom=: "
                + ", ".join([bytes(rom).hex() for rom in roms])
            )
        self._rom = roms[0]
        self.sensor_id = bytes(roms[0]).hex()
        self._lost = False


def _check_rom(rom):
    if len(rom) != 8 or rom[0] != _FAMILY or crc8(rom, 7) != rom[7]:
        raise ValueError("DS18B20: not the ROM of one: " + bytes(rom).hex())


def crc8(data, count):
    """The 1-Wire CRC (x⁸ + x⁵ + x⁴ + 1, low bit first) of the first `count` bytes."""
    crc = 0
    for i in range(count):
        crc ^= data[i]
        for _ in range(8):
            crc = crc >> 1 ^ 0x8C if crc & 1 else crc >> 1
    return crc

"""A DS18B20 as a slave on a 1-Wire bus, bit by bit (Maxim 19-7487, "1-Wire bus system" and "memory")."""

import struct

from micropython import const

from simulated.inputs import build_input
from simulated.world import world

# What the slave expects next.
_ROM_COMMAND = const(1)
_FUNCTION = const(2)
_RECEIVE = const(3)
_MATCH = const(4)
_SEARCH = const(5)
_SEND = const(6)
_BUSY = const(7)
_DESELECTED = const(8)
_POWER_ON_RAW = const(0x0550)


def crc8(data, count):
    """The 1-Wire CRC, x⁸ + x⁵ + x⁴ + 1, low bit first, of the first `count` bytes."""
    crc = 0
    for i in range(count):
        byte = data[i]
        for _ in range(8):
            mix = (crc ^ byte) & 1
            crc >>= 1
            if mix:
                crc ^= 0x8C
            byte >>= 1
    return crc


class DS18B20:
    """`temperature` (°C): an input; None: no presence pulse.

    `rom`: 16 hexadecimal digits (the last two are the CRC), or 14 to have it added. `faults`: `absent`, `bad_crc_every`
    (every n-th scratchpad is read with a wrong CRC), `never_converts` (keeps the 85 °C of power-on).
    """

    bus = "onewire"

    def __init__(self, description, open_file=open):
        self._input = build_input(description.get("temperature", 20), 4, open_file)
        rom = bytearray(bytes.fromhex(description.get("rom", "28a1b2c3d4e5f6")))
        if len(rom) == 7:
            rom.append(crc8(rom, 7))
        if len(rom) != 8 or crc8(rom, 7) != rom[7]:
            raise ValueError("not a 1-Wire ROM: " + description["rom"])
        self.rom = rom
        faults = description.get("faults", {})
        self.absent = bool(faults.get("absent"))
        self._bad_crc_every = faults.get("bad_crc_every", 0)
        self._never_converts = bool(faults.get("never_converts"))
        self._reads = 0
        self._scratchpad = bytearray(9)
        self.power_on()

    def power_on(self):
        """The scratchpad as after power-on: 85 °C, alarms at 75 and 70 °C, 12 bits."""
        struct.pack_into("<hBBBBBB", self._scratchpad, 0, _POWER_ON_RAW, 0x4B, 0x46, 0x7F, 0xFF, 0x0C, 0x10)
        self._state = _DESELECTED
        self._converting = -1
        self._raw = _POWER_ON_RAW
        self._value = None
        self._begin(_DESELECTED)

    def _begin(self, state):
        self._state = state
        self._bits = 0  # bits done in this state
        self._byte = 0  # the byte being received

    # What the bus calls: reset, a bit written, a bit read

    def reset(self):
        """A reset pulse; True: this slave answers with its presence pulse."""
        present = not self.absent and self._input.read() is not None
        self._begin(_ROM_COMMAND if present else _DESELECTED)
        return present

    def read_bit(self):
        """The bit that this slave puts on the bus in a read slot; 1 leaves the bus high."""
        if self._state == _SEND:
            bit = (self._scratchpad[self._bits >> 3] >> (self._bits & 7)) & 1 if self._bits < 72 else 1
            if self._bad_crc and 64 <= self._bits < 72:
                bit ^= 1
            self._bits += 1
            return bit
        if self._state == _BUSY:
            self._settle()
            return 0 if self._converting >= 0 else 1
        if self._state == _SEARCH:
            step = self._bits % 3
            if step < 2:
                bit = self._rom_bit(self._bits // 3) ^ step
                self._bits += 1
                return bit
        return 1

    def write_bit(self, bit):
        state = self._state
        if state == _MATCH:
            if bit != self._rom_bit(self._bits):
                self._begin(_DESELECTED)
            else:
                self._bits += 1
                if self._bits == 64:
                    self._begin(_FUNCTION)
        elif state == _SEARCH:
            if bit != self._rom_bit(self._bits // 3):
                self._begin(_DESELECTED)
            else:
                self._bits += 1
                if self._bits == 192:
                    self._begin(_FUNCTION)
        elif state <= _RECEIVE:
            self._byte |= bit << (self._bits & 7)
            self._bits += 1
            if self._bits & 7 == 0:
                byte, self._byte = self._byte, 0
                if state == _RECEIVE:
                    self._write_scratchpad(byte)
                else:
                    self._command(state, byte)

    def _rom_bit(self, number):
        return (self.rom[number >> 3] >> (number & 7)) & 1

    def _command(self, state, command):
        if state == _ROM_COMMAND:
            if command == 0xCC:
                self._begin(_FUNCTION)
            elif command == 0x55:
                self._begin(_MATCH)
            elif command == 0xF0:
                self._begin(_SEARCH)
            else:
                self._begin(_DESELECTED)
        elif command == 0x44:
            self._convert()
            self._begin(_BUSY)
        elif command == 0xBE:
            self._settle()
            self._reads += 1
            self._bad_crc = bool(self._bad_crc_every) and self._reads % self._bad_crc_every == 0
            self._scratchpad[8] = crc8(self._scratchpad, 8)
            self._begin(_SEND)
        elif command == 0x4E:
            self._begin(_RECEIVE)
        else:
            self._begin(_DESELECTED)

    def _write_scratchpad(self, byte):
        place = self._bits // 8 + 1
        if place == 4:
            byte = (byte & 0x60) | 0x1F
        self._scratchpad[place] = byte
        if place == 4:
            self._begin(_DESELECTED)

    def _convert(self):
        value = self._input.read()
        if value is not None and value != self._value:
            self._value = value
            # 0.0001 °C to 1/16 °C, to the nearest.
            self._raw = (value * 16 + 5000) // 10000
        self._converting = world.ticks()

    def _settle(self):
        """Once the conversion is over (94 ms at 9 bits, doubling to 750 ms at 12), its result is in the scratchpad."""
        resolution = (self._scratchpad[4] >> 5) & 3
        if self._converting >= 0 and world.since(self._converting) >= (750 >> (3 - resolution)):
            self._converting = -1
            if not self._never_converts:
                raw = self._raw >> (3 - resolution) << (3 - resolution)
                self._scratchpad[0], self._scratchpad[1] = raw & 0xFF, (raw >> 8) & 0xFF
                self._scratchpad[6] = 0x10 - (raw & 0x0F)

"""`onewire` of the virtual board: the master's side of MicroPython's 1-Wire driver, on simulated slaves."""

from simulated.ds18b20 import crc8 as _crc8
from simulated.world import world


class OneWireError(Exception):
    pass


class OneWire:
    SEARCH_ROM = 0xF0
    MATCH_ROM = 0x55
    SKIP_ROM = 0xCC

    def __init__(self, pin):
        self.pin = pin
        self._bus = world.bus("onewire", pin.id)

    def reset(self, required=False):
        """Send a reset pulse; whether a slave answered with its presence pulse."""
        present = False
        if not self._bus.fails():
            for slave in self._bus.devices:
                if slave.reset():
                    present = True
        if required and not present:
            raise OneWireError
        return present

    def readbit(self):
        bit = 1
        for slave in self._bus.devices:
            bit &= slave.read_bit()
        return bit

    def writebit(self, value):
        for slave in self._bus.devices:
            slave.write_bit(value & 1)

    def readbyte(self):
        byte = 0
        for i in range(8):
            byte |= self.readbit() << i
        return byte

    def readinto(self, buf):
        for i in range(len(buf)):
            buf[i] = self.readbyte()

    def writebyte(self, value):
        for i in range(8):
            self.writebit(value >> i)

    def write(self, buf):
        for i in range(len(buf)):
            self.writebyte(buf[i])

    def select_rom(self, rom):
        self.reset()
        self.writebyte(self.MATCH_ROM)
        self.write(rom)

    def crc8(self, data):
        return _crc8(data, len(data))

    def scan(self):
        """The ROMs on the bus, by the search of Maxim application note 187."""
        found = []
        rom = bytearray(8)
        last_fork = -1
        while True:
            if not self.reset():
                return found
            self.writebyte(self.SEARCH_ROM)
            fork = -1
            for number in range(64):
                bit, complement = self.readbit(), self.readbit()
                if bit and complement:
                    return found
                if not bit and not complement:
                    # Slaves differ here: first towards 0; at the fork taken last time, now towards 1.
                    bit = self._bit(rom, number) if number < last_fork else 1 if number == last_fork else 0
                    if not bit:
                        fork = number
                if bit:
                    rom[number >> 3] |= 1 << (number & 7)
                else:
                    rom[number >> 3] &= ~(1 << (number & 7)) & 0xFF
                self.writebit(bit)
            found.append(bytearray(rom))
            last_fork = fork
            if last_fork < 0:
                return found

    def _bit(self, rom, number):
        return (rom[number >> 3] >> (number & 7)) & 1

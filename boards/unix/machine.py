"""`machine` of the virtual board: the parts of the ESP32's that the firmware uses, on simulated buses.

I2C, UART and Pin reach the devices of `simulated.world`; RTC memory and the cause of a reset outlive `reset()` and
`deepsleep()`, and are lost when the process is killed, as they are in a power cut.
"""

import json
import sys

from simulated.world import world

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5
RESET_EXIT = 2
"""Exit status by which the process asks to be started again."""

_ENODEV, _EIO, _ETIMEDOUT = 19, 5, 110


class _Board:
    """What the start-up script knows of this board and the functions below need."""

    unique_id = b"\x02\x00\x00\x00\x00\x01"
    cause = PWRON_RESET
    retain = None  # retain(text): keeps text until the next start, unless the power is cut

    rtc_memory = b""
    rtc_offset_s = (
        None  # what time.time() adds to the host's; None: the RTC was set by nobody, and counts from 0
    )


board = _Board()


def unique_id():
    return board.unique_id


def reset_cause():
    return board.cause


def freq(hz=None):
    return 160_000_000


def _leave(cause, sleep_ms=0):
    if board.retain is not None:
        state = {
            "cause": cause,
            "memory": [byte for byte in board.rtc_memory],
            "offset_s": board.rtc_offset_s,
            "sleep_ms": sleep_ms,
        }
        board.retain(json.dumps(state))
    sys.exit(RESET_EXIT)


def reset():
    _leave(HARD_RESET)


def soft_reset():
    _leave(SOFT_RESET)


def deepsleep(ms=0):
    """Ends the process; the next start waits `ms` before it runs main.py. ms = 0 has no alarm, and sleeps until the power is cut."""
    _leave(DEEPSLEEP_RESET, ms or 0x3FFFFFFF)


class Pin:
    IN, OUT, OPEN_DRAIN = 1, 3, 7
    PULL_DOWN, PULL_UP = 1, 2

    def __init__(self, id, mode=-1, pull=-1, *, value=None, drive=0, hold=None):
        self.id = id
        self._value = 0 if value is None else int(value)

    def init(self, mode=-1, pull=-1, *, value=None, drive=0, hold=None):
        if value is not None:
            self._value = int(value)

    def value(self, x=None):
        if x is None:
            return self._value
        self._value = 1 if x else 0
        return None

    def __call__(self, x=None):
        return self.value(x)

    def on(self):
        self._value = 1

    def off(self):
        self._value = 0

    def __repr__(self):
        return "Pin(%s)" % self.id


class I2C:
    """The ESP32's I2C controller. A device that does not answer raises OSError 19 (ENODEV), a failing bus OSError 110 (ETIMEDOUT)."""

    def __init__(self, id=0, *, scl=None, sda=None, freq=400000, timeout=50000):
        self._bus = world.bus("i2c", id)

    def _device(self, address):
        if self._bus.fails():
            raise OSError(_ETIMEDOUT)
        for device in self._bus.devices:
            if device.address == address and device.answers():
                return device
        raise OSError(_ENODEV)

    def scan(self):
        return sorted([device.address for device in self._bus.devices if device.answers()])

    def readfrom_mem_into(self, addr, memaddr, buf, *, addrsize=8):
        device = self._device(addr)
        device.select(memaddr)
        device.read_into(buf)

    def readfrom_mem(self, addr, memaddr, nbytes, *, addrsize=8):
        buf = bytearray(nbytes)
        self.readfrom_mem_into(addr, memaddr, buf)
        return bytes(buf)

    def writeto_mem(self, addr, memaddr, buf, *, addrsize=8):
        device = self._device(addr)
        device.select(memaddr)
        self._write_pairs(device, memaddr, buf, 0)

    def _write_pairs(self, device, register, buf, start):
        """A register's address, its value, the next address, its value, and so on: the parts we simulate do not count up when written."""
        i = start
        while i < len(buf):
            device.write(register, buf[i])
            i += 1
            if i < len(buf):
                register = buf[i]
                i += 1

    def writeto(self, addr, buf, stop=True):
        device = self._device(addr)
        if len(buf):
            device.select(buf[0])
            self._write_pairs(device, buf[0], buf, 1)
        return len(buf) + 1

    def writevto(self, addr, vector, stop=True):
        return self.writeto(addr, b"".join(vector), stop)

    def readfrom_into(self, addr, buf, stop=True):
        self._device(addr).read_into(buf)

    def readfrom(self, addr, nbytes, stop=True):
        buf = bytearray(nbytes)
        self.readfrom_into(addr, buf)
        return bytes(buf)


SoftI2C = I2C


class UART:
    """A UART with a receive buffer of `rxbuf` bytes. When that is full the rest is lost, as on the ESP32: the oldest bytes are kept."""

    def __init__(
        self,
        id,
        baudrate=115200,
        bits=8,
        parity=None,
        stop=1,
        *,
        tx=None,
        rx=None,
        rxbuf=256,
        txbuf=256,
        timeout=0,
        **_,
    ):
        self._bus = world.bus("uart", id)
        self._ring = bytearray(rxbuf)
        self._start = 0
        self._count = 0
        self.init(baudrate, bits, parity, stop)

    def init(self, baudrate=115200, bits=8, parity=None, stop=1, **_):
        self.baudrate = baudrate

    def deinit(self):
        self._count = 0

    def receive_byte(self, byte):
        """What a device on the line sends."""
        if self._count < len(self._ring):
            self._ring[(self._start + self._count) % len(self._ring)] = byte
            self._count += 1

    def any(self):
        for device in self._bus.devices:
            device.send_due(self)
        return self._count

    def readinto(self, buf, nbytes=-1):
        available = self.any()
        wanted = len(buf) if nbytes < 0 else min(nbytes, len(buf))
        count = min(wanted, available)
        if not count:
            return None
        for i in range(count):
            buf[i] = self._ring[self._start]
            self._start = (self._start + 1) % len(self._ring)
        self._count -= count
        return count

    def read(self, nbytes=-1):
        available = self.any()
        buf = bytearray(available if nbytes < 0 else min(nbytes, available))
        return bytes(buf) if self.readinto(buf) else None

    def readline(self):
        line = bytearray()
        one = bytearray(1)
        while self.readinto(one):
            line.extend(one)
            if one == b"\n":
                break
        return bytes(line) or None

    def write(self, buf):
        for device in self._bus.devices:
            device.receive(buf)
        return len(buf)

    def flush(self):
        pass

    def txdone(self):
        return True


class RTC:
    """Memory of 2,048 bytes and a calendar; `datetime(tuple)` sets what `time.time()` says."""

    def memory(self, data=None):
        if data is None:
            return board.rtc_memory
        if len(data) > 2048:
            raise ValueError("buffer too long")
        board.rtc_memory = bytes(data)
        return None

    def datetime(self, when=None):
        import time

        if when is None:
            year, month, day, hour, minute, second, weekday, _ = time.gmtime()[:8]
            return year, month, day, weekday, hour, minute, second, time.time_ns() // 1000 % 1_000_000
        from simulated.inputs import unix_seconds

        year, month, day, _, hour, minute, second, _ = when
        time.set_unix_seconds(unix_seconds(year, month, day, hour, minute, second))
        return None

    def init(self, when):
        self.datetime(when)


class WDT:
    """A watchdog that resets the board when it is fed too late. It notices at the feeding: a program that never feeds again is not stopped."""

    def __init__(self, id=0, timeout=5000):
        self._timeout = timeout
        self._fed = world.ticks()

    def feed(self):
        if world.since(self._fed) > self._timeout:
            _leave(WDT_RESET)
        self._fed = world.ticks()


def idle():
    pass


def disable_irq():
    return 0


def enable_irq(state=0):
    pass

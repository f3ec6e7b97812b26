"""The world around a virtual board: what time it is there, and which simulated sensors hang on which bus.

`machine` and `onewire` look their buses up here. The clock can be replaced (`use_clock`), so that a recording of years is
replayed in seconds: every simulated sensor takes its time from here and from nowhere else.
"""

import time

from micropython import const

TICKS_MASK = const(0x3FFFFFFF)

_host_ticks = time.ticks_ms
_host_time_ns = time.time_ns


class Bus:
    """What hangs on one bus: `devices`, and the rate of failing transfers (every `error_every`-th; 0: none)."""

    def __init__(self, error_every=0):
        self.devices = []
        self.error_every = error_every
        self._transfers = 0

    def fails(self):
        """Count a transfer; True when the description of the board wants this one to fail."""
        if not self.error_every:
            return False
        self._transfers += 1
        if self._transfers >= self.error_every:
            self._transfers = 0
            return True
        return False


class World:
    """The buses by kind and id (a 1-Wire bus: by pin), and the clock."""

    def __init__(self):
        self._clock = None
        self.clear()

    def clear(self):
        self.buses = {"i2c": {}, "uart": {}, "onewire": {}}

    def bus(self, kind, number):
        """The bus `kind` ("i2c", "uart", "onewire") with this id or pin; an empty one where nothing is attached."""
        buses = self.buses[kind]
        if number not in buses:
            buses[number] = Bus()
        return buses[number]

    def use_clock(self, now_ms):
        """Take the time from `now_ms()`, a function that gives Unix milliseconds; None: the host's clock."""
        self._clock = now_ms

    def now_ms(self):
        """Unix time in ms, as people in this world would read it; it is not the board's RTC, which may be unset."""
        if self._clock is not None:
            return self._clock()
        return _host_time_ns() // 1_000_000

    def ticks(self):
        """Milliseconds that wrap at 2^30, for durations (`since`). Allocates nothing with the host's clock."""
        if self._clock is not None:
            return self._clock() & TICKS_MASK
        return _host_ticks() & TICKS_MASK

    def since(self, ticks):
        """Milliseconds from `ticks` until now, less than 2^30."""
        return (self.ticks() - ticks) & TICKS_MASK


world = World()

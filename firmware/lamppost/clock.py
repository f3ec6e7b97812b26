"""Time on the node, in small integers: seconds and milliseconds since the boot, and since 2020-01-01T00:00:00Z once that is known.

A Clock keeps one triple: UTC of tick 0, how uncertain that is, and when it was learnt. Sources set it (`set_utc`): the board's
calendar at the start, SNTP (`sntp.py`), the host's answer to `ask`. A less certain one does not replace a more certain one, and certainty
wears off with the drift of the oscillator.
"""

import asyncio
import sys
import time

from micropython import const

# The calendar is believed between these (s since 2020): before, it was never set; after, it is a wrong one.
_BEGIN_2024 = const(126230400)
_BEGIN_2080 = 1893456000
_DRIFT_S = const(20)  # a millisecond in so many seconds: 50 ppm, twice what an ESP32's crystal may be off
# How uncertain a calendar is. A system keeps its own right. A board's was set by whoever was plugged in last, some tools to local time: its rows
# are marked, and any answer of a source that knows better goes before it, after the longest round trip too.
_CALENDAR_MS = 600 if sys.platform in ("linux", "darwin") else 6000
_GOOD_MS = const(500)
_UNCERTAIN_MS = const(1000)  # from here on a row is marked as uncertain in time (WIRE.md, quality)

# Some ports count from 1970, some from 2000: this is the difference to 2020 of the one that runs.
SECONDS_TO_2020 = {1970: 1577836800, 2000: 631152000}[time.gmtime(0)[0]]


def believable(seconds):
    """Could it be now, `seconds` after 2020-01-01?"""
    return _BEGIN_2024 <= seconds < _BEGIN_2080


class Clock:
    """Call `update()` before reading the time, at least every six days (ticks wrap around). Neither makes an object on the heap.

    `uptime`, `uptime_ms`: s and ms since the clock was made. `seconds`, `milliseconds`: UTC since 2020 if `synced`, else the same as the uptime.
    `generation` changes whenever the relation of the two does: who waits for a time looks again.
    """

    def __init__(self, calendar=True):
        self.synced = False
        self.uptime = 0
        self.uptime_ms = 0
        self.seconds = 0
        self.milliseconds = 0
        self.generation = 0
        self.source = ""
        self.on_sync = None  # called with no argument after UTC was set
        self._offset = 0
        self._offset_ms = 0
        self._first_offset = (0, 0)
        self._base_ms = 0  # uncertainty when it was learnt, and the uptime then
        self._learnt = 0
        self._ticks = self._now()
        if calendar:
            self.read_calendar()

    def _now(self):
        return time.ticks_ms()

    def _since(self, ticks):
        return time.ticks_diff(time.ticks_ms(), ticks)

    def sleep_ms(self, milliseconds):
        """An awaitable that ends so many ms later."""
        return asyncio.sleep_ms(milliseconds)

    def update(self):
        """Read the ticks."""
        passed = self._since(self._ticks)
        if passed > 0:
            self._ticks = time.ticks_add(self._ticks, passed)
            self._pass(passed)

    def _pass(self, milliseconds):
        milliseconds += self.uptime_ms
        self.uptime += milliseconds // 1000
        self.uptime_ms = milliseconds % 1000
        milliseconds = self.uptime_ms + self._offset_ms
        self.seconds = self.uptime + self._offset + milliseconds // 1000
        self.milliseconds = milliseconds % 1000

    def uncertainty_ms(self):
        """How far off the UTC may be by now."""
        return self._base_ms + (self.uptime - self._learnt) // _DRIFT_S

    def uncertain(self):
        """Is UTC known to no better than a second?"""
        return self.synced and self.uncertainty_ms() > _UNCERTAIN_MS

    def wants_better(self):
        """Should a source be asked?"""
        return not self.synced or self.uncertainty_ms() > _GOOD_MS

    def boot_utc(self):
        """(seconds, milliseconds) of tick 0 in UTC since 2020, as it was first learnt: what was taken before is dated by it, every time alike."""
        return self._first_offset

    def read_calendar(self):
        """Take the time from the board's calendar, if it can be right. Returns whether it was taken."""
        try:
            nanoseconds = time.time_ns()
            seconds = nanoseconds // 1000000000 - SECONDS_TO_2020
            milliseconds = nanoseconds % 1000000000 // 1000000
        except AttributeError:
            seconds = int(time.time()) - SECONDS_TO_2020
            milliseconds = 0
        return believable(seconds) and self.set_utc(seconds, milliseconds, _CALENDAR_MS, "calendar")

    def set_utc(self, seconds, milliseconds, uncertainty_ms, source=""):
        """It is so many seconds and milliseconds after 2020-01-01T00:00:00Z, give or take `uncertainty_ms`. Refused, with False, if what is known is
        more certain."""
        self.update()
        if self.synced and uncertainty_ms > self.uncertainty_ms():
            return False
        milliseconds -= self.uptime_ms
        self._offset = seconds - self.uptime + milliseconds // 1000
        self._offset_ms = milliseconds % 1000
        self._base_ms = uncertainty_ms
        self._learnt = self.uptime
        if not self.synced:
            self._first_offset = (self._offset, self._offset_ms)
        self.synced = True
        self.source = source
        self.generation += 1
        self._pass(0)
        if self.on_sync is not None:
            self.on_sync()
        return True


def set_calendar(clock):
    """Set the board's calendar from a synced clock, so that the time outlives a restart that keeps the power on."""
    try:
        import machine

        calendar = machine.RTC()
    except (ImportError, AttributeError):
        return  # the bare unix port has none, and its system keeps the time
    clock.update()
    year, month, day, hour, minute, second, weekday = time.gmtime(clock.seconds + SECONDS_TO_2020)[:7]
    calendar.datetime((year, month, day, weekday, hour, minute, second, clock.milliseconds * 1000))

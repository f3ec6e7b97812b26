"""One sensor's samples: its schedule, its faults, and the batch that its readings gather in."""

from array import array

from micropython import const

from .batch import Batch, most_rows
from .datastream import MISSING

_LONGEST_SLEEP_MS = const(60000)  # so that a clock that was set is noticed
_LONGEST_EVERY_S = const(86400)
_MS_BELOW_S = const(1000)  # below so many seconds, `every` may have milliseconds


class Observer:
    """Samples `driver` (the protocol is in `drivers/__init__.py`) every `every` seconds: an integer from 1 to 86,400, or a float from 0.01.

    Samples fall on the multiples of `every` on the clock, so that nodes sample at the same instants. A row bears the time of
    its schedule if it was taken within `tolerance_ms` of it, and within 1 % of the interval: rows at even steps take less on the
    wire than the jitter, which is left out, would. Else it bears the time at which the measurement began.

    A batch is closed when it has `rows` rows, or when one more would make it span `seconds` seconds. `store(batch)` must take
    it and clear it; `described()` is called when the sensor's hardware id becomes known or changes; `report(text)` is told of
    faults that begin and end.
    """

    def __init__(
        self,
        driver,
        every,
        keys,
        first,
        clock,
        store,
        described,
        report,
        rows=60,
        seconds=60,
        tolerance_ms=100,
    ):
        self.every_ms = int(every * 1000 + 0.5)
        if not 10 <= self.every_ms <= _LONGEST_EVERY_S * 1000:
            raise ValueError("every must be 0.01 to 86400 seconds")
        self._every_s = self.every_ms // 1000
        self._whole = self.every_ms % 1000 == 0
        if not self._whole and self._every_s >= _MS_BELOW_S:
            raise ValueError("every must be whole seconds from 1000 s on")
        self.driver = driver
        self.keys = keys
        self.first = first
        self.faults = 0
        width = len(driver.datastreams)
        self._most_ms = seconds * 1000
        capacity = min(rows, (self._most_ms + self.every_ms - 1) // self.every_ms, most_rows(width))
        self.batch = Batch(driver.datastreams, first, capacity)
        self.at_risk = self.batch.capacity * width
        self.sensor_id = driver.sensor_id
        self._clock = clock
        self._store = store
        self._described = described
        self._report = report
        self._tolerance_ms = min(tolerance_ms, self.every_ms // 100)
        self._values = array("i", [MISSING] * width)
        self._due = 0
        self._due_ms = 0
        self._done = 0  # the time on the schedule that was sampled last; none yet
        self._done_ms = -1
        self._generation = -1
        self._seconds = 0
        self._milliseconds = 0
        self._failing = False

    async def run(self):
        """Sample until cancelled. Once the sensor answers, a sample makes no object on the heap, and only closing a batch does."""
        clock = self._clock
        while True:
            clock.update()
            self._plan()
            while True:
                clock.update()
                if self._generation != clock.generation:
                    self._plan()
                wait = self._wait_ms()
                if wait <= 0:
                    break
                await clock.sleep_ms(wait)
            self._done = self._due
            self._done_ms = self._due_ms
            if self._start():
                if self.driver.conversion_ms:
                    await clock.sleep_ms(self.driver.conversion_ms)
                self._read()
            self._close_if_due()

    def _plan(self):
        """Set the next time to sample: the next multiple of the interval, and never the last one again."""
        clock = self._clock
        seconds = clock.seconds
        milliseconds = clock.milliseconds
        if self._whole:
            seconds = (seconds // self._every_s + 1) * self._every_s
            milliseconds = 0
        else:
            # Modulo first: the product stays a small integer on a 32-bit board.
            passed = (seconds % self.every_ms * 1000 + milliseconds) % self.every_ms
            milliseconds += self.every_ms - passed
            seconds += milliseconds // 1000
            milliseconds %= 1000
        if self._done == seconds and self._done_ms == milliseconds:
            # The clock was set back a little, or it woke us early.
            milliseconds += self.every_ms % 1000
            seconds += self._every_s + milliseconds // 1000
            milliseconds %= 1000
        self._due = seconds
        self._due_ms = milliseconds
        self._generation = clock.generation

    def _wait_ms(self):
        away = self._due - self._clock.seconds
        if away > _LONGEST_SLEEP_MS // 1000:
            return _LONGEST_SLEEP_MS
        if away < -_LONGEST_SLEEP_MS // 1000:
            return 0
        return away * 1000 + self._due_ms - self._clock.milliseconds

    def _start(self):
        if 0 <= -self._wait_ms() <= self._tolerance_ms:
            self._seconds = self._due
            self._milliseconds = self._due_ms
        else:
            self._seconds = self._clock.seconds
            self._milliseconds = self._clock.milliseconds
        try:
            self.driver.start()
        except MemoryError:
            raise
        except Exception as error:
            self._failed(error)
            return False
        if self.driver.sensor_id != self.sensor_id:
            self._store_batch()  # what it holds was measured by the sensor that was there before
            self.sensor_id = self.driver.sensor_id
            self._described()
        return True

    def _read(self):
        clock = self._clock
        batch = self.batch
        values = self._values
        for i in range(len(values)):
            values[i] = MISSING
        try:
            self.driver.read(values)
        except MemoryError:
            raise
        except Exception as error:
            self._failed(error)
            return
        undated = not clock.synced
        if self._generation != clock.generation:
            # The clock was set during the conversion: its time now, less the conversion, is the best there is.
            clock.update()
            self._milliseconds = clock.milliseconds - self.driver.conversion_ms
            self._seconds = clock.seconds + self._milliseconds // 1000
            self._milliseconds %= 1000
        if not batch.accepts(self._seconds, undated):
            self._store_batch()
        readings = batch.add(self._seconds, self._milliseconds, values, undated, clock.uncertain())
        if readings < batch.width:
            self.faults += 1
        if not readings:
            return
        if self._failing:
            self._failing = False
            self._report(self.keys[0] + ": the sensor answers")

    def _failed(self, error):
        self.faults += 1
        if not self._failing:
            # An OSError says what is wrong with the sensor; anything else is a mistake in the driver, and no reason to stop the others.
            self._failing = True
            self._report("{}: {}: {}".format(self.keys[0], type(error).__name__, error))

    def _close_if_due(self):
        batch = self.batch
        if not batch.rows:
            return
        clock = self._clock
        if clock.synced is batch.undated:
            self._store_batch()  # the clock was set: its times are of another kind than those to come
            return
        span = clock.seconds - batch.seconds
        if (
            batch.rows >= batch.capacity
            or not 0 <= span <= _LONGEST_EVERY_S
            or span * 1000 + clock.milliseconds - batch.milliseconds + self.every_ms >= self._most_ms
        ):
            self._store_batch()

    def _store_batch(self):
        if self.batch.rows:
            self._store(self.batch)

    def close(self):
        """Hand over what the batch holds."""
        self._store_batch()

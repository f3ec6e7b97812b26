"""A sensor's sampling: the schedule, what it costs, faults, and a clock that is set in the middle."""

from tests.firmware.conftest import RunFirmware

# A driver that does as told, a clock whose time the test sets, and an observer that hands its batches to `stored`.
PARTS = """
import asyncio, gc, micropython
from array import array
from lamppost.clock import Clock
from lamppost.datastream import MISSING, Datastream
from lamppost.observer import Observer

class Driver:
    model = "test"
    sensor_id = None
    conversion_ms = 0
    datastreams = (Datastream("a", "air_temperature", "Cel", 2, -4000, 8500), Datastream("b", "relative_humidity", "%", 1))
    reads = 0
    def start(self):
        pass
    def read(self, out):
        self.reads += 1
        out[0] = 2000 + self.reads % 5
        out[1] = 500

class Stepped(Clock):
    '''Its time passes only in its own sleep: `at` lists the times slept to, as ms; ends the run after `most`.'''
    def __init__(self, seconds=None, most=10, late_ms=0):
        super().__init__(calendar=False)
        self.most = most
        self.late_ms = late_ms
        if seconds is not None:
            self.set_utc(seconds, 0, 0)
    def update(self):
        pass
    def sleep_ms(self, milliseconds):
        self._pass(milliseconds + self.late_ms)
        self.most -= 1
        if self.most < 0:
            raise asyncio.CancelledError()
        return asyncio.sleep_ms(0)

stored = []
def store(batch):
    stored.append((batch.undated, batch.seconds * 1000 + batch.milliseconds, batch.rows, batch.readings, list(batch._steps[1:batch.rows])))
    batch.clear()

log = []
described = []
def observe(driver, every, clock, **more):
    return Observer(driver, every, ["a", "b"], 0, clock, store, lambda: described.append(driver.sensor_id), log.append, **more)

def run(observer):
    try:
        asyncio.run(observer.run())
    except asyncio.CancelledError:
        pass
    observer.close()
"""


def test_the_steady_state_makes_no_object_on_the_heap(run_firmware: RunFirmware) -> None:
    """300 samples of the real loop, asyncio's waiting included, with the heap locked: an allocation ends in MemoryError."""
    out = run_firmware(
        PARTS
        + """
class Locking(Driver):
    def read(self, out):
        super_read(self, out)
        if self.reads == 20:
            micropython.heap_lock()
        elif self.reads == 220:
            micropython.heap_unlock()
super_read = Driver.read

async def main(undated):
    driver = Locking()
    clock = Clock(calendar=not undated)
    observer = observe(driver, 0.01, clock, rows=255, seconds=600)
    task = asyncio.create_task(observer.run())
    while driver.reads < 220 and not task.done():
        await asyncio.sleep_ms(5)
    task.cancel()
    print(driver.reads >= 220, observer.faults)
    observer.close()

for undated in (False, True):
    asyncio.run(main(undated))
print([batch[0] for batch in stored])
"""
    )
    assert out.split("\n")[:3] == ["True 0", "True 0", "[False, True]"]


def test_a_sample_is_free_with_a_conversion_time_and_whole_seconds_too(run_firmware: RunFirmware) -> None:
    """The same through minutes and a wrap-around of the conversion, on a clock that need not be waited for."""
    out = run_firmware(
        PARTS
        + """
class Locking(Driver):
    conversion_ms = 40
    def read(self, out):
        Driver_read(self, out)
        if self.reads == 5:
            micropython.heap_lock()
        elif self.reads == 50:
            micropython.heap_unlock()
Driver_read = Driver.read
driver = Locking()
observer = observe(driver, 60, Stepped(200000001, most=400), rows=200, seconds=86400)
run(observer)
print(driver.reads >= 50, observer.faults, stored[0][2] == driver.reads, set(stored[0][4]))
"""
    )
    assert out.strip() == "True 0 True {60000}"


def test_samples_fall_on_the_multiples_of_the_interval(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PARTS
        + """
for seconds, every, first in ((200000001, 60, 200000040), (200000040, 60, 200000100), (-498981599, 3600, -498978000), (200000000, 0.5, 200000000.5),
                              (200000000, 0.3, None)):
    del stored[:]
    run(observe(Driver(), every, Stepped(seconds, most=250 if every > 10 else 5), rows=3, seconds=86400))
    start = stored[0][1]
    step = int(every * 1000 + 0.5)
    assert start % step == 0 and seconds * 1000 < start <= seconds * 1000 + step, (seconds, every, start)
    if first is not None:
        assert start == first * 1000
    assert stored[0][4] == [step, step], stored
print("done")
"""
    )
    assert "done" in out


def test_a_row_bears_its_scheduled_time_within_the_tolerance_and_its_own_beyond(
    run_firmware: RunFirmware,
) -> None:
    out = run_firmware(
        PARTS
        + """
for late, every, expected in ((0, 60, 0), (100, 60, 0), (101, 60, 101), (10, 1, 0), (11, 1, 11)):
    del stored[:]
    run(observe(Driver(), every, Stepped(200000001, most=2, late_ms=late), rows=1, seconds=1))
    assert stored[0][1] % (every * 1000) == expected, (late, every, stored)
print("done")
"""
    )
    assert "done" in out


def test_a_batch_closes_at_its_rows_or_its_seconds(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PARTS
        + """
for every, rows, seconds, expected, at_risk in ((1, 10, 60, 10, 20), (1, 255, 60, 60, 120), (10, 60, 60, 6, 12), (60, 60, 60, 1, 2), (3600, 60, 60, 1, 2),
                                                (7, 60, 60, 9, 18)):
    del stored[:]
    observer = observe(Driver(), every, Stepped(200000001, most=400), rows=rows, seconds=seconds)
    assert observer.at_risk == at_risk, (every, observer.at_risk)
    run(observer)
    assert [batch[2] for batch in stored[:3]] == [expected] * 3, (every, stored[:3])
print("done")
"""
    )
    assert "done" in out


def test_a_failing_sensor_is_counted_told_once_and_does_not_stop_the_rest(run_firmware: RunFirmware) -> None:
    """At its start, in reading, by an error of the bus or a mistake in the driver; what is missing in a row is a fault too."""
    out = run_firmware(
        PARTS
        + """
class Failing(Driver):
    starts = 0
    def start(self):
        self.starts += 1
        if 3 <= self.starts < 5:
            raise OSError(19)
        if self.starts == 5:
            raise TypeError("a mistake")
    def read(self, out):
        self.reads += 1
        if self.reads == 4:
            raise ValueError("wrong checksum")
        out[0] = 7
        if self.reads != 6:
            out[1] = 8
driver = Failing()
observer = observe(driver, 1, Stepped(200000000, most=10), rows=60, seconds=3600)
run(observer)
print(driver.starts, observer.faults, stored)
print(log)

class Gone(Driver):
    def read(self, out):
        out[0] = out[1] = MISSING
del stored[:]
observer = observe(Gone(), 1, Stepped(200000000, most=5))
run(observer)
print(observer.faults, stored)
"""
    )
    lines = out.strip().split("\n")
    # Ten starts; three fail, one read fails; one reading of the seven rows is missing.
    assert lines[0] == "10 5 [(False, 200000001000, 6, 11, [1000, 4000, 2000, 1000, 1000])]"
    assert lines[1] == (
        "['a: OSError: 19', 'a: the sensor answers', 'a: ValueError: wrong checksum', 'a: the sensor answers']"
    ) or lines[1].startswith("['a: OSError: [Errno 19] ENODEV', 'a: the sensor answers'")
    assert lines[2] == "5 []"


def test_a_driver_that_runs_out_of_memory_is_not_a_sensor_fault(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PARTS
        + """
class Hungry(Driver):
    def read(self, out):
        raise MemoryError()
observer = observe(Hungry(), 1, Stepped(200000000))
try:
    run(observer)
except MemoryError:
    print("told", observer.faults)
"""
    )
    assert out.strip() == "told 0"


def test_a_clock_that_is_set_starts_a_new_batch_of_utc(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PARTS
        + """
class Setting(Driver):
    def read(self, out):
        Driver.read(self, out)
        if self.reads == 3:
            clock.set_utc(200000000, 250, 5)
clock = Stepped(None, most=6)
observer = observe(Setting(), 1, clock, rows=60, seconds=3600)
run(observer)
for batch in stored:
    print(*batch)
"""
    )
    undated, dated = out.strip().split("\n")
    assert undated == "True 1000 2 4 [1000]"
    # The third row was being taken when the clock was set, just before a quarter past its second.
    assert dated.startswith("False 200000000250 ")


def test_a_clock_set_back_a_little_repeats_no_sample(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PARTS
        + """
class Setting(Driver):
    def read(self, out):
        Driver.read(self, out)
        if self.reads % 2 == 0:
            clock.set_utc(clock.seconds - 1, 990, 0)
clock = Stepped(200000000, most=8)
observer = observe(Setting(), 1, clock, rows=60, seconds=3600)
run(observer)
times = [stored[0][1]]
for step in stored[0][4]:
    times.append(times[-1] + step)
assert times == sorted(set(times)), times
print("done")
"""
    )
    assert "done" in out


def test_a_clock_set_back_while_waiting_repeats_no_sample(run_firmware: RunFirmware) -> None:
    """The host's answer comes 100 ms after a sample and sets the clock back by 300 ms: that sample is not due again."""
    out = run_firmware(
        PARTS
        + """
class SetBack(Stepped):
    def sleep_ms(self, milliseconds):
        if self.most == 7:
            self._pass(100)
            self.set_utc(self.seconds, self.milliseconds + 700 - 1000, 0)
            self.most -= 1
            return asyncio.sleep_ms(0)
        return Stepped.sleep_ms(self, milliseconds)
clock = SetBack(200000000)
run(observe(Driver(), 1, clock, seconds=3600))
for batch in stored:
    print(*batch)
"""
    )
    assert out.strip() == "False 200000001000 9 18 [1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000]"


def test_a_sensor_that_tells_its_id_is_described_anew(run_firmware: RunFirmware) -> None:
    """When it first answers, and when another one is plugged in: what the first one measured goes out under its own name."""
    out = run_firmware(
        PARTS
        + """
class Plugged(Driver):
    starts = 0
    def start(self):
        self.starts += 1
        self.sensor_id = "28aa" if self.starts < 4 else "28bb"
observer = observe(Plugged(), 1, Stepped(200000000, most=5), rows=60, seconds=3600)
run(observer)
print(described, [batch[2] for batch in stored])
"""
    )
    assert out.strip() == "['28aa', '28bb'] [3, 2]"


def test_an_interval_that_can_not_be_is_refused(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PARTS
        + """
for every in (0, -1, 0.001, 86401, 1000.5):
    try:
        observe(Driver(), every, Stepped(0))
        print("accepted", every)
    except ValueError as error:
        print(error)
"""
    )
    assert len(out.strip().split("\n")) == 5
    assert "accepted" not in out

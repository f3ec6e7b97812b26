"""The node's clock: ticks that wrap around, sources and their certainty, SNTP against a real UDP server."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.firmware.conftest import RunFirmware

# Ticks of a 32-bit board, and a calendar, both set by the test.
FAKE = """
import lamppost.clock as module
from lamppost.clock import Clock, SECONDS_TO_2020, believable

class Ticks:
    now = 0
    nanoseconds = 0
    def ticks_ms(self):
        return self.now & 0x3FFFFFFF
    def ticks_add(self, ticks, more):
        return (ticks + more) & 0x3FFFFFFF
    def ticks_diff(self, a, b):
        return ((a - b + 0x20000000) & 0x3FFFFFFF) - 0x20000000
    def time_ns(self):
        return self.nanoseconds

time = Ticks()
module.time = time
"""


def test_uptime_survives_the_wrap_of_the_ticks(run_firmware: RunFirmware) -> None:
    """30 days in steps of any size up to five days; the ticks wrap after 12.4."""
    out = run_firmware(
        FAKE
        + """
import micropython
time.now = 0x3FFFFFF0
clock = Clock(calendar=False)
passed = 0
for step in (1, 15, 16, 17, 999, 1000, 432000000, 432000000, 432000000, 7, 432000000, 432000000, 432000001):
    time.now += step
    passed += step
    clock.update()
    assert clock.uptime * 1000 + clock.uptime_ms == passed, (clock.uptime, clock.uptime_ms, passed)
    assert (clock.seconds, clock.milliseconds) == (clock.uptime, clock.uptime_ms)
clock.update()
assert clock.uptime * 1000 + clock.uptime_ms == passed
clock.set_utc(200000000, 999, 5)
time.now &= 0x3FFFFFFF  # the test's own number is a small integer from here on
micropython.heap_lock()
for _ in range(1000):
    clock.update()
    clock.uncertain()
micropython.heap_unlock()
print("done")
"""
    )
    assert "done" in out


@pytest.mark.parametrize("seconds", [200_000_000, 0, -498_981_600, -1])
def test_utc_goes_on_from_where_it_was_set(run_firmware: RunFirmware, seconds: int) -> None:
    """Before 2020 too: a recording of March 2004 is replayed with its own times."""
    out = run_firmware(
        FAKE
        + f"""
time.now = 123456
clock = Clock(calendar=False)
time.now += 777
assert not clock.synced
assert clock.set_utc({seconds}, 900, 10)
for passed in (0, 99, 100, 1100, 86400000):
    time.now = 124233 + passed
    clock.update()
    at = {seconds} * 1000 + 900 + passed
    assert (clock.seconds, clock.milliseconds) == (at // 1000, at % 1000), (passed, clock.seconds, clock.milliseconds)
boot = clock.boot_utc()
assert boot[0] * 1000 + boot[1] == {seconds} * 1000 + 900 - 777, boot
clock.set_utc({seconds} + 500, 0, 0)
assert clock.boot_utc() == boot, "what was taken before it was known is dated by the first answer"
print("done")
"""
    )
    assert "done" in out


def test_a_less_certain_source_does_not_replace_a_more_certain_one(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        FAKE
        + """
clock = Clock(calendar=False)
synced = []
clock.on_sync = lambda: synced.append(clock.source)
assert clock.wants_better() and not clock.uncertain()
assert clock.set_utc(1000, 0, 600, "calendar")
assert clock.wants_better()
assert clock.set_utc(2000, 0, 50, "host") and clock.seconds == 2000
assert not clock.wants_better()
generation = clock.generation
assert not clock.set_utc(3000, 0, 51, "worse") and clock.seconds == 2000 and clock.generation == generation
time.now += 2000000  # 50 ppm of 2,000 s are 100 ms
assert clock.set_utc(4000, 0, 150, "host") and clock.seconds == 4000
for _ in range(5):
    time.now += 400000000
    clock.update()
assert clock.uncertain(), clock.uncertainty_ms()
assert synced == ["calendar", "host", "host"]
print("done")
"""
    )
    assert "done" in out


def test_only_a_calendar_that_was_set_is_believed(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        FAKE
        + """
for year_2020s, believed in ((-631152000, False), (0, False), (126230399, False), (126230400, True), (217000000, True), (1893455999, True),
                             (1893456000, False), (-1577836800, False)):
    time.nanoseconds = (year_2020s + SECONDS_TO_2020) * 1000000000 + 250000000
    clock = Clock()
    assert clock.synced is believed, year_2020s
    if believed:
        assert (clock.seconds, clock.milliseconds) == (year_2020s, 250)
        assert not clock.uncertain()
del Ticks.time_ns  # an older port has seconds only
Ticks.time = lambda self: 217000000 + SECONDS_TO_2020
assert Clock().seconds == 217000000
print("done")
"""
    )
    assert "done" in out


def test_a_boards_calendar_is_marked_as_uncertain_and_gives_way_to_any_answer(
    run_firmware: RunFirmware,
) -> None:
    """It may hold local time, as the tools that makers plug in set it; an answer after the longest round trip is still better."""
    out = run_firmware(
        """
class Board:
    pass
board = Board()
for name in dir(sys):
    setattr(board, name, getattr(sys, name))
board.platform = "esp32"
sys.modules["sys"] = board
"""
        + FAKE
        + """
time.nanoseconds = (200007200 + SECONDS_TO_2020) * 1000000000
clock = Clock()
assert clock.synced and clock.uncertain() and clock.wants_better()
assert clock.set_utc(200000000, 0, 5001, "host"), "ten seconds of round trip"
assert clock.seconds == 200000000
print("done")
"""
    )
    assert "done" in out


def test_the_epoch_of_the_port_is_allowed_for(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        "import time\nfrom lamppost.clock import SECONDS_TO_2020\nprint(time.gmtime(SECONDS_TO_2020)[:6])"
    )
    assert out.strip() == "(2020, 1, 1, 0, 0, 0)"


# SNTP

_1900_TO_UNIX = 2_208_988_800
NOW = 1_777_000_000  # Unix, in 2026


def answer(question: bytes, unix: float = NOW + 0.5, first: int = 0x24, stratum: int = 2) -> bytes:
    seconds = (int(unix) + _1900_TO_UNIX) % 2**32
    fraction = int(unix % 1 * 2**32)
    return (
        struct.pack(">BBBb", first, stratum, 0, -20)
        + bytes(20)
        + question[40:48]
        + bytes(8)
        + struct.pack(">II", seconds, fraction)
    )


@contextmanager
def time_server(replies: Callable[[bytes], list[bytes]]) -> Iterator[int]:
    """A UDP server that answers a question with these packets; gives its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                question, address = server.recvfrom(1024)
                if question == b"stop":
                    return
                for packet in replies(question):
                    server.sendto(packet, address)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopper:
            stopper.sendto(b"stop", server.getsockname())
        thread.join(10)


ASK = """
import asyncio
from lamppost import sntp
from lamppost.clock import Clock
clock = Clock(calendar=False)
try:
    uncertainty = asyncio.run(sntp.ask("127.0.0.1:" + sys.argv[1], clock, int(sys.argv[2])))
    clock.update()
    print(clock.seconds + 1577836800, clock.source, 0 < uncertainty < 2000)
except OSError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("unix", [NOW, 2_100_000_000])
def test_sntp_sets_the_clock_also_after_its_era_ends_in_2036(run_firmware: RunFirmware, unix: int) -> None:
    with time_server(lambda question: [answer(question, unix)]) as port:
        seconds, source, bounded = run_firmware(ASK, str(port), "5000").split()
    assert unix <= int(seconds) <= unix + 10
    assert (source, bounded) == ("ntp", "True")


def test_sntp_waits_past_an_answer_that_is_not_its_own(run_firmware: RunFirmware) -> None:
    def replies(question: bytes) -> list[bytes]:
        forged = bytearray(answer(question, NOW + 500_000))
        forged[24:32] = b"\x01" * 8
        return [b"", b"\x24", bytes(forged), answer(question)]

    with time_server(replies) as port:
        seconds = int(run_firmware(ASK, str(port), "5000").split()[0])
    assert NOW <= seconds <= NOW + 10


@pytest.mark.parametrize(
    ("reason", "replies"),
    [
        ("no answer", lambda question: []),
        ("not synchronised", lambda question: [answer(question, stratum=0)]),
        ("not synchronised", lambda question: [answer(question, first=0xE4)]),
        ("not an answer", lambda question: [answer(question, first=0x23)]),
        ("not an answer", lambda question: [answer(question)[:40]]),
        ("can't be right", lambda question: [answer(question, 0)]),
        ("can't be right", lambda question: [answer(question)[:40] + bytes(8)]),
    ],
)
def test_sntp_refuses_what_can_not_be_right(
    run_firmware: RunFirmware, reason: str, replies: Callable[[bytes], list[bytes]]
) -> None:
    with time_server(replies) as port:
        out = run_firmware(ASK, str(port), "300")
    assert out.startswith("refused:")
    assert reason in out

"""Virtual boards as processes: flash, power cuts, resets, and an end that leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamppost_host.errors import LamppostError
from lamppost_host.virtual.board import VirtualBoard
from lamppost_host.virtual.flash import build_image, read_image

TIMEOUT_S = 20.0
WAITS = "import time\nprint('up')\nwhile True:\n    time.sleep_ms(20)\n"

MakeBoard = Callable[..., VirtualBoard]


@pytest.fixture
def make_board(micropython: list[str], tmp_path: Path) -> Iterator[MakeBoard]:
    made: list[VirtualBoard] = []

    def make(main: str, *arguments: Any, folder: str = "board", **options: Any) -> VirtualBoard:
        made.append(VirtualBoard(tmp_path / folder, main, *arguments, **options))
        return made[-1]

    yield make
    for board in made:
        if board.running:
            board.kill()


def await_text(board: VirtualBoard, text: str, count: int = 1) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while board.log.count(text) < count:
        assert board.running or board.log.count(text) >= count, board.log
        assert time.monotonic() < deadline, board.log
        time.sleep(0.005)


def finish(board: VirtualBoard) -> int:
    board.start()
    return board.wait(TIMEOUT_S)


def test_runs_main_py_from_its_flash(make_board: MakeBoard) -> None:
    board = make_board(
        "import json, os, sys\n"
        "print(sorted(os.listdir('/')), json.load(open('node.json')), os.getcwd())\n"
        "print(open('/certs/ca.pem').read())\n"
        "with open('/made', 'w') as file:\n    file.write('on the board')\n",
        {"tenant": "t", "node": "n"},
        files={"/certs/ca.pem": b"a certificate"},
    )
    assert finish(board) == 0, board.log
    assert "'/etc" not in board.log
    assert "['board', 'certs', 'main.py', 'node.json', 'sdk']" in board.log
    assert "a certificate" in board.log
    assert board.read_file("/made") == b"on the board"
    with pytest.raises(LamppostError, match="not in the flash"):
        board.read_file("/absent")
    assert board.flash_path.stat().st_mode & 0o077 == 0, "node.json holds a password"


def test_the_host_is_out_of_reach(make_board: MakeBoard, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("host")
    board = make_board(f"try:\n    open({str(outside)!r})\nexcept OSError as error:\n    print(error)\n")
    assert finish(board) == 0
    assert "ENOENT" in board.log


def test_the_sdk_is_read_only(make_board: MakeBoard) -> None:
    board = make_board("import lamppost.drivers, replay_clock\nopen('/sdk/lamppost/x.py', 'w')\n")
    assert finish(board) == 1
    assert "OSError: 30" in board.log or "EROFS" in board.log


def test_an_error_in_main_py_is_shown_and_ends_the_board(make_board: MakeBoard) -> None:
    board = make_board("print('first')\n1 / 0\n")
    assert finish(board) == 1
    assert "ZeroDivisionError" in board.log
    assert "line 2" in board.log


def test_interrupt_is_ctrl_c(make_board: MakeBoard) -> None:
    board = make_board(
        "try:\n" + "".join(f"    {line}\n" for line in WAITS.splitlines()) + "finally:\n    print('tidy')\n"
    )
    board.start()
    await_text(board, "up")
    assert board.stop() == 130
    assert "tidy" in board.log


def test_a_killed_board_comes_back_with_its_flash(make_board: MakeBoard) -> None:
    """Fifteen power cuts while it writes: the file system mounts each time, and what was written whole is there."""
    board = make_board(
        "import os\n"
        "n = 0\n"
        "if 'count' in os.listdir('/'):\n"
        "    with open('/count') as file:\n        n = int(file.read())\n"
        "print('up', n)\n"
        "while True:\n"
        "    n += 1\n"
        "    with open('/new', 'w') as file:\n        file.write(str(n))\n"
        "    os.rename('/new', '/count')\n"
        "    print('wrote', n)\n"
    )
    written = 0
    for cut in range(15):
        board.start()
        await_text(board, "up", cut + 1)
        await_text(board, f"wrote {written + 1 + cut % 3}")
        board.kill()
        assert board.wait(TIMEOUT_S) == -signal.SIGKILL
        count = int(board.read_file("/count"))
        last = [
            int(line.split()[1])
            for line in board.log.splitlines()
            if line.startswith("wrote") and line.split()[1:]
        ][-1]
        assert count in (last, last + 1)
        written = count
    assert board.starts == 15


def test_reset_starts_again_and_keeps_rtc_memory(make_board: MakeBoard) -> None:
    board = make_board(
        "import machine, time\n"
        "rtc = machine.RTC()\n"
        "print('cause', machine.reset_cause(), 'memory', rtc.memory())\n"
        "n = len(rtc.memory())\n"
        "rtc.memory(b'x' * (n + 1))\n"
        "if n < 2:\n    machine.reset()\n"
        "if n == 2:\n    machine.deepsleep(100)\n"
        "print('settled')\n"
        "while True:\n    time.sleep_ms(20)\n"
    )
    board.start()
    await_text(board, "settled")
    assert board.resets == 3
    board.restart()
    await_text(board, "settled", 2)
    causes = [line for line in board.log.splitlines() if line.startswith("cause")]
    assert causes[:4] == [
        "cause 1 memory b''",
        "cause 2 memory b'x'",
        "cause 2 memory b'xx'",
        "cause 4 memory b'xxx'",
    ]
    assert causes[4] == "cause 1 memory b''", "a power cut empties it"
    board.kill()


def test_a_watchdog_fed_too_late_resets(make_board: MakeBoard) -> None:
    board = make_board(
        "import machine, time\n"
        "print('cause', machine.reset_cause())\n"
        "wdt = machine.WDT(timeout=50)\n"
        "wdt.feed()\n"
        "if machine.reset_cause() == machine.PWRON_RESET:\n    time.sleep_ms(80)\n"
        "wdt.feed()\n"
    )
    assert finish(board) == 0
    assert board.log.split("\n")[:2] == ["cause 1", "cause 3"]


def test_the_calendar_can_be_unset(make_board: MakeBoard) -> None:
    program = (
        "import machine, time\n"
        "print(time.time(), time.gmtime()[0], machine.RTC().datetime()[0])\n"
        "machine.RTC().datetime((2031, 5, 6, 1, 7, 8, 9, 0))\n"
        "print(time.gmtime()[:6], time.time_ns() // 1000000000 - time.time())\n"
    )
    board = make_board(program, rtc_set=False)
    assert finish(board) == 0, board.log
    first, second = board.log.splitlines()
    assert first in ("0 1970 1970", "1 1970 1970")
    assert second in ("(2031, 5, 6, 7, 8, 9) 0", "(2031, 5, 6, 7, 8, 10) 0")
    board = make_board(program, folder="set")
    now = time.time()
    assert finish(board) == 0
    assert abs(int(board.log.split()[0]) - now) < TIMEOUT_S


def test_nvs_outlives_a_power_cut_once_committed(make_board: MakeBoard) -> None:
    board = make_board(
        "import esp32\n"
        "nvs = esp32.NVS('app')\n"
        "buf = bytearray(8)\n"
        "try:\n"
        "    print(nvs.get_i32('n'), nvs.get_blob('b', buf), bytes(buf[:3]))\n"
        "except OSError as error:\n    print(error)\n"
        "try:\n    nvs.get_i32('lost')\n    print('found')\nexcept OSError:\n    pass\n"
        "nvs.set_i32('n', -5)\n"
        "nvs.set_blob('b', b'abc')\n"
        "nvs.commit()\n"
        "nvs.set_i32('lost', 1)\n" + WAITS
    )
    board.start()
    await_text(board, "up")
    board.restart()
    await_text(board, "up", 2)
    board.kill()
    assert "ESP_ERR_NVS_NOT_FOUND" in board.log
    assert "-5 3 b'abc'" in board.log
    assert "found" not in board.log


def test_a_full_flash_is_enospc(make_board: MakeBoard) -> None:
    board = make_board(
        "try:\n"
        "    with open('/big', 'wb') as file:\n"
        "        for _ in range(100):\n            file.write(bytes(1024))\n"
        "except OSError as error:\n    print('error', error)\n"
        "import os\n"
        "os.remove('/big')\n"
        "with open('/small', 'w') as file:\n    file.write('room again')\n",
        flash_bytes=12 * 4096,
    )
    assert finish(board) == 0, board.log
    assert "error 28" in board.log or "ENOSPC" in board.log
    assert board.read_file("/small") == b"room again"


def test_a_failing_flash_is_eio(make_board: MakeBoard) -> None:
    board = make_board(
        "try:\n"
        "    for n in range(100):\n"
        "        with open('/file%d' % n, 'wb') as file:\n            file.write(bytes(1024))\n"
        "except OSError as error:\n    print('error', n, error)\n"
        "print(len(open('/file0', 'rb').read()))\n",
        flash_faults={"fail_after_bytes": 20000},
    )
    assert finish(board) == 0, board.log
    assert "EIO" in board.log
    assert board.log.splitlines()[-1] == "1024", "what was written before can be read"


def test_the_power_is_cut_in_the_middle_of_a_write(make_board: MakeBoard) -> None:
    board = make_board(
        "n = 0\nwhile True:\n"
        "    with open('/file%d' % n, 'wb') as file:\n        file.write(bytes([n]) * 1000)\n"
        "    print('wrote', n)\n    n += 1\n",
    )
    for cut in (4321, 10007, 20011):
        board.description["flash"]["faults"] = {"cut_after_bytes": cut}
        assert finish(board) == -signal.SIGKILL, board.log
        last = int(board.log.split()[-1])
        files = board.files()
        for n in range(last + 1):
            assert files[f"/file{n}"] == bytes([n]) * 1000


def test_a_new_flash_is_made_where_there_is_none(make_board: MakeBoard) -> None:
    board = make_board("print('never')\n")
    board.flash_path.unlink()
    assert finish(board) == 1
    assert "ENOENT" in board.log
    assert board.files() == {}


def test_the_folder_is_the_board(make_board: MakeBoard) -> None:
    first = make_board("print('first')\n")
    again = make_board("print('second')\n")
    assert finish(again) == 0
    assert again.log == "first\n", "the flash goes on where it was"
    assert again.description["unique_id"] == first.description["unique_id"]
    afresh = make_board("print('third')\n", rebuild=True)
    assert finish(afresh) == 0
    assert afresh.log.endswith("third\n")


def test_misuse_is_an_error_with_a_remedy(make_board: MakeBoard, tmp_path: Path) -> None:
    board = make_board(WAITS)
    with pytest.raises(LamppostError, match="never started"):
        board.wait(1)
    board.start()
    await_text(board, "up")
    with pytest.raises(LamppostError, match="running already"):
        board.start()
    with pytest.raises(LamppostError, match="Stop the board first"):
        board.files()
    with pytest.raises(LamppostError, match="still runs"):
        board.wait(0.01)
    board.kill()
    with pytest.raises(LamppostError, match="multiple of 4096"):
        make_board("", folder="odd", flash_bytes=5000)
    with pytest.raises(LamppostError, match="larger"):
        make_board("", folder="small", flash_bytes=8 * 4096, files={"/big": bytes(100_000)})
    (tmp_path / "noise").write_bytes(bytes(65536))
    with pytest.raises(LamppostError, match="no file system"):
        read_image(tmp_path / "noise")


def test_a_wrong_description_of_a_sensor_is_named(make_board: MakeBoard) -> None:
    board = make_board(WAITS, None, [{"sensor": "bme999"}])
    assert finish(board) == 1
    assert "no simulated sensor bme999; there are: bme280, ds18b20, pms5003" in board.log


def test_wifi_connects_where_it_may(make_board: MakeBoard) -> None:
    board = make_board(
        "import network, time\n"
        "wlan = network.WLAN(network.STA_IF)\n"
        "wlan.active(True)\n"
        "for ssid, key in (('there', 'wrong'), ('absent', 'x'), ('there', 'right')):\n"
        "    wlan.connect(ssid, key)\n"
        "    before = wlan.isconnected()\n"
        "    time.sleep_ms(60)\n"
        "    print(ssid, key, before, wlan.isconnected(), wlan.status())\n",
        wifi={"networks": {"there": "right"}, "connect_ms": 50},
    )
    assert finish(board) == 0, board.log
    assert board.log.splitlines() == [
        "there wrong False False 202",
        "absent x False False 201",
        "there right False True 1010",
    ]


def test_a_recording_is_replayed_faster_than_time(make_board: MakeBoard, tmp_path: Path) -> None:
    """main.py hands its own clock to the world: a year of hourly rows goes by in a moment. The file is the host's, outside the flash."""
    file = tmp_path / "year.csv"
    rows = [f"{1_600_000_000 + 3600 * hour},{(hour % 400) / 10}" for hour in range(24 * 365)]
    file.write_text("t,value\n" + "\n".join(rows) + "\n", encoding="utf-8")
    recording = {"csv": {"path": str(file), "column": "value", "time": "t", "format": "%s"}}
    board = make_board(
        "import machine, onewire\n"
        "from array import array\n"
        "from lamppost.drivers.ds18b20 import DS18B20\n"
        "from simulated.world import world\n"
        "now = 1600000000000\n"
        "world.use_clock(lambda: now)\n"
        "driver = DS18B20(onewire.OneWire(machine.Pin(4)))\n"
        "out = array('i', [0])\n"
        "for hour in range(24 * 365):\n"
        "    now = (1600000000 + 3600 * hour) * 1000\n"
        "    if hour % 73 == 0:\n"
        "        driver.start()\n"
        "        now += 750\n"
        "        driver.read(out)\n"
        "        print(hour, out[0])\n",
        None,
        [{"sensor": "ds18b20", "temperature": recording}],
    )
    assert finish(board) == 0, board.log
    read = [[int(word) for word in line.split()] for line in board.log.splitlines()]
    assert len(read) == 120
    for hour, value in read:
        assert abs(value - (hour % 400) * 10) <= 4, "1/16 °C is 6 hundredths"


HOST = """
import sys, time
from pathlib import Path
from lamppost_host.virtual.board import VirtualBoard
board = VirtualBoard(Path(sys.argv[1]), "import time\\nprint('up')\\nwhile True:\\n    time.sleep_ms(20)\\n")
board.start()
while "up" not in board.log:
    time.sleep(0.005)
print(board.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("watch", ["", "1"], ids=["kernel", "watched"])
def test_a_board_ends_with_its_host(micropython: list[str], tmp_path: Path, watch: str) -> None:
    """The host is killed, and can't tidy up. "watched" is how it is done where the kernel has no such signal (macOS)."""
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"LAMPPOST_WATCH_PARENT": watch},
    )
    assert host.stdout is not None
    pid = int(host.stdout.readline())
    host.kill()
    host.wait()
    host.stdout.close()
    deadline = time.monotonic() + TIMEOUT_S
    while processes_of_group(pid):
        assert time.monotonic() < deadline, "the board outlived its host"
        time.sleep(0.02)


def processes_of_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody awaits yet is no process that runs.
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


@pytest.mark.parametrize("watch", ["", "1"], ids=["kernel", "watched"])
def test_exit_codes_pass_through(make_board: MakeBoard, monkeypatch: pytest.MonkeyPatch, watch: str) -> None:
    monkeypatch.setenv("LAMPPOST_WATCH_PARENT", watch)
    board = make_board("import sys\nsys.exit(7)\n")
    assert finish(board) == 7
    board = make_board(WAITS, folder="killed")
    board.start()
    await_text(board, "up")
    assert board.stop() == 130
    board.start()
    await_text(board, "up", 2)
    board.kill()
    assert board.wait(TIMEOUT_S) == -signal.SIGKILL


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=20).filter(
    lambda name: name.strip(".") != ""
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(PATHS, st.binary(max_size=6000), max_size=6))
def test_an_image_holds_what_was_put_in(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    names = sorted(files)
    if any(other.startswith(name + "/") for name in names for other in names):
        return  # a file can't be a folder too
    path = tmp_path_factory.mktemp("image") / "flash.bin"
    build_image(path, 64 * 4096, files)
    assert path.stat().st_size == 64 * 4096
    assert read_image(path) == files


def test_the_description_is_json_that_a_person_can_read(make_board: MakeBoard) -> None:
    board = make_board("", None, [{"sensor": "bme280", "temperature": 21.5}])
    assert finish(board) == 0
    description = json.loads((board.folder / "board.json").read_text(encoding="utf-8"))
    assert description["sensors"] == [{"sensor": "bme280", "temperature": 21.5}]

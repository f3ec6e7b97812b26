"""Starts the virtual board: `micropython start.py board.json`.

The description is JSON:

    firmware     the folder that has the package lamppost in it; read-only at /sdk on the board
    flash        {"path": file, "bytes": size of a new one, "faults": see simulated.flash}
    state        a folder for what outlives a reset (RTC memory) and a power cut (NVS)
    sensors      see simulated.build and the sensors' classes; `buses` likewise
    wifi         see network.configure
    rtc_set      false: the calendar starts unset, as after the power-on of a board with no battery
    unique_id    12 hexadecimal digits

The flash holds /main.py and whatever that reads. Exit status: 0 when main.py came to its end, 1 when it failed, 2 asks for another
start (machine.reset), 130 when Ctrl-C was not caught.
"""

import errno
import json
import os
import sys
import time

import vfs

_RETAINED, _NVS = "retained.json", "nvs.json"


class _HostFolder:
    """A folder of the host that stays in reach once the board's flash is mounted over the host's files."""

    def __init__(self, path):
        self._fs = vfs.VfsPosix(path)

    def read(self, name):
        try:
            with self._fs.open(name, "r") as file:
                return file.read()
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return ""

    def write(self, name, text):
        with self._fs.open(name + ".new", "w") as file:
            file.write(text)
        self._fs.rename(name + ".new", name)

    def take(self, name):
        """Read a file and remove it: a power cut from now on finds it gone."""
        text = self.read(name)
        if text:
            self._fs.remove(name)
        return text


def _prepare(description):
    """Fill sys.modules with the board's hardware, while the host's files are still at /."""
    import esp32
    import machine
    import network
    from simulated.build import build_world
    from simulated.time_module import BoardTime

    state = _HostFolder(description["state"])
    retained = json.loads(state.take(_RETAINED) or "{}")
    board = machine.board
    board.unique_id = bytes.fromhex(description.get("unique_id", "020000000001"))
    board.cause = retained.get("cause", machine.PWRON_RESET)
    board.rtc_memory = bytes(retained.get("memory", []))
    board.rtc_offset_s = retained.get("offset_s")
    board.retain = lambda text: state.write(_RETAINED, text)
    esp32.load(state.read(_NVS), lambda text: state.write(_NVS, text))
    build_world(description)
    network.configure(description.get("wifi", {}))
    sys.modules["time"] = sys.modules["utime"] = BoardTime(board, description.get("rtc_set", True))
    time.sleep_ms(retained.get("sleep_ms", 0))


def _mount(flash, firmware):
    """Mount the board's flash at /, its SDK at /sdk and this folder at /board; the host's other files are out of sight from here on."""
    from simulated.flash import FileFlash, erase_file

    try:
        file = open(flash["path"], "r+b")
        new = False
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        file = open(flash["path"], "w+b")
        erase_file(file, flash["bytes"])
        new = True
    device = FileFlash(file, flash.get("faults"))
    if new:
        vfs.VfsLfs2.mkfs(device)
    sdk = vfs.VfsPosix(firmware)
    here = vfs.VfsPosix(sys.path[0])
    vfs.umount("/")
    vfs.mount(vfs.VfsLfs2(device), "/")
    vfs.mount(sdk, "/sdk", readonly=True)
    vfs.mount(here, "/board", readonly=True)
    os.chdir("/")
    sys.path[:] = ["", ".frozen", "/lib", "/sdk", "/board"]


def _run(path):
    with open(path) as file:
        source = file.read()
    exec(compile(source, path, "exec"), {"__name__": "__main__"})  # noqa: S102 - as a board runs its main.py


def main(path):
    try:
        with open(path) as file:
            description = json.load(file)
        _prepare(description)
        _mount(description["flash"], description["firmware"])
        _run("/main.py")
    except KeyboardInterrupt:
        print("board: interrupted")
        return 130
    except Exception as error:
        sys.print_exception(error)
        print("board: ended with an error")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

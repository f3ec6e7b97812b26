"""`time` of the virtual board: the host's, but for a calendar that can be unset, as after the power-on of an ESP32."""

import time as _host

_EPOCH_SHIFT_S = 0 if _host.gmtime(0)[0] == 1970 else 946684800


class BoardTime:
    """Stands in `sys.modules` for the module. Until the calendar is set it counts seconds from the board's start."""

    def __init__(self, board, calendar_set):
        for name in dir(_host):
            if not name.startswith("__"):
                setattr(self, name, getattr(_host, name))
        self._board = board
        if board.rtc_offset_s is None:
            board.rtc_offset_s = 0 if calendar_set else -int(_host.time())
        self.time = self._time
        self.time_ns = self._time_ns
        self.gmtime = self._gmtime
        self.localtime = self._gmtime

    def _time(self):
        return int(_host.time()) + self._board.rtc_offset_s

    def _time_ns(self):
        return _host.time_ns() + self._board.rtc_offset_s * 1_000_000_000

    def _gmtime(self, seconds=None):
        return _host.gmtime(self._time() if seconds is None else seconds)

    def set_unix_seconds(self, seconds):
        """What `machine.RTC().datetime()` calls."""
        self._board.rtc_offset_s = seconds - _EPOCH_SHIFT_S - int(_host.time())

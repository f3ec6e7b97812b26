"""`network` of the virtual board: a WLAN that connects where the board's description says it would.

The sockets are the host's, and work whatever WLAN says: cut those by stopping the broker.
"""

from simulated.world import world

STA_IF, AP_IF = 0, 1
STAT_IDLE, STAT_CONNECTING, STAT_GOT_IP = 1000, 1001, 1010
STAT_BEACON_TIMEOUT, STAT_NO_AP_FOUND, STAT_WRONG_PASSWORD, STAT_ASSOC_FAIL, STAT_HANDSHAKE_TIMEOUT = (
    200,
    201,
    202,
    203,
    204,
)


class _Air:
    """The access points in reach: {ssid: password}; None: every one, with every password. `down`: [from_s, to_s] pairs since the start."""

    networks = None
    connect_ms = 0
    down = ()
    started = 0


air = _Air()
_host_name = "virtual"


def configure(description):
    """Set the air from a board's description: {"networks": {...}, "connect_ms": 300, "down": [[10, 20]]}."""
    air.networks = description.get("networks")
    air.connect_ms = description.get("connect_ms", 0)
    air.down = description.get("down", ())
    air.started = world.ticks()


def _is_down():
    seconds = world.since(air.started) / 1000
    for start, end in air.down:
        if start <= seconds < end:
            return True
    return False


def hostname(name=None):
    global _host_name
    if name is not None:
        _host_name = name
    return _host_name


def country(code=None):
    return "XX"


class WLAN:
    IF_STA, IF_AP = STA_IF, AP_IF
    PM_NONE, PM_PERFORMANCE, PM_POWERSAVE = 0, 1, 2

    def __init__(self, interface_id=STA_IF):
        self._active = False
        self._status = STAT_IDLE
        self._since = 0

    def active(self, is_active=None):
        if is_active is None:
            return self._active
        self._active = bool(is_active)
        if not self._active:
            self._status = STAT_IDLE
        return self._active

    def connect(self, ssid=None, key=None, *, bssid=None):
        if not self._active:
            raise OSError("Wifi Not Started")
        if air.networks is None:
            self._status = STAT_CONNECTING
        elif ssid not in air.networks:
            self._status = STAT_NO_AP_FOUND
        elif air.networks[ssid] != key:
            self._status = STAT_WRONG_PASSWORD
        else:
            self._status = STAT_CONNECTING
        self._since = world.ticks()

    def disconnect(self):
        self._status = STAT_IDLE

    def status(self, param=None):
        if param == "rssi":
            return -60
        if self._status == STAT_CONNECTING and world.since(self._since) >= air.connect_ms:
            self._status = STAT_GOT_IP
        if self._status == STAT_GOT_IP and _is_down():
            # The ESP32 keeps trying by itself.
            self._status = STAT_CONNECTING
            self._since = world.ticks()
        return self._status

    def isconnected(self):
        return self.status() == STAT_GOT_IP

    def ifconfig(self, config=None):
        return (
            ("127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1") if self.isconnected() else ("0.0.0.0",) * 4
        )

    def ipconfig(self, param=None, **_):
        return self.ifconfig()[:2] if param == "addr4" else None

    def config(self, param=None, **_):
        if param == "mac":
            import machine

            return machine.unique_id()
        return None

    def scan(self):
        names = sorted(air.networks) if air.networks is not None else []
        return [(name.encode(), b"\x02\x00\x00\x00\x00\x02", 1, -60, 3, False) for name in names]

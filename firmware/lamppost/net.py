"""Keeps a node on its Wi-Fi."""

import asyncio
import os
from time import ticks_diff, ticks_ms

# What a port's WLAN.status() numbers mean, by their names in `network`; the numbers differ between ports.
_MEANINGS = (
    ("STAT_IDLE", "idle"),
    ("STAT_CONNECTING", "no answer yet"),
    ("STAT_WRONG_PASSWORD", "wrong password"),
    ("STAT_NO_AP_FOUND", "no such network in reach"),
    ("STAT_CONNECT_FAIL", "the connection failed"),
    ("STAT_ASSOC_FAIL", "the access point refused the association"),
    ("STAT_BEACON_TIMEOUT", "the access point fell silent"),
    ("STAT_HANDSHAKE_TIMEOUT", "the handshake timed out: often a wrong password"),
    ("STAT_GOT_IP", "connected"),
)


class Wifi:
    """One network, joined and joined again.

    `wlan` is a network.WLAN for the station interface, `constants` what its status numbers are looked up in (the module `network`).
    `timeout_ms` bounds one attempt, `backoff_ms` the shortest and longest wait between two, of which a random half is taken off;
    `check_ms` is how often a standing connection is looked at. `on_change(text)` hears of each connection, loss and failure.
    """

    def __init__(
        self,
        wlan,
        constants,
        ssid,
        password=None,
        timeout_ms=20000,
        backoff_ms=(1000, 60000),
        check_ms=1000,
        on_change=None,
    ):
        self.event_connected = asyncio.Event()
        self.attempts = 0  # since the start
        self._wlan = wlan
        self._constants = constants
        self._ssid = ssid
        self._password = password
        self._timeout_ms = timeout_ms
        self._backoff_ms = backoff_ms
        self._check_ms = check_ms
        self._on_change = on_change

    @property
    def connected(self):
        """Whether the network gave us an address."""
        return self._wlan.isconnected()

    def status(self):
        """The state of the connection, for people."""
        if self._wlan.isconnected():
            return "connected"
        number = self._wlan.status()
        for name, meaning in _MEANINGS:
            if getattr(self._constants, name, None) == number:
                return meaning
        return f"status {number}"

    async def run(self):
        """Join the network and stay in it until cancelled, then leave it."""
        delay = self._backoff_ms[0]
        try:
            while True:
                failure = await self._join()
                if failure is None:
                    self._tell(f"connected to {self._ssid}")
                    delay = self._backoff_ms[0]
                    self.event_connected.set()
                    while self._wlan.isconnected():
                        await asyncio.sleep_ms(self._check_ms)
                    self.event_connected.clear()
                    failure = f"lost {self._ssid}: {self.status()}"
                    self._tell(failure)
                    continue
                self._tell(f"can't join {self._ssid}: {failure}")
                await asyncio.sleep_ms(delay - delay * int.from_bytes(os.urandom(1), "big") // 512)
                delay = min(delay * 2, self._backoff_ms[1])
        finally:
            self.event_connected.clear()
            self._leave()

    async def _join(self):
        """One attempt; None when it succeeds, else why not."""
        self.attempts += 1
        wlan = self._wlan
        constants = self._constants
        still = [getattr(constants, name, None) for name in ("STAT_CONNECTING", "STAT_IDLE", "STAT_GOT_IP")]
        began = ticks_ms()
        try:
            wlan.active(True)
            if wlan.isconnected():
                return None
            self._leave()  # an ESP32 that is still trying refuses connect()
            self._one_try_each()
            wlan.connect(self._ssid, self._password)
            while not wlan.isconnected():
                if ticks_diff(ticks_ms(), began) > self._timeout_ms:
                    return self.status()
                # A port may report the state before connect() for a moment, so an early failure counts after a second.
                if wlan.status() not in still and ticks_diff(ticks_ms(), began) > min(
                    1000, self._timeout_ms // 2
                ):
                    return self.status()
                await asyncio.sleep_ms(50)
        except OSError as error:
            return str(error)
        return None

    def _one_try_each(self):
        """Have the ESP32 report a failure instead of trying for ever by itself, so that our waits are the ones in force."""
        try:
            self._wlan.config(reconnects=0)
        except (ValueError, TypeError, OSError):
            pass  # a port without that setting

    def _leave(self):
        try:
            self._wlan.disconnect()
        except OSError:
            pass  # was not connected

    def _tell(self, text):
        if self._on_change is not None:
            self._on_change(text)


async def keep_connected(settings, log=None):
    """Keep this board on the Wi-Fi of `settings` ({"ssid", "password"}) until cancelled; `log(text)` hears of changes."""
    import network  # here, because a node on a cable has none

    wifi = Wifi(
        network.WLAN(network.STA_IF),
        network,
        settings["ssid"],
        settings.get("password"),
        on_change=None if log is None else lambda text: log("wifi: " + text),
    )
    await wifi.run()

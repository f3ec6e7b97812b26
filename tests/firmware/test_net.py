"""Keeping the Wi-Fi, on the virtual board's network and on a WLAN with an ESP32's bad habits."""

from tests.firmware.conftest import RunFirmware

PRELUDE = """
import asyncio, network
from time import ticks_diff, ticks_ms
from lamppost.net import Wifi, keep_connected

async def until(condition, timeout_ms=5000):
    began = ticks_ms()
    while not condition():
        if ticks_diff(ticks_ms(), began) > timeout_ms:
            raise RuntimeError("waited in vain: " + repr(said))
        await asyncio.sleep_ms(2)

said = []
def wifi(ssid, password, wlan=None, **options):
    options = dict({"timeout_ms": 300, "backoff_ms": (5, 20), "check_ms": 10, "on_change": said.append}, **options)
    return Wifi(wlan or network.WLAN(network.STA_IF), network, ssid, password, **options)
"""


def test_joins_and_joins_again_after_a_loss(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PRELUDE
        + """
async def main():
    network.configure({"networks": {"town": "secret"}, "connect_ms": 30, "down": [[0.3, 0.5]]})
    w = wifi("town", "secret")
    task = asyncio.create_task(w.run())
    await asyncio.wait_for_ms(w.event_connected.wait(), 2000)
    print(w.connected, w.status(), w.attempts)
    await until(lambda: not w.event_connected.is_set())
    await until(w.event_connected.is_set)
    print(said[0], "|", said[1][:9], "|", said[-1])
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print(w.connected, w.event_connected.is_set())
asyncio.run(main())"""
    )
    assert out.splitlines() == [
        "True connected 1",
        "connected to town | lost town | connected to town",
        "False False",
    ]


def test_says_why_it_can_not_join(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PRELUDE
        + """
async def main():
    for networks, connect_ms, password in (({"town": "other"}, 0, "secret"), ({}, 0, "secret"), ({"town": "x"}, 9999, "x")):
        network.configure({"networks": networks, "connect_ms": connect_ms})
        said.clear()
        w = wifi("town", password)
        task = asyncio.create_task(w.run())
        await until(lambda: len(said) == 3)
        task.cancel()
        print(set(said), w.attempts >= 3)
asyncio.run(main())"""
    )
    assert out.splitlines() == [
        '{"can\'t join town: wrong password"} True',
        '{"can\'t join town: no such network in reach"} True',
        '{"can\'t join town: no answer yet"} True',
    ]


def test_a_driver_that_raises_is_tried_again(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PRELUDE
        + """
class Wlan:
    calls = []
    def active(self, on): self.calls.append("active")
    def isconnected(self): return self.calls.count("connect") >= 3 and self.calls[-1] == "connect"
    def status(self): return 4711
    def disconnect(self): raise OSError("Wifi Not Started")
    def config(self, **settings): raise ValueError("unknown config param")
    def connect(self, ssid, password):
        self.calls.append("connect")
        if self.calls.count("connect") < 3:
            raise OSError("Wifi Internal State Error")

async def main():
    w = wifi("town", None, wlan=Wlan())
    task = asyncio.create_task(w.run())
    await asyncio.wait_for_ms(w.event_connected.wait(), 2000)
    print(said, w.attempts)
    task.cancel()
asyncio.run(main())"""
    )
    assert out.splitlines() == [
        "[\"can't join town: Wifi Internal State Error\", \"can't join town: Wifi Internal State Error\", 'connected to town'] 3"
    ]


def test_keep_connected_uses_this_boards_wifi(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PRELUDE
        + """
async def main():
    network.configure({"networks": {"town": "secret"}})
    task = asyncio.create_task(keep_connected({"ssid": "town", "password": "secret"}, said.append))
    await until(lambda: said)
    task.cancel()
    print(said)
asyncio.run(main())"""
    )
    assert out == "['wifi: connected to town']\n"

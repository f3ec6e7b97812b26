"""The virtual board's machine, onewire, network and esp32, where the drivers' tests do not reach them."""

from tests.firmware.conftest import RunFirmware

WORLD = """
import machine, network, onewire
from simulated.build import attach, build_world
from simulated.world import world

now = 1_700_000_000_000
def clock():
    return now
world.use_clock(clock)

def failure(kind, call, *arguments):
    try:
        call(*arguments)
    except kind as error:
        return error
    raise AssertionError("no error")
"""


def test_i2c_has_every_way_to_a_register(run_firmware: RunFirmware) -> None:
    run_firmware(
        WORLD
        + """
attach({"sensor": "bme280", "address": 0x77})
attach({"sensor": "bme280", "address": 0x76})
attach({"sensor": "bme280", "address": 0x76, "i2c": 1})
i2c = machine.I2C(0, scl=machine.Pin(22), sda=machine.Pin(21), freq=100000)
assert i2c.scan() == [0x76, 0x77]
assert machine.I2C(1).scan() == [0x76]
assert i2c.readfrom_mem(0x76, 0xD0, 1) == b"\\x60"
buf = bytearray(1)
i2c.readfrom_mem_into(0x77, 0xD0, buf)
assert buf == b"\\x60"
i2c.writeto(0x76, b"\\xd0")
assert i2c.readfrom(0x76, 1) == b"\\x60"
i2c.writeto(0x76, b"\\xf2\\x05\\xf4\\x54")  # pairs of address and value (section 6.2.1)
assert i2c.readfrom_mem(0x76, 0xF2, 3) == b"\\x05\\x00\\x54"
i2c.writevto(0x76, (b"\\xf5", b"\\xa0"))
assert i2c.readfrom_mem(0x76, 0xF5, 1) == b"\\xa0"
i2c.writeto_mem(0x76, 0xE0, b"\\xb6")
assert i2c.readfrom_mem(0x76, 0xF2, 4) == bytes(4), "a soft reset"
assert i2c.readfrom_mem(0x76, 0xF7, 8) == b"\\x80\\x00\\x00\\x80\\x00\\x00\\x80\\x00"
for call in ((i2c.readfrom_mem, 0x40, 0, 1), (i2c.writeto_mem, 0x40, 0, b"x"), (i2c.readfrom, 0x40, 1), (i2c.writeto, 0x40, b"")):
    assert failure(OSError, *call).errno == 19
"""
    )


def test_a_forced_measurement_ends_after_its_time(run_firmware: RunFirmware) -> None:
    run_firmware(
        WORLD
        + """
attach({"sensor": "bme280", "temperature": 25})
i2c = machine.I2C(0)
i2c.writeto_mem(0x76, 0xF4, b"\\x21")  # temperature once, forced
assert i2c.readfrom_mem(0x76, 0xF3, 1)[0] & 0x08
assert i2c.readfrom_mem(0x76, 0xFA, 1) == b"\\x80", "nothing yet"
now += 4
status, control = i2c.readfrom_mem(0x76, 0xF3, 2)
assert not status & 0x08 and control == 0x20, "asleep again"
assert i2c.readfrom_mem(0x76, 0xFA, 3) != b"\\x80\\x00\\x00"
assert i2c.readfrom_mem(0x76, 0xF7, 3) == b"\\x80\\x00\\x00", "the pressure was not asked for"
assert i2c.readfrom_mem(0x76, 0xFC, 1)[0] & 0x0F == 0, "16 bits at x1"
"""
    )


def test_a_uart_keeps_the_oldest_bytes(run_firmware: RunFirmware) -> None:
    run_firmware(
        WORLD
        + """
attach({"sensor": "pms5003", "uart": 1})
uart = machine.UART(1, baudrate=9600, tx=17, rx=16, rxbuf=40)
assert uart.any() == 0 and uart.read() is None and uart.readinto(bytearray(4)) is None
now += 5000
assert uart.any() == 40
data = uart.read()
assert data[:4] == b"BM\\x00\\x1c" and data[32:36] == b"BM\\x00\\x1c" and len(data) == 40
assert uart.any() == 0
now += 1000
assert uart.read(2) == b"BM"
buf = bytearray(50)
assert uart.readinto(buf) == 30
assert uart.write(b"\\x42\\x4d\\xe2\\x00\\x00\\x01\\x71") == 7
"""
    )


def test_onewire_says_when_nobody_is_there(run_firmware: RunFirmware) -> None:
    run_firmware(
        WORLD
        + """
bus = onewire.OneWire(machine.Pin(4))
assert bus.reset() is False and bus.scan() == []
failure(onewire.OneWireError, bus.reset, True)
attach({"sensor": "ds18b20"})
assert bus.reset(True) is True
rom = bus.scan()[0]
assert bus.crc8(rom) == 0 and bus.crc8(rom[:7]) == rom[7]
bus.select_rom(rom)
bus.writebyte(0x4E)
bus.write(b"\\x01\\x02\\x1f")  # alarms, 9 bits
bus.select_rom(rom)
bus.writebyte(0x44)
assert bus.readbit() == 0
now += 94
assert bus.readbit() == 1, "a conversion of 9 bits takes an eighth"
bus.select_rom(rom)
bus.writebyte(0xBE)
pad = bytearray(9)
bus.readinto(pad)
assert pad[2:5] == b"\\x01\\x02\\x1f" and pad[:2] == b"\\x40\\x01" and bus.crc8(pad) == 0
world.bus("onewire", 4).error_every = 2
assert [bus.reset() for _ in range(4)] == [True, False, True, False]
"""
    )


def test_wifi_goes_and_comes_back(run_firmware: RunFirmware) -> None:
    run_firmware(
        WORLD
        + """
network.configure({"down": [[10, 20]], "connect_ms": 500})
wlan = network.WLAN(network.STA_IF)
failure(OSError, wlan.connect, "a", "b")
wlan.active(True)
wlan.connect("a", "b")
assert wlan.status() == network.STAT_CONNECTING and wlan.ifconfig()[0] == "0.0.0.0"
now += 500
assert wlan.isconnected() and wlan.ifconfig()[0] == "127.0.0.1"
now += 9500
assert not wlan.isconnected()
now += 9000
assert not wlan.isconnected()
now += 1500
wlan.isconnected()
now += 500
assert wlan.isconnected()
wlan.active(False)
assert not wlan.isconnected()
"""
    )


def test_nvs_takes_what_the_esp32_takes(run_firmware: RunFirmware) -> None:
    run_firmware(
        WORLD
        + """
import esp32
saved = []
esp32.load("", saved.append)
nvs = esp32.NVS("a")
nvs.set_i32("n", -0x80000000)
failure(OverflowError, nvs.set_i32, "n", 0x80000000)
nvs.set_blob("b", b"\\x00\\xff")
assert saved == []
nvs.commit()
failure(OSError, nvs.get_i32, "b")
failure(OSError, nvs.get_blob, "n", bytearray(4))
nvs.erase_key("n")
failure(OSError, nvs.erase_key, "n")
esp32.load(saved[0], saved.append)
again = esp32.NVS("a")
assert again.get_i32("n") == -0x80000000
buf = bytearray(4)
assert again.get_blob("b", buf) == 2 and buf == b"\\x00\\xff\\x00\\x00"
failure(OSError, esp32.NVS("other").get_i32, "n")
"""
    )


def test_a_board_is_built_from_its_description(run_firmware: RunFirmware) -> None:
    run_firmware(
        WORLD
        + """
devices = build_world({"sensors": [{"sensor": "bme280"}, {"sensor": "ds18b20", "onewire": 15}], "buses": [{"i2c": 0, "error_every": 3}]})
assert len(devices) == 2 and world.bus("onewire", 15).devices == [devices[1]]
i2c = machine.I2C(0)
seen = []
for _ in range(6):
    try:
        i2c.readfrom_mem(0x76, 0xD0, 1)
        seen.append(True)
    except OSError as error:
        assert error.errno == 110
        seen.append(False)
assert seen == [True, True, False] * 2
for wrong in ({"sensor": "scd40"}, {}, {"sensor": "ds18b20", "rom": "28a1b2c3d4e5f6ad"}, {"sensor": "bme280", "temperature": "warm"}):
    failure(ValueError, attach, wrong)
"""
    )

"""A PMS5003 as the bytes that it sends (Plantower data manual V2.3, appendix I): active mode, 9600 baud, one frame a second."""

import struct

from simulated.inputs import build_input
from simulated.world import world

FRAME_BYTES = 32
BAUDRATE = 9600


class PMS5003:
    """`pm1`, `pm2_5`, `pm10` (µg/m³): inputs; None: the sensor is silent.

    `interval_ms` between frames. `faults`: `absent`; `bad_checksum_every`, `garbage_every`, `short_frame_every`: every n-th frame
    has a wrong checksum, has 7 bytes of noise before it, or breaks off after 20 bytes.
    """

    bus = "uart"
    address = None

    def __init__(self, description, open_file=open):
        self._inputs = [
            build_input(description.get(key, default), 0, open_file)
            for key, default in (("pm1", 5), ("pm2_5", 8), ("pm10", 12))
        ]
        self._interval_ms = description.get("interval_ms", 1000)
        faults = description.get("faults", {})
        self.absent = bool(faults.get("absent"))
        self._bad_checksum_every = faults.get("bad_checksum_every", 0)
        self._garbage_every = faults.get("garbage_every", 0)
        self._short_frame_every = faults.get("short_frame_every", 0)
        self._frame = bytearray(FRAME_BYTES)
        self._count = 0
        self._last = world.ticks()

    def receive(self, data):
        """Commands (sleep, passive mode) are not simulated: the firmware sends none."""

    def send_due(self, uart):
        """Hand `uart` the frames that fell due since the last call; of a long silence only what a receive buffer could hold."""
        elapsed = world.since(self._last)
        due = elapsed // self._interval_ms
        if not due:
            return
        self._last = (self._last + due * self._interval_ms) & 0x3FFFFFFF
        pm1 = self._inputs[0].read()
        pm2_5 = self._inputs[1].read()
        pm10 = self._inputs[2].read()
        if self.absent or pm1 is None or pm2_5 is None or pm10 is None:
            return
        for _ in range(min(due, 16)):
            self._send(uart, pm1, pm2_5, pm10)

    def _send(self, uart, pm1, pm2_5, pm10):
        frame = self._frame
        self._count += 1
        # Particles in 0.1 L of air above 0.3, 0.5, 1, 2.5, 5 and 10 µm: not measured by this firmware, only plausible.
        struct.pack_into(
            ">2sHHHHHHHHHHHHHBBH", frame, 0,
            b"BM", 28, pm1, pm2_5, pm10, pm1, pm2_5, pm10,
            pm10 * 150, pm10 * 40, pm2_5 * 10, pm10, pm10 >> 1, pm10 >> 2, 0x97, 0, 0,
        )  # fmt: skip
        total = 0
        for i in range(FRAME_BYTES - 2):
            total += frame[i]
        if self._hits(self._bad_checksum_every):
            total ^= 0x55
        frame[30], frame[31] = (total >> 8) & 0xFF, total & 0xFF
        if self._hits(self._garbage_every):
            for i in range(7):
                uart.receive_byte((0x42, 0x4D, 0x00, 0x42, 0xFF, 0x42, 0x42)[i])
        length = 20 if self._hits(self._short_frame_every) else FRAME_BYTES
        # Another baud rate turns every byte into noise.
        noise = 0 if uart.baudrate == BAUDRATE else 0xA5
        for i in range(length):
            uart.receive_byte(frame[i] ^ noise)

    def _hits(self, every):
        return every and self._count % every == 0

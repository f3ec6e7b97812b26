"""Plantower PMS5003: particulate matter over a UART.

Source: Plantower's data manual V2.3, appendix I: at 9600 baud 8N1 the sensor sends a frame of 32 bytes every 200 to 800 ms while the
concentration changes, else every 2.3 s. Its air has to flow for 30 s after power-on before the values are good.
"""

from micropython import const

from lamppost.datastream import MISSING, Datastream
from lamppost.drivers import SensorError

_FRAME = const(32)
_PAYLOAD = const(28)  # what the frame's own length field says
_CHUNK = const(64)
# A bound on the bytes of one call: four receive buffers of the ESP32's default size.
_MOST_CHUNKS = const(16)


class PMS5003:
    """One PMS5003 in active mode (as it comes).

    `uart`: a `machine.UART` at 9600 baud whose reads do not wait (timeout=0). Values: PM1.0, PM2.5 and PM10 in µg/m³, as the sensor gives them for
    the atmosphere (not the "CF=1" of factories). Only frames that arrive between start() and read() count: what a receive buffer kept
    from before is old.
    """

    model = "PMS5003"
    sensor_id = None
    conversion_ms = 2500
    datastreams = (
        Datastream("pm1", "pm1", "ug/m3", 0, 0, 500),
        Datastream("pm2_5", "pm2_5", "ug/m3", 0, 0, 500),
        Datastream("pm10", "pm10", "ug/m3", 0, 0, 500),
    )

    def __init__(self, uart):
        self._uart = uart
        self._chunk = bytearray(_CHUNK)
        self._frame = bytearray(_FRAME)
        self._count = 0  # bytes of a frame so far
        self._forget()

    def _forget(self):
        self._fresh = False  # a whole frame came since start()
        self._bytes = 0
        self._rejected = 0  # frames with a wrong checksum

    def start(self):
        """Drop what has arrived so far. The frames of the next 2.5 s are the measurement."""
        self._receive()
        self._count = 0
        self._forget()

    def read(self, out):
        """The latest whole frame since start(): PM1.0, PM2.5, PM10 into out[0], out[1], out[2]. SensorError where there is none."""
        out[0] = out[1] = out[2] = MISSING
        self._receive()
        if not self._fresh:
            if self._rejected:
                raise SensorError("PMS5003: wrong checksum")
            if self._bytes:
                raise SensorError("PMS5003: no whole frame in what it sent")
            raise SensorError("PMS5003: it sends nothing")
        out[0] = self._pm1
        out[1] = self._pm2_5
        out[2] = self._pm10
        self._forget()

    def _receive(self):
        uart, chunk = self._uart, self._chunk
        for _ in range(_MOST_CHUNKS):
            if not uart.any():
                return
            count = uart.readinto(chunk)
            if not count:
                return
            self._bytes += count
            for i in range(count):
                self._take(chunk[i])

    def _take(self, byte):
        """One more byte. A frame that proves to be none is searched for a later beginning, so that noise before a frame costs no frame."""
        frame = self._frame
        frame[self._count] = byte
        self._count += 1
        while self._count and not self._may_be_frame():
            self._drop_first()
        if self._count < _FRAME:
            return
        total = 0
        for i in range(_FRAME - 2):
            total += frame[i]
        if total == frame[30] << 8 | frame[31]:
            self._pm1 = frame[10] << 8 | frame[11]
            self._pm2_5 = frame[12] << 8 | frame[13]
            self._pm10 = frame[14] << 8 | frame[15]
            self._fresh = True
            self._count = 0
            return
        self._rejected += 1
        self._drop_first()
        while self._count and not self._may_be_frame():
            self._drop_first()

    def _may_be_frame(self):
        """Whether the bytes so far are how a frame begins: "BM", then the length."""
        frame, count = self._frame, self._count
        if frame[0] != 0x42 or (count > 1 and frame[1] != 0x4D):
            return False
        return not ((count > 2 and frame[2] != 0) or (count > 3 and frame[3] != _PAYLOAD))

    def _drop_first(self):
        """Move the next byte that could begin a frame to the front."""
        frame, count = self._frame, self._count
        first = 1
        while first < count and frame[first] != 0x42:
            first += 1
        for i in range(first, count):
            frame[i - first] = frame[i]
        self._count = count - first

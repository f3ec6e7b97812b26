"""SNTP over UDP in asyncio: one question, one answer, checked (RFC 4330, section 5)."""

import asyncio
import os
import socket
import time

from micropython import const

from .clock import believable

_PORT = const(123)
_1900_TO_2020 = 3786825600
_ERA = 0x100000000  # NTP's seconds begin again in 2036
_POLL_MS = const(10)


class TimeError(OSError):
    """A time server gave no answer, or none that can be right."""


def parse_answer(packet, cookie):
    """(seconds, milliseconds) since 2020 of an answer to a question that bore `cookie` (8 bytes). Raises TimeError."""
    if len(packet) < 48 or packet[0] & 7 != 4 or bytes(packet[24:32]) != cookie:
        raise TimeError("not an answer to our question")
    if packet[0] >> 6 == 3 or not 1 <= packet[1] <= 15:
        raise TimeError("the time server is not synchronised itself")
    seconds = int.from_bytes(packet[40:44], "big")
    fraction = int.from_bytes(packet[44:46], "big")
    seconds -= _1900_TO_2020
    if seconds < 0:
        seconds += _ERA
    if bytes(packet[40:48]) == bytes(8) or not believable(seconds):
        raise TimeError("the time server's time can't be right")
    return seconds, fraction * 1000 >> 16


async def ask(server, clock, timeout_ms=5000):
    """Ask `server` (host or host:port) and set `clock`. Returns the uncertainty in ms: half of the round trip. Raises OSError, TimeError after
    `timeout_ms`. A host name is looked up with MicroPython's blocking getaddrinfo; an address is not."""
    host, _, port = server.partition(":")
    address = socket.getaddrinfo(host, int(port or _PORT), 0, socket.SOCK_DGRAM)[0][-1]
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        link.setblocking(False)
        link.connect(address)
        cookie = os.urandom(8)
        question = bytearray(48)
        question[0] = 0x23  # version 4, client
        question[40:48] = (
            cookie  # comes back as the originate timestamp: an answer to another question is known by it
        )
        sent = time.ticks_ms()
        link.send(question)
        wrong = None
        while True:
            passed = time.ticks_diff(time.ticks_ms(), sent)
            if passed > timeout_ms:
                raise wrong or TimeError("no answer from the time server " + server)
            try:
                answer = link.recv(64)
            except OSError:
                answer = None  # nothing there yet
            if answer:
                round_trip = time.ticks_diff(time.ticks_ms(), sent)
                try:
                    seconds, milliseconds = parse_answer(answer, cookie)
                except TimeError as error:
                    wrong = error  # anyone can send us a packet: the right one may still come
                    continue
                half = round_trip // 2
                milliseconds += half
                clock.set_utc(seconds + milliseconds // 1000, milliseconds % 1000, half + _POLL_MS, "ntp")
                return half + _POLL_MS
            await asyncio.sleep_ms(_POLL_MS)
    finally:
        link.close()

"""The packets of MQTT 3.1.1 that a node sends and receives: writing and reading them, and saying what is wrong with one.

Numbers in comments are sections and conformance clauses of "MQTT Version 3.1.1", OASIS Standard, 29 October 2014.
"""

from micropython import const

# Packet types (2.2.1)
CONNACK = const(2)
PUBLISH = const(3)
PUBACK = const(4)
SUBACK = const(9)
UNSUBACK = const(11)
PINGRESP = const(13)

LONGEST_HEADER = const(5)  # bytes: the first, and a length of four
MOST_REMAINING = const(268435455)  # 2.2.3: four bytes of seven bits

_REFUSALS = (  # 3.2.2.3, by return code
    "",
    "the broker does not speak MQTT 3.1.1",
    "the broker refuses this client id",
    "the broker is not available",
    "bad user name or password",
    "not authorised",
)


class MqttError(OSError):
    """The connection is not there, broke, or the peer broke the protocol; the text says which."""


class MqttRefused(MqttError):
    """The broker answered CONNECT with a refusal; `code` is the return code of its CONNACK (1 to 5)."""

    def __init__(self, code):
        super().__init__(_REFUSALS[code] if 0 < code < len(_REFUSALS) else f"refused with code {code}")
        self.code = code


def encoded(text):
    """A string as UTF-8; bytes as they are."""
    return text.encode() if isinstance(text, str) else text


def field(text):
    """A string or binary field: two bytes of length, then the bytes (1.5.3)."""
    text = encoded(text)
    if len(text) > 65535:
        raise ValueError("longer than 65,535 bytes")
    return bytes((len(text) >> 8, len(text) & 255)) + text


def packet(first, body):
    """A whole packet, for those that are sent once a connection."""
    size = len(body)
    header = bytes((first,))
    while True:
        header += bytes((size & 127 | (128 if size > 127 else 0),))
        size >>= 7
        if not size:
            return header + body


def connect_packet(client_id, user, password, keepalive, will, clean):
    """A CONNECT (3.1). `will` is (topic, payload, qos, retain) or None."""
    flags = 2 if clean else 0
    rest = field(client_id)
    if will is not None:
        topic, payload, qos, retain = will
        flags |= 4 | qos << 3 | (32 if retain else 0)
        rest += field(topic) + field(payload)
    if user is not None:
        flags |= 128
        rest += field(user)
        if password is not None:
            flags |= 64
            rest += field(password)
    return packet(0x10, b"\x00\x04MQTT\x04" + bytes((flags, keepalive >> 8, keepalive & 255)) + rest)


def put_publish_header(buffer, at, first, remaining, topic, packet_id):
    """Write a PUBLISH up to its payload into `buffer` at `at`; returns where the payload goes. Packet id 0: none (QoS 0)."""
    buffer[at] = first
    at += 1
    while True:
        buffer[at] = remaining & 127 | (128 if remaining > 127 else 0)
        at += 1
        remaining >>= 7
        if not remaining:
            break
    size = len(topic)
    buffer[at] = size >> 8
    buffer[at + 1] = size & 255
    at += 2
    buffer[at : at + size] = topic
    at += size
    if packet_id:
        buffer[at] = packet_id >> 8
        buffer[at + 1] = packet_id & 255
        at += 2
    return at


def packet_size(buffer, start, end):
    """Bytes of the packet at `start`, its header included; 0 while the length has not all come."""
    size = 0
    at = start + 1
    while at < end:
        byte = buffer[at]
        size |= (byte & 127) << 7 * (at - start - 1)
        at += 1
        if byte < 128:
            return size + at - start
        if at - start > 4:
            raise MqttError("a malformed packet length")
    return 0


def publish_header(view, first, body, end):
    """(packet id or 0, start of the payload) of a PUBLISH whose variable header is at `body` (3.3)."""
    qos = first >> 1 & 3
    if qos > 1:
        raise MqttError(f"a message of QoS {qos}, which was not subscribed to")
    if end - body < 2:
        raise MqttError("a malformed PUBLISH")
    at = body + 2 + (view[body] << 8 | view[body + 1])
    if at == body + 2 or at + 2 * qos > end:
        raise MqttError("a malformed PUBLISH")
    if not qos:
        return 0, at
    packet_id = view[at] << 8 | view[at + 1]
    if not packet_id:
        raise MqttError("a malformed PUBLISH")
    return packet_id, at + 2

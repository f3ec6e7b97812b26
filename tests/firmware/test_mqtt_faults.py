"""The node's MQTT client against a peer that does what a broker should not, or does it slowly, or not at all."""

import random
import socket
import struct

import pytest

from tests.firmware.conftest import RunFirmware
from tests.firmware.mqtt_peer import CONNACK, PINGRESP, PRELUDE, PUBACK, SUBACK, Connection, Peer, publish


def puback(packet_id: int) -> bytes:
    return bytes((PUBACK, 2)) + packet_id.to_bytes(2, "big")


def published(body: bytes, qos: int) -> tuple[str, int, bytes]:
    """(topic, packet id, payload) of the body of a PUBLISH."""
    end = 2 + int.from_bytes(body[:2], "big")
    packet_id = int.from_bytes(body[end : end + 2], "big") if qos else 0
    return body[2:end].decode(), packet_id, body[end + 2 * bool(qos) :]


# Lets the first connection fail, and ends well on the one after that. Argument 2: connections that the peer accepts, in all.
RECONNECTS = (
    PRELUDE
    + """
async def main():
    c = client(int(sys.argv[1]), timeout_ms=300)
    task = asyncio.create_task(c.run())
    await until(lambda: c.connected and c.connections == int(sys.argv[2]))
    await c.disconnect()
    await task
    print("done")
asyncio.run(main())
"""
)


def second_time(connection: Connection) -> None:
    """What a peer does after its fault: all that it should."""
    connection.accept()
    connection.expect(14)


def test_a_peer_that_says_nothing_is_left_after_the_time_out(run_firmware: RunFirmware) -> None:
    def script(connection: Connection) -> None:
        if connection.number == 0:
            connection.expect(1)
            connection.until_gone()
        else:
            second_time(connection)

    with Peer(script) as peer:
        out = run_firmware(RECONNECTS, str(peer.port), "1")
    assert out.splitlines() == ["error: MqttError no CONNACK in 300 ms", "done"]
    assert 0.25 < peer.accepted[1] - peer.accepted[0] < 1


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1, "the broker does not speak MQTT 3.1.1"),
        (2, "the broker refuses this client id"),
        (3, "the broker is not available"),
        (4, "bad user name or password"),
        (5, "not authorised"),
        (77, "refused with code 77"),
    ],
)
def test_refusals_are_told_apart(run_firmware: RunFirmware, code: int, text: str) -> None:
    def script(connection: Connection) -> None:
        connection.expect(1)
        connection.send(bytes((0x20, 2, 0, code)))
        connection.until_gone()

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]))
    task = asyncio.create_task(c.run())
    await until(lambda: c.error)
    await c.disconnect()
    await task
    print(c.error.code, c.connections)
asyncio.run(main())""",
            str(peer.port),
        )
    assert out.splitlines()[0] == f"error: MqttRefused {text}"
    assert out.splitlines()[-1] == f"{code} 0"


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",  # not a broker at all
        b"\x20\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x20\x03\x00\x00\x00",
        b"\x20\x02\x02\x00",  # acknowledge flags that are reserved
        b"\x21\x02\x00\x00",
        b"\xd0\x00",
        CONNACK + CONNACK,
        CONNACK + b"\x10\x00",
        CONNACK + b"\x40\x01\x00",
        CONNACK + b"\x40\x03\x00\x00\x00",
        CONNACK + b"\x90\x02\x00\x01",
        CONNACK + b"\xd0\x01\x00",
        CONNACK + b"\x30\x00",  # PUBLISH without a topic
        CONNACK + b"\x30\x02\x00\x00",
        CONNACK + b"\x30\x03\x00\x05a",  # a topic longer than its packet
        CONNACK + b"\x32\x04\x00\x01a\x00",
        CONNACK + b"\x32\x05\x00\x01a\x00\x00",  # packet id 0
        CONNACK + b"\x34\x05\x00\x01a\x00\x01",  # QoS 2, which nobody subscribed to
        CONNACK + b"\x36\x05\x00\x01a\x00\x01",
        CONNACK + b"\x82\xff\xff\xff\x7f",  # a SUBSCRIBE of 256 MB
        CONNACK + b"\x30\xff\xff\xff\x7f\xff\xff",  # a PUBLISH of 256 MB with a topic that does not fit
        CONNACK + b"\x00\x00",
        CONNACK + b"\xf0\x00",
    ],
)
def test_a_malformed_packet_ends_the_connection_with_a_reason(
    run_firmware: RunFirmware, garbage: bytes
) -> None:
    def script(connection: Connection) -> None:
        if connection.number == 0:
            connection.expect(1)
            connection.send(garbage + bytes(2000))
            connection.until_gone()
        else:
            second_time(connection)

    with Peer(script) as peer:
        out = run_firmware(RECONNECTS, str(peer.port), "2" if garbage.startswith(CONNACK) else "1")
    failure, done = out.splitlines()
    assert done == "done"
    assert failure.startswith("error: MqttError a")
    assert "closed" not in failure


def test_one_byte_at_a_time(run_firmware: RunFirmware) -> None:
    payload = bytes(range(256))

    def slowly(connection: Connection, data: bytes) -> None:
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            connection.send(bytes((byte,)))

    def script(connection: Connection) -> None:
        connection.expect(1)
        slowly(connection, CONNACK)
        body = connection.expect(8)
        slowly(connection, bytes((SUBACK, 3)) + body[:2] + b"\x01")
        slowly(connection, publish("t", payload, 1, 513))
        assert connection.expect(4) == b"\x02\x01"
        slowly(connection, publish("t", b"end", 0))
        connection.expect(14)

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]))
    task = await connected(c)
    got = []
    c.on_message = lambda topic, payload, retained: got.append((bytes(topic), bytes(payload)))
    print(await c.subscribe("t", 1))
    await until(lambda: len(got) == 2)
    assert got == [(b"t", bytes(range(256))), (b"t", b"end")], got
    await c.disconnect()
    await task
asyncio.run(main())""",
            str(peer.port),
        )
    assert out == "1\n"


def test_a_message_too_large_is_skipped_and_acknowledged(run_firmware: RunFirmware) -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        connection.send(
            publish("a", b"before", 1, 1)
            + publish("big", bytes(100_000), 1, 2)
            + publish("b", b"after", 1, 3)
        )
        connection.send(publish("big", bytes(1500), 0) + publish("c", b"x" * 500, 0))
        assert [connection.expect(4)[1] for _ in range(3)] == [1, 2, 3]
        connection.expect(14)

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]))
    got = []
    c.on_message = lambda topic, payload, retained: got.append((bytes(topic), len(payload)))
    task = await connected(c)
    await until(lambda: len(got) == 3)
    print(got == [(b"a", 6), (b"b", 5), (b"c", 500)], c.oversized)
    await c.disconnect()
    await task
asyncio.run(main())""",
            str(peer.port),
        )
    assert out == "True 2\n"


def test_no_puback_ends_the_connection_and_frees_who_waits(run_firmware: RunFirmware) -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        if connection.number == 0:
            for _ in range(3):
                connection.expect(3)
            connection.until_gone()
        else:
            body = connection.expect(3)
            connection.send(puback(published(body, 1)[1]))
            connection.expect(14)

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]), window=3, timeout_ms=300)
    task = await connected(c)
    try:
        for i in range(4):
            await c.publish("t", b"x", 1)
    except MqttError as error:
        print(i, error, c.in_flight)
    await until(lambda: c.connected)
    await c.publish("t", b"x", 1)
    await c.drain(1000)
    print(c.in_flight, c.connections)
    await c.disconnect()
    await task
asyncio.run(main())""",
            str(peer.port),
        )
    assert out.splitlines() == ["error: MqttError no PUBACK in 300 ms", "3 the connection ended 0", "0 2"]


def test_the_window_holds_and_drain_waits(run_firmware: RunFirmware) -> None:
    window, messages = 5, 100

    def script(connection: Connection) -> None:
        connection.accept()
        ids = []
        for number in range(messages):
            _, packet_id, payload = published(connection.expect(3), 1)
            assert int(payload) == number
            ids.append(packet_id)
            if len(ids) == window or number == messages - 1:
                if number < 50:  # a window is full: nothing more may come
                    connection.sock.settimeout(0.02)
                    with pytest.raises(TimeoutError):
                        connection.sock.recv(1)
                    connection.sock.settimeout(20)
                for packet_id in ids:
                    connection.send(puback(packet_id))
                assert len(set(ids)) == len(ids)
                ids = []
        connection.expect(14)

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]), window=5)
    c._packet_id = 65500  # goes over the end
    task = await connected(c)
    acked = []
    c.on_puback = acked.append
    sent = []
    for i in range(100):
        sent.append(await c.publish(b"t", str(i).encode(), 1))
    await c.drain(2000)
    print(acked == sent, c.in_flight, min(sent), max(sent), len(set(sent)))
    await c.disconnect()
    await task
asyncio.run(main())""",
            str(peer.port),
        )
    assert out == "True 0 1 65535 100\n"


def test_pubacks_go_out_in_the_order_of_arrival(run_firmware: RunFirmware) -> None:
    ids = random.Random(1).sample(range(1, 65536), 500)

    def script(connection: Connection) -> None:
        connection.accept()
        connection.send(b"".join(publish("topic", b"payload", 1, packet_id) for packet_id in ids))
        assert [int.from_bytes(connection.expect(4), "big") for _ in ids] == ids
        connection.expect(14)

    with Peer(script) as peer:
        run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]))
    got = []
    c.on_message = lambda *_: got.append(1)
    task = await connected(c)
    await until(lambda: len(got) == 500)
    await c.disconnect()
    await task
asyncio.run(main())""",
            str(peer.port),
        )


@pytest.mark.parametrize(("answer", "expected"), [(b"\x80", "refused"), (None, "silence")])
def test_a_subscription_refused_or_unanswered(
    run_firmware: RunFirmware, answer: bytes | None, expected: str
) -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        body = connection.expect(8)
        if answer is not None:
            connection.send(bytes((SUBACK, 3)) + body[:2] + answer)
        connection.until_gone()

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]), timeout_ms=300)
    task = await connected(c)
    try:
        await c.subscribe("some/topic", 1)
    except MqttError as error:
        print(error)
    task.cancel()
asyncio.run(main())""",
            str(peer.port),
        )
    assert (
        out.splitlines()
        == {
            "refused": ["the broker refuses the subscription to some/topic"],
            "silence": ["error: MqttError no SUBACK in 300 ms", "the connection ended"],
        }[expected]
    )


def test_pings_keep_a_quiet_connection(run_firmware: RunFirmware) -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        for _ in range(3):
            connection.expect(12)
            connection.send(PINGRESP)
        connection.expect(3)
        connection.expect(14)

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]), keepalive=1, timeout_ms=300)
    task = await connected(c)
    await asyncio.sleep_ms(1800)  # three pings, at halves of the keepalive
    await c.publish("t", b"still here")
    await c.disconnect()
    await task
    print(c.connections)
asyncio.run(main())""",
            str(peer.port),
        )
    assert out == "1\n"


def test_a_half_open_connection_is_noticed_by_its_missing_pong_even_while_sending(
    run_firmware: RunFirmware,
) -> None:
    def script(connection: Connection) -> None:
        if connection.number == 0:
            connection.accept()
            connection.until_gone()  # takes everything and answers nothing
        else:
            second_time(connection)

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]), keepalive=1, timeout_ms=300)
    task = await connected(c)
    try:
        while c.connections == 1:
            await c.publish("t", b"x")
            await asyncio.sleep_ms(20)
    except MqttError:
        pass
    await until(lambda: c.connected)
    await c.disconnect()
    await task
asyncio.run(main())""",
            str(peer.port),
        )
    assert out == "error: MqttError no PINGRESP in 300 ms\n"


def test_a_peer_that_stops_reading_is_left(run_firmware: RunFirmware) -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        if connection.number == 0:
            connection.expect(3)
            stalled.append(connection.sock.dup())  # open, and nobody reads it
        else:
            connection.expect(14)

    stalled: list[socket.socket] = []
    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]), timeout_ms=300, keepalive=0)
    task = await connected(c)
    sent = 0
    try:
        while sent < 4000:
            await c.publish("t", bytes(8000))
            sent += 1
    except MqttError as error:
        print(error)
    await until(lambda: c.connected)
    await c.disconnect()
    await task
asyncio.run(main())""",
            str(peer.port),
        )
    for sock in stalled:
        sock.close()
    assert out.splitlines() == [
        "error: MqttError the broker takes nothing for 300 ms",
        "the connection ended",
    ]


def test_cut_within_every_packet(run_firmware: RunFirmware) -> None:
    stream = CONNACK + publish("topic", b"payload", 1, 7) + bytes((PUBACK, 2, 0, 9)) + PINGRESP

    def script(connection: Connection) -> None:
        connection.expect(1)
        if connection.number < len(stream):
            connection.send(stream[: connection.number])
            # SO_LINGER 0: every second one ends with a reset.
            if connection.number % 2:
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            connection.send(stream)
            assert connection.expect(4) == b"\x00\x07"
            connection.expect(14)

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]), backoff_ms=(1, 2))
    opened, closed, errors, got = [], [], [], []
    c.on_error = errors.append
    c.on_connect = opened.append
    c.on_disconnect = lambda: closed.append(1)
    c.on_message = lambda topic, payload, retained: got.append(bytes(payload))
    whole = int(sys.argv[2])
    task = asyncio.create_task(c.run())
    await until(lambda: c.connected and len(errors) == whole and got)
    await c.disconnect()
    await task
    # A reset may take with it what came before, so not every connection is one.
    print(len(opened) == len(closed) == c.connections, c.connections > whole // 3, set(got))
asyncio.run(main())""",
            str(peer.port),
            str(len(stream)),
        )
    assert out == "True True {b'payload'}\n"


def test_a_resumed_session(run_firmware: RunFirmware) -> None:
    """Session present: what was subscribed before still comes, and PUBACKs for what an earlier connection sent mean nothing."""
    first_ids: list[int] = []

    def script(connection: Connection) -> None:
        connect = connection.accept(session_present=connection.number > 0)
        assert connect[7] & 2 == 0  # clean session off
        if connection.number == 0:
            body = connection.expect(8)
            connection.send(bytes((SUBACK, 3)) + body[:2] + b"\x01")
            first_ids.extend(published(connection.expect(3), 1)[1] for _ in range(3))
            return
        for packet_id in first_ids:
            connection.send(puback(packet_id))
        connection.send(publish("t", b"kept", 1, 77))
        assert connection.expect(4) == b"\x00\x4d"
        packet_id = published(connection.expect(3), 1)[1]
        assert packet_id not in first_ids
        connection.send(puback(packet_id))
        connection.expect(14)

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]))
    present, acked, got = [], [], []
    c.on_error = lambda error: None
    c.on_connect = present.append
    c.on_puback = acked.append
    c.on_message = lambda topic, payload, retained: got.append(bytes(payload))
    task = await connected(c)
    await c.subscribe("t", 1)
    for _ in range(3):
        await c.publish("t", b"lost", 1)
    await until(lambda: len(present) == 2 and got)
    sent = await c.publish("t", b"again", 1)
    await c.drain(1000)
    print(present, acked == [sent], got)
    await c.disconnect()
    await task
asyncio.run(main())""",
            str(peer.port),
        )
    assert out == "[False, True] True [b'kept']\n"


def test_large_payloads_keep_their_packets_whole(run_firmware: RunFirmware) -> None:
    """Several tasks publish payloads larger than the buffer, small ones and acknowledgements at the same time."""
    large = bytes(i * 7 & 255 for i in range(8000))

    def script(connection: Connection) -> None:
        connection.accept()
        seen = {"large": 0, "small": 0, "acks": 0}
        sent = 0
        while seen != {"large": 40, "small": 200, "acks": 100}:
            if sent < 100:
                sent += 1
                connection.send(publish("in", b"x", 1, sent))
            first, body = connection.packet()
            if first >> 4 == 4:
                seen["acks"] += 1
                assert int.from_bytes(body, "big") == seen["acks"]
                continue
            assert first & 0xF1 == 0x30
            topic, packet_id, payload = published(body, first & 2)
            assert payload == (large if topic == "large" else b"small")
            seen[topic] += 1
            if packet_id:
                connection.send(puback(packet_id))
        connection.expect(14)

    with Peer(script) as peer:
        run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]), window=4)
    got = []
    c.on_message = lambda *_: got.append(1)
    task = await connected(c)
    large = bytearray(i * 7 & 255 for i in range(8000))
    async def many(topic, payload, count, qos):
        for _ in range(count):
            await c.publish(topic, payload, qos)
    await asyncio.gather(
        many("large", large, 20, 1), many("small", b"small", 100, 1),
        many("large", memoryview(large), 20, 0), many("small", memoryview(b"small"), 100, 0),
    )
    await c.drain(5000)
    await until(lambda: len(got) == 100)
    await c.disconnect()
    await task
asyncio.run(main())""",
            str(peer.port),
        )


def test_a_publish_cancelled_within_its_packet_ends_the_connection(run_firmware: RunFirmware) -> None:
    def script(connection: Connection) -> None:
        if connection.number == 0:
            connection.accept()
            kept.append(connection.sock.dup())
        else:
            second_time(connection)

    kept: list[socket.socket] = []
    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]), timeout_ms=5000)
    task = await connected(c)
    large = asyncio.create_task(c.publish("t", bytes(30000000)))
    await asyncio.sleep_ms(100)
    large.cancel()
    await until(lambda: c.connections == 2 and c.connected)
    await c.disconnect()
    await task
asyncio.run(main())""",
            str(peer.port),
            heap="64m",
        )
    for sock in kept:
        sock.close()
    assert out == "error: MqttError a publish was cancelled within its packet\n"


@pytest.mark.parametrize("delay_ms", [0, 1, 5, 50])
def test_cancelling_run_closes_the_connection(run_firmware: RunFirmware, delay_ms: int) -> None:
    ended = []

    def script(connection: Connection) -> None:
        connection.accept()
        connection.until_gone()
        ended.append(connection.number)

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]))
    for _ in range(5):
        task = asyncio.create_task(c.run())
        await asyncio.sleep_ms(int(sys.argv[2]))
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        assert not c.connected and not c.event_connected.is_set() and not c.in_flight
    files = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    task = await connected(c)  # and it can run again
    task.cancel()
    print(c.error)
asyncio.run(main())""",
            str(peer.port),
            str(delay_ms),
        )
    assert out == "None\n"
    assert len(ended) >= 1


def test_disconnect_during_a_backoff_and_without_a_connection(run_firmware: RunFirmware) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    out = run_firmware(
        PRELUDE
        + """
async def main():
    c = client(int(sys.argv[1]), backoff_ms=(60000, 60000))
    await c.disconnect()  # not running: nothing to do
    for call in (lambda: c.publish("t", b"x", 1), lambda: c.subscribe("t"), lambda: c.drain(10)):
        try:
            await call()
        except MqttError as error:
            print(error)
    task = asyncio.create_task(c.run())
    await until(lambda: c.error)
    began = ticks_ms()
    await c.disconnect()
    await task
    print(ticks_diff(ticks_ms(), began) < 500)
asyncio.run(main())""",
        str(port),
    )
    refused, *rest = (out.splitlines()[3], *out.splitlines()[:3], *out.splitlines()[4:])
    assert "ECONNREFUSED" in refused
    assert rest == ["not connected"] * 3 + ["True"]


def test_waits_between_connections_grow_and_vary(run_firmware: RunFirmware) -> None:
    def script(connection: Connection) -> None:
        connection.expect(1)

    with Peer(script) as peer:
        run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]), backoff_ms=(40, 320))
    errors = []
    c.on_error = errors.append
    task = asyncio.create_task(c.run())
    await until(lambda: len(errors) == 7)
    task.cancel()
asyncio.run(main())""",
            str(peer.port),
        )
    gaps = [1000 * (b - a) for a, b in zip(peer.accepted, peer.accepted[1:], strict=False)]
    for gap, delay in zip(gaps, [40, 80, 160, 320, 320, 320], strict=True):
        assert delay / 2 - 5 <= gap <= delay + 60
    assert len({round(gap) for gap in gaps[3:]}) > 1


def test_a_connection_that_stood_resets_the_wait(run_firmware: RunFirmware) -> None:
    def script(connection: Connection) -> None:
        if connection.number < 5:
            connection.expect(1)
            return
        connection.accept()
        if connection.number == 5:
            connection.expect(3)  # comes once the client has stood for long enough
        else:
            connection.expect(14)

    with Peer(script) as peer:
        run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]), backoff_ms=(20, 300))
    c.on_error = lambda error: None
    task = await connected(c)
    await asyncio.sleep_ms(350)
    await c.publish("t", b"x")
    await until(lambda: c.connections == 2)
    await c.disconnect()
    await task
asyncio.run(main())""",
            str(peer.port),
        )
    assert peer.accepted[5] - peer.accepted[4] > 0.13
    assert peer.accepted[6] - peer.accepted[5] < 0.35 + 0.1


def test_a_host_that_does_not_answer(run_firmware: RunFirmware) -> None:
    """A listener whose queue is full drops the SYN, as a firewall would."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]), timeout_ms=200, backoff_ms=(1, 1))
    errors = []
    c.on_error = errors.append
    task = asyncio.create_task(c.run())
    await until(lambda: len(errors) == 4)
    task.cancel()
    print(errors[0], len(os.listdir("/proc/self/fd")) < 20 if sys.platform == "linux" else True)
asyncio.run(main())""",
            str(server.getsockname()[1]),
        )
        for sock in waiting:
            sock.close()
    assert out == "no answer to the connection request True\n"


def test_hundreds_of_connections_leak_neither_memory_nor_sockets(run_firmware: RunFirmware) -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        connection.send(publish("t", b"x" * 100, 0))

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]), backoff_ms=(1, 1))
    c.on_error = c.on_message = lambda *_: None
    task = asyncio.create_task(c.run())
    await until(lambda: c.connections >= 50)
    gc.collect()
    before = gc.mem_alloc()
    await until(lambda: c.connections >= 350)
    gc.collect()
    task.cancel()
    print(gc.mem_alloc() - before < 3000, len(os.listdir("/proc/self/fd")) < 20 if sys.platform == "linux" else True)
asyncio.run(main())""",
            str(peer.port),
            heap="400k",
        )
    assert out == "True True\n"


def test_what_a_callback_raises_hurts_nothing_else(run_firmware: RunFirmware) -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        connection.send(publish("t", b"x", 1, 1) + publish("t", b"y", 1, 2))
        assert connection.expect(4) == b"\x00\x01"
        assert connection.expect(4) == b"\x00\x02"
        connection.expect(14)

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]))
    def poison(topic, payload, retained):
        raise KeyError("from a callback")
    c.on_message = poison
    task = await connected(c)
    await until(lambda: c.error)
    await c.disconnect()
    await task
    print(repr(c.error), c.connections)
asyncio.run(main())""",
            str(peer.port),
        )
    assert out == "KeyError('from a callback',) 1\n"


def test_what_can_not_be_sent_is_refused_before_it_is(run_firmware: RunFirmware) -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        assert connection.packet() == (0x31, b"\x00\x01tfine")
        connection.expect(14)

    with Peer(script) as peer:
        out = run_firmware(
            PRELUDE
            + """
async def main():
    c = client(int(sys.argv[1]))
    task = await connected(c)
    from array import array
    for arguments in (("", b"x"), ("t" * 2000, b"x"), ("t", b"x", 2), ("t", array("i", [1, 2])), ("t", 5), ("t", None)):
        try:
            await c.publish(*arguments)
        except (ValueError, TypeError, NotImplementedError) as error:
            print("refused")
    for arguments in (("t" * 2000,),):
        try:
            await c.subscribe(*arguments)
        except ValueError:
            print("refused")
    for options in ({"window": 0}, {"keepalive": 70000}, {"user": "x" * 70000}):
        try:
            client(1, **options)
        except ValueError:
            print("refused")
    await c.publish("t", b"fine", retain=True)
    await c.disconnect()
    await task
asyncio.run(main())""",
            str(peer.port),
        )
    assert out == "refused\n" * 10

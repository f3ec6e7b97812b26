"""The node's MQTT client against real brokers."""

import threading
import time
from collections.abc import Callable

from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage

from lamppost_host.broker import RunningBroker
from tests import brokers
from tests.firmware.conftest import RunFirmware
from tests.firmware.mqtt_peer import PRELUDE

running_broker = brokers.running_broker
running_mosquitto = brokers.running_mosquitto

NODE = (
    PRELUDE
    + """
port, password = int(sys.argv[1]), sys.argv[2]
def node(**options):
    return client(port, user="alpha/one", password=password, **options)
"""
)


def arguments(broker: RunningBroker) -> tuple[str, str]:
    return str(broker.port), broker.credentials.get("alpha/one")


class Host:
    """The host's end: a persistent session of the bridge's user that keeps what it gets."""

    def __init__(self, broker: RunningBroker, client_id: str = "host") -> None:
        self.messages: list[MQTTMessage] = []
        self.client = Client(CallbackAPIVersion.VERSION2, client_id, clean_session=False)
        self.client.username_pw_set("bridge", broker.credentials.get("bridge"))
        self.client.on_message = lambda _client, _data, message: self.messages.append(message)
        subscribed: list[int] = []
        self.client.on_connect = self._subscribe
        self.client.on_subscribe = lambda *_: subscribed.append(1)
        self.client.connect(broker.connect_host, broker.port)
        self.client.loop_start()
        self.until(lambda: len(subscribed) == 2)

    def _subscribe(self, *_: object) -> None:
        self.client.subscribe("lamppost/1/+/+/obs", 1)
        self.client.subscribe("lamppost/1/+/+/status", 1)

    def until(self, condition: Callable[[], object], timeout: float = 10) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain; {len(self.messages)} messages"
            time.sleep(0.005)

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_everything_published_arrives_once_in_order(
    run_firmware: RunFirmware, running_broker: RunningBroker
) -> None:
    with Host(running_broker) as host:
        out = run_firmware(
            NODE
            + """
async def main():
    c = node(window=16)
    task = await connected(c)
    buffer = bytearray(8000)
    for i in range(2000):
        size = (1, 60, 150, 1400, 1500, 8000)[i % 6]
        buffer[:10] = "{:010}".format(i).encode()
        await c.publish("lamppost/1/alpha/one/obs", memoryview(buffer)[:max(size, 10)], 1)
    await c.drain(10000)
    print(c.in_flight, c.connections, c.error)
    await c.disconnect()
    await task
asyncio.run(main())""",
            *arguments(running_broker),
        )
        host.until(lambda: len(host.messages) >= 2000)
        assert [int(message.payload[:10]) for message in host.messages] == list(range(2000))
        sizes = [len(message.payload) for message in host.messages]
        assert sizes == [max(10, (1, 60, 150, 1400, 1500, 8000)[i % 6]) for i in range(2000)]
    assert out == "0 1 None\n"


def test_messages_for_a_node_that_was_away_wait_in_its_session(
    run_firmware: RunFirmware,
    running_broker: RunningBroker,
) -> None:
    first = (
        NODE
        + """
async def main():
    c = node()
    c.on_connect = lambda present: print("present", present)
    task = await connected(c)
    print(await c.subscribe("lamppost/1/alpha/one/cmd", 1))
    await c.disconnect()
    await task
asyncio.run(main())"""
    )
    second = (
        NODE
        + """
async def main():
    c = node()
    got = []
    c.on_connect = lambda present: print("present", present)
    c.on_message = lambda topic, payload, retained: got.append(int(bytes(payload)))
    task = await connected(c)
    await until(lambda: len(got) == 50)
    print(got == list(range(50)))
    await c.publish("lamppost/1/alpha/one/obs", b"and it still sends", 1)
    await c.drain(2000)
    await c.disconnect()
    await task
asyncio.run(main())"""
    )
    assert run_firmware(first, *arguments(running_broker)).splitlines() == ["present False", "1"]
    with Host(running_broker) as host:
        for number in range(50):
            host.client.publish("lamppost/1/alpha/one/cmd", str(number), 1).wait_for_publish(5)
        assert run_firmware(second, *arguments(running_broker)).splitlines() == ["present True", "True"]
        host.until(lambda: host.messages)
    # Nothing was left unacknowledged, so nothing comes again.
    third = second.replace("await until(lambda: len(got) == 50)", "await asyncio.sleep_ms(200)").replace(
        "got == list(range(50))", "got"
    )
    assert run_firmware(third, *arguments(running_broker)).splitlines() == ["present True", "[]"]


def test_the_broker_restarts_under_a_publishing_node(
    run_firmware: RunFirmware, running_broker: RunningBroker
) -> None:
    """It finds its way back by itself, and what it sends after is received."""
    restarted = threading.Event()

    def restart() -> None:
        time.sleep(0.5)
        running_broker.kill()
        running_broker.start()
        restarted.set()

    thread = threading.Thread(target=restart)
    thread.start()
    out = run_firmware(
        NODE
        + """
async def main():
    c = node()
    c.on_error = lambda error: None
    task = await connected(c)
    failures = 0
    while c.connections < 2 or not c.connected:
        try:
            await c.publish("lamppost/1/alpha/one/obs", b"x" * 100, 1)
        except MqttError:
            failures += 1
            await asyncio.sleep_ms(5)
    for i in range(100):
        await c.publish("lamppost/1/alpha/one/obs", str(i).encode(), 1)
    await c.drain(5000)
    print(failures > 0, c.connections, c.in_flight)
    await c.disconnect()
    await task
asyncio.run(main())""",
        *arguments(running_broker),
    )
    thread.join()
    assert restarted.is_set()
    assert out == "True 2 0\n"


def test_the_will_comes_after_a_death_and_not_after_a_goodbye(
    run_firmware: RunFirmware,
    running_broker: RunningBroker,
) -> None:
    script = (
        NODE
        + """
async def main():
    c = node(will=("lamppost/1/alpha/one/status", b"lost", 1, True))
    task = await connected(c)
    await c.publish("lamppost/1/alpha/one/status", sys.argv[3].encode(), 1)
    await c.drain(2000)
    if sys.argv[3] == "goodbye":
        await c.disconnect()
        await task
    else:
        sys.exit()
asyncio.run(main())"""
    )
    with Host(running_broker) as host:
        run_firmware(script, *arguments(running_broker), "goodbye")
        run_firmware(script, *arguments(running_broker), "dies")
        host.until(lambda: len(host.messages) >= 3)
        assert [message.payload for message in host.messages] == [b"goodbye", b"dies", b"lost"]


def test_a_wrong_password_is_named_and_a_right_one_works_later(
    run_firmware: RunFirmware,
    running_mosquitto: RunningBroker,
) -> None:
    out = run_firmware(
        NODE
        + """
async def main():
    c = client(port, user="alpha/one", password="wrong")
    task = asyncio.create_task(c.run())
    await until(lambda: isinstance(c.error, MqttRefused))
    task.cancel()
    print(c.error.code)
asyncio.run(main())""",
        *arguments(running_mosquitto),
    )
    assert "MqttRefused not authorised" in out or "MqttRefused bad user name or password" in out
    assert out.splitlines()[-1] in ("4", "5")  # Mosquitto says 5 for a wrong password

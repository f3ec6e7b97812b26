"""QoS 1 messages a second from one node to a broker. Runs in MicroPython.

Arguments: firmware folder, host, port, user, password, messages, bytes a message, window. Prints messages a second, an integer.
"""

import asyncio
import sys
from time import ticks_diff, ticks_ms

sys.path.insert(0, sys.argv[1])

from lamppost.mqtt import MqttClient

host, port, user, password = sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]
messages, size, window = int(sys.argv[6]), int(sys.argv[7]), int(sys.argv[8])


async def main():
    client = MqttClient(host, port, user.replace("/", "."), user, password, window=window)
    task = asyncio.create_task(client.run())
    await asyncio.wait_for_ms(client.event_connected.wait(), 5000)
    topic = f"lamppost/1/{user}/obs".encode()
    payload = bytearray(size)
    began = ticks_ms()
    for _ in range(messages):
        await client.publish(topic, payload, 1)
    await client.drain(10000)
    took = ticks_diff(ticks_ms(), began)
    await client.disconnect()
    await task
    print(messages * 1000 // took)


asyncio.run(main())

"""A device that sends numbered messages as long as its standard input is open, and says what comes of them.

    sent 17                  a message that the SDK has reported as sent
    connected, disconnected  as the SDK's handler is told
    received 3f0b…           the body of a message from the cloud

DEVICE_CONNECTION_STRING is its connection string, DEVICE_SENDS_AT_ONCE how many messages are under way. Nothing in
here knows of bad networks.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys

from azure.iot.device import Message
from azure.iot.device.aio import IoTHubDeviceClient

KEEP_ALIVE = 2  # seconds
RETRY_EVERY = 1  # seconds


def say(*words: object) -> None:
    """In one write: the SDK calls handlers on a thread of its own, and two that print tear each other's lines."""
    os.write(sys.stdout.fileno(), (" ".join(map(str, words)) + "\n").encode())


async def main() -> None:
    client = IoTHubDeviceClient.create_from_connection_string(
        os.environ["DEVICE_CONNECTION_STRING"],
        keep_alive=KEEP_ALIVE,
        connection_retry_interval=RETRY_EVERY,
        websockets="--websockets" in sys.argv,
    )

    async def changed() -> None:
        say("connected" if client.connected else "disconnected")

    async def received(message: Message) -> None:
        say("received", message.data.decode())

    client.on_connection_state_change = changed  # type: ignore[assignment]  # it is called without
    await client.connect()
    if "--receive" in sys.argv:
        client.on_message_received = received
    closed = asyncio.create_task(asyncio.to_thread(sys.stdin.read))

    async def send(number: int) -> None:
        await client.send_message(str(number))
        say("sent", number)

    at_once = int(os.environ["DEVICE_SENDS_AT_ONCE"])
    for first in itertools.count(0, at_once):
        await asyncio.gather(*(send(number) for number in range(first, first + at_once)))
        if closed.done():
            break
    await client.shutdown()


asyncio.run(main())

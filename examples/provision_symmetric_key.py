"""A device that provisions itself with a symmetric key, connects to its hub and sends ten messages.

Written with Microsoft's `azure-iot-device` alone, so it runs unchanged against Azure. It reads:

    PROVISIONING_HOST, PROVISIONING_IDSCOPE     where the Device Provisioning Service is (`moorage env` sets both)
    PROVISIONING_REGISTRATION_ID                the registration id
    PROVISIONING_SYMMETRIC_KEY                  the device's key, or the one derived from its group's

    python provision_symmetric_key.py [--websockets] [--messages N]
"""

import argparse
import asyncio
import json
import os
import sys
import uuid

from azure.iot.device import Message
from azure.iot.device.aio import IoTHubDeviceClient, ProvisioningDeviceClient


def setting(name: str) -> str:
    if value := os.environ.get(name):
        return value
    sys.exit(f"Set {name}.")


async def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--websockets", action="store_true", help="MQTT over WebSockets, port 443")
    arguments.add_argument("--messages", type=int, default=10)
    options = arguments.parse_args()

    registration_id = setting("PROVISIONING_REGISTRATION_ID")
    key = setting("PROVISIONING_SYMMETRIC_KEY")
    registration = ProvisioningDeviceClient.create_from_symmetric_key(
        provisioning_host=setting("PROVISIONING_HOST"),
        registration_id=registration_id,
        id_scope=setting("PROVISIONING_IDSCOPE"),
        symmetric_key=key,
        websockets=options.websockets,
    )
    result = await registration.register()
    if result.status != "assigned":
        sys.exit(f"The registration ended {result.status!r}.")
    state = result.registration_state
    print(f"registration id: {registration_id}")
    print(f"assigned hub:    {state.assigned_hub}")
    print(f"device id:       {state.device_id}")
    print(f"substatus:       {state.sub_status}")

    device = IoTHubDeviceClient.create_from_symmetric_key(
        symmetric_key=key,
        hostname=state.assigned_hub,
        device_id=state.device_id,
        websockets=options.websockets,
    )
    await device.connect()

    async def send(number: int) -> None:
        message = Message(json.dumps({"number": number, "wind_speed": 10 + number}))
        message.message_id = str(uuid.uuid4())
        message.content_type = "application/json"
        message.content_encoding = "utf-8"
        message.custom_properties["tornado-warning"] = "yes" if number % 2 else "no"
        await device.send_message(message)
        print(f"sent message {number}")

    await asyncio.gather(*(send(number) for number in range(1, options.messages + 1)))
    await device.shutdown()


if __name__ == "__main__":
    asyncio.run(main())

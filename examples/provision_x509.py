"""A device that provisions itself with an X.509 certificate, connects to its hub and sends ten messages.

Written with Microsoft's `azure-iot-device` alone, so it runs unchanged against Azure. It reads:

    PROVISIONING_HOST, PROVISIONING_IDSCOPE     where the Device Provisioning Service is (`moorage env` sets both)
    DPS_X509_REGISTRATION_ID                    the registration id: the common name of the certificate
    X509_CERT_FILE, X509_KEY_FILE               certificate and private key, PEM
    PASS_PHRASE or X509_PASS_PHRASE             of the key; leave both unset for a key without one

    python provision_x509.py [--websockets] [--messages N]
"""

import argparse
import asyncio
import json
import os
import sys
import uuid

from azure.iot.device import X509, Message
from azure.iot.device.aio import IoTHubDeviceClient, ProvisioningDeviceClient


def setting(*names: str) -> str:
    for name in names:
        if value := os.environ.get(name):
            return value
    sys.exit(f"Set {' or '.join(names)}.")


async def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--websockets", action="store_true", help="MQTT over WebSockets, port 443")
    arguments.add_argument("--messages", type=int, default=10)
    options = arguments.parse_args()

    certificate = X509(
        cert_file=setting("X509_CERT_FILE"),
        key_file=setting("X509_KEY_FILE"),
        pass_phrase=os.environ.get("PASS_PHRASE") or os.environ.get("X509_PASS_PHRASE"),
    )
    try:
        registration = ProvisioningDeviceClient.create_from_x509_certificate(
            provisioning_host=setting("PROVISIONING_HOST"),
            registration_id=setting("DPS_X509_REGISTRATION_ID"),
            id_scope=setting("PROVISIONING_IDSCOPE"),
            x509=certificate,
            websockets=options.websockets,
        )
    except OSError as error:  # a missing file, a wrong pass phrase, a key of another certificate
        sys.exit(f"{certificate.certificate_file} and {certificate.key_file} cannot be used: {error}")
    result = await registration.register()
    if result.status != "assigned":
        sys.exit(f"The registration ended {result.status!r}.")
    state = result.registration_state
    print(f"registration id: {setting('DPS_X509_REGISTRATION_ID')}")
    print(f"assigned hub:    {state.assigned_hub}")
    print(f"device id:       {state.device_id}")
    print(f"substatus:       {state.sub_status}")

    device = IoTHubDeviceClient.create_from_x509_certificate(
        x509=certificate,
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

"""What a device says to a hub over MQTT: names, topics and filters as SDKs write them [hub-device 3]."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from moorage.errors import Invalid
from moorage.wire.mqtt.packets import Connect
from moorage.wire.mqtt.topics import valid_topic

API_VERSION = "2021-04-12"
TWIN_RESPONSES = "$iothub/twin/res/#"
DESIRED_CHANGES = "$iothub/twin/PATCH/properties/desired/#"
METHODS = "$iothub/methods/POST/#"

REFUSALS = {
    1: "it does not speak this MQTT",
    3: "it is not available to this device: disabled, or throttled",
    4: "it does not take these credentials",
    5: "not authorized",
}
"""What a hub means by the code of its CONNACK [hub-device 2.5]."""


def connect_packet(
    host: str,
    device_id: str,
    module_id: str | None = None,
    *,
    token: str | None,
    keep_alive: int,
    clean_session: bool,
    model_id: str | None = None,
) -> Connect:
    """`token` is None with a client certificate. Ids stand as they are in client id and user name."""
    client_id = device_id if module_id is None else f"{device_id}/{module_id}"
    query = {"api-version": API_VERSION, "DeviceClientType": "moorage"}
    if model_id:
        query["model-id"] = model_id
    return Connect(
        client_id=client_id,
        username=f"{host}/{client_id}/?{urlencode(query, quote_via=quote)}",
        password=token.encode() if token is not None else None,
        keep_alive=keep_alive,
        clean_session=clean_session,
    )


def root(device_id: str, module_id: str | None = None) -> str:
    return f"devices/{device_id}" if module_id is None else f"devices/{device_id}/modules/{module_id}"


def events_topic(device_id: str, module_id: str | None, properties: Mapping[str, str]) -> str:
    """Raises Invalid where MQTT cannot say the id: such a device may connect, and not send."""
    bag = urlencode(properties, quote_via=quote, safe="")
    topic = f"{root(device_id, module_id)}/messages/events/{bag}"
    if not valid_topic(topic):
        raise Invalid(
            "--device-id", "an id with # or + cannot be in an MQTT topic: such a device cannot send"
        )
    return topic


def devicebound_filter(device_id: str, module_id: str | None = None) -> str:
    return f"{root(device_id, module_id)}/messages/devicebound/#"


def why_refused(host: str, code: int) -> str:
    return f"{host} refused the connection with code {code}: {REFUSALS.get(code, 'unknown')}"

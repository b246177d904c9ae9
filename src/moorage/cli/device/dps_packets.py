"""What a device says to the provisioning service over MQTT, and how it is answered [dps 7]."""

from __future__ import annotations

import re
import uuid
from typing import NamedTuple

from moorage.wire.mqtt.packets import Connect

RESPONSES = "$dps/registrations/res/#"
DEFAULT_WAIT = 2  # seconds to the next poll, where the service does not say
_RESPONSE = re.compile(r"\$dps/registrations/res/(\d+)/\?\$rid=[^&]*(?:&retry-after=(\d+))?")


class Response(NamedTuple):
    """What a topic says: a status as HTTP has them, and seconds to wait."""

    status: int
    retry_after: int | None


def connect_packet(id_scope: str, registration_id: str, api_version: str, token: str | None) -> Connect:
    """`token` is None with a client certificate."""
    return Connect(
        client_id=registration_id,
        username=f"{id_scope}/registrations/{registration_id}/api-version={api_version}&ClientVersion=moorage",
        password=token.encode() if token is not None else None,
        keep_alive=60,
        clean_session=True,
    )


def request_topic(operation_id: str | None) -> str:
    """To register, or to ask what became of the operation of that id."""
    if operation_id is None:
        return f"$dps/registrations/PUT/iotdps-register/?$rid={uuid.uuid4()}"
    return (
        f"$dps/registrations/GET/iotdps-get-operationstatus/?$rid={uuid.uuid4()}&operationId={operation_id}"
    )


def read_response(topic: str) -> Response | None:
    """None where it is another topic."""
    told = _RESPONSE.fullmatch(topic)
    return None if told is None else Response(int(told[1]), int(told[2]) if told[2] else None)

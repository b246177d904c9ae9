"""The DPS device API over MQTT: user name and topics ⇄ `DeviceApi.register` and `DeviceApi.poll`.

CONNECT succeeds for whoever names a scope and a registration id; whether the proof is good is answered to the
register request, because that is where Microsoft's clients look for it [dps 7.3]. As CONNECT proves nothing, a
second connection with the same client id does not end the first: anybody could stop a device from registering.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from moorage.adapters.dps_device import MAX_ID, Device, DeviceApi
from moorage.adapters.mqtt import request_id
from moorage.errors import Invalid, MoorageError
from moorage.interfaces import ByteStream
from moorage.provisioning.provisioner import Proof, SasProof, X509Proof
from moorage.wire.mqtt import packets

log = logging.getLogger("moorage.dps")

RESPONSES = "$dps/registrations/res/#"
REGISTER = "$dps/registrations/PUT/iotdps-register/?"
POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?"

MAX_IN_FLIGHT = 8  # requests of one connection being worked on; a device has one

ACCEPTED, BAD_USER_NAME = 0, 4  # CONNACK return codes [dps 7.3]


@dataclass(frozen=True, slots=True)
class UserName:
    """`{id scope}/registrations/{registration id}/api-version={v}[&ClientVersion={agent}]` [dps 7.1]."""

    id_scope: str
    registration_id: str
    api_version: str
    client_version: str

    @classmethod
    def parse(cls, text: str) -> UserName:
        """Raises Invalid. At most three slashes are split: an unencoded ClientVersion may hold more."""
        parts = text.split("/", 3)
        if len(parts) != 4 or parts[1].lower() != "registrations" or not parts[0] or not parts[2]:
            raise Invalid(
                "user name", "expected {id scope}/registrations/{registration id}/api-version={version}"
            )
        if len(parts[2]) > MAX_ID:
            raise Invalid("user name", f"a registration id has at most {MAX_ID} characters")
        fields: dict[str, str] = {}
        for pair in parts[3].lstrip("?").split("&"):
            key, _, value = pair.partition("=")
            fields[key.lower()] = unquote(value)
        return cls(parts[0], parts[2], fields.get("api-version", ""), fields.get("clientversion", ""))


def is_dps_user_name(text: str | None) -> bool:
    """Whether CONNECT speaks to DPS; a hub's user name has `?` or nothing before its api-version."""
    parts = (text or "").split("/", 3)
    return len(parts) == 4 and parts[1].lower() == "registrations" and not parts[3].startswith("?")


class DpsMqtt:
    """What DPS answers a device on one connection: a `Dialect`."""

    holds_back = False  # a device with more requests than it can have is not served on

    def __init__(self, stream: ByteStream, api: DeviceApi, device: Device) -> None:
        self._stream = stream
        self._api = api
        self._device = device
        self._granted: int | None = None
        self._packet_id = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False

    def handle(self, events: Sequence[packets.Event]) -> None:
        try:
            for event in events:
                if self._ending:
                    return
                self._take(event)
        except MoorageError as error:
            self.end(error)

    def _take(self, event: packets.Event) -> None:
        """Raises MoorageError when the connection is to end over it."""
        match event:
            case packets.Publish():
                self._published(event)
            case packets.Subscribe():
                self._stream.write(packets.encode_suback(event.packet_id, self._grant(event)))
            case packets.Unsubscribe():
                if RESPONSES in event.filters:
                    self._granted = None
                self._stream.write(packets.encode_unsuback(event.packet_id))
            case packets.PingReq():
                self._stream.write(packets.encode_pingresp())
            case packets.PubAck():
                pass  # responses are not sent twice: the device asks again
            case packets.Disconnect():
                self.end("DISCONNECT")
            case _:
                raise Invalid("packet", f"{type(event).__name__} has no place in QoS 0 and 1")

    def end(self, cause: str | MoorageError) -> None:
        if self._ending:
            return
        self._ending = True
        if isinstance(cause, MoorageError):
            self._note(cause)
        self._stream.close(str(cause))

    def drained(self) -> None:
        """Nothing here waits for room: what waits outward is bounded by the stream."""

    def closed(self, reason: str) -> None:
        """Work already begun is finished: the registration may be durable, and the device will ask again."""
        log.debug(
            "registering device disconnected",
            extra={
                "tracking_id": self._stream.tracking_id,
                "registration_id": self._device.registration_id,
                "reason": reason,
            },
        )

    def _note(self, error: MoorageError) -> None:
        self._api.note_refusal(
            "register", self._device.registration_id, error, self._stream.peer, self._stream.tracking_id
        )

    def _grant(self, subscribe: packets.Subscribe) -> list[int]:
        codes = []
        for topic_filter, qos in subscribe.filters:
            if topic_filter == RESPONSES:
                self._granted = min(qos, 1)
                codes.append(self._granted)
            else:
                codes.append(packets.REFUSED)
        return codes

    def _published(self, publish: packets.Publish) -> None:
        """Take a request, or raise Invalid: the service closes over what it cannot answer [dps 7.2]."""
        if publish.qos == 2:
            raise Invalid("PUBLISH", "QoS 2 is not spoken")
        if self._granted is None:
            raise Invalid("PUBLISH", f"came before SUBSCRIBE to {RESPONSES}")
        if not publish.topic.startswith((REGISTER, POLL)):
            raise Invalid("PUBLISH", f"DPS does not have the topic {publish.topic[:200]!r}")
        if len(self._tasks) >= MAX_IN_FLIGHT:
            raise Invalid("PUBLISH", "more requests at once than one device can have")
        rid = request_id(publish.topic) or ""
        if publish.packet_id is not None:
            # Before the answer: C#'s client takes the two in this order only [dps 7.2].
            self._stream.write(packets.encode_puback(publish.packet_id))
        task = asyncio.get_running_loop().create_task(self._answer(publish, rid))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, publish: packets.Publish, rid: str) -> None:
        if publish.topic.startswith(REGISTER):
            answer = await self._api.register(self._device, publish.payload)
        else:
            query = dict(parse_qsl(publish.topic.partition("?")[2], keep_blank_values=True))
            answer = await self._api.poll(self._device, query.get("operationId", ""))
        # `$rid` first, `retry-after` behind it, no other `$`: each client breaks on something else [dps 7.5].
        wait = f"&retry-after={answer.retry_after}" if answer.retry_after is not None else ""
        self._send(f"$dps/registrations/res/{answer.status}/?$rid={rid}{wait}", answer.body)

    def _send(self, topic: str, body: dict[str, Any]) -> None:
        if self._granted is None:
            return
        self._packet_id = self._packet_id % 0xFFFF + 1
        # Node decodes the bytes as ASCII: json.dumps escapes everything else [dps 7.5].
        self._stream.write(
            packets.encode_publish(
                topic,
                json.dumps(body, separators=(",", ":")).encode("ascii"),
                qos=self._granted,
                packet_id=self._packet_id if self._granted else None,
            )
        )


class DpsMqttDoor:
    """Answers a CONNECT that speaks to DPS."""

    def __init__(self, api: DeviceApi) -> None:
        self._api = api

    async def __call__(self, stream: ByteStream, connect: packets.Connect) -> DpsMqtt | None:
        try:
            name = UserName.parse(connect.username or "")
            if connect.client_id.lower() != name.registration_id.lower():
                raise Invalid(
                    "client id",
                    f"is {connect.client_id[:MAX_ID]!r}, the user name says {name.registration_id!r}",
                )
        except Invalid as error:
            self._api.note_refusal("connect", connect.client_id, error, stream.peer, stream.tracking_id)
            stream.write(packets.encode_connack(BAD_USER_NAME, session_present=False))
            stream.close(str(error))
            return None
        proof: Proof | None = None
        if connect.password:
            proof = SasProof(connect.password.decode("utf-8", "replace"))
        elif stream.peer.chain:
            proof = X509Proof(stream.peer.chain)
        # Sessions are never kept: session present stays 0 whatever CleanSession says [dps 7.1].
        stream.write(packets.encode_connack(ACCEPTED, session_present=False))
        device = Device(
            id_scope=name.id_scope,
            registration_id=name.registration_id,
            api_version=name.api_version,
            agent=name.client_version,
            proof=proof,
            peer=stream.peer,
            tracking_id=stream.tracking_id,
        )
        return DpsMqtt(stream, self._api, device)

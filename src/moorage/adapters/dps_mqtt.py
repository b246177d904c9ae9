"""The DPS device API over MQTT: user name and topics ⇄ `Provisioner.register` and `Provisioner.operation`.

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

from moorage.adapters import api_versions, faults
from moorage.adapters.mqtt import request_id
from moorage.errors import Invalid, MoorageError, NotFound, NotSupported
from moorage.interfaces import ByteStream
from moorage.provisioning.provisioner import Proof, Provisioner, RegistrationRequest, SasProof, X509Proof
from moorage.provisioning.registration import RegistrationState, read_register_body
from moorage.provisioning.service import ApiVersion
from moorage.wire.mqtt import packets

log = logging.getLogger("moorage.dps")

RESPONSES = "$dps/registrations/res/#"
REGISTER = "$dps/registrations/PUT/iotdps-register/?"
POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?"

# Device programs that were seen to take a final answer to the register request itself. All others get
# 202 and poll, as IoT Edge insists on and C, C#, Java and Node were only ever exercised with [dps 6.1].
ANSWERED_AT_ONCE = ("azure-iot-device-provisioning-py/",)

MAX_IN_FLIGHT = 8  # requests of one connection being worked on; a device has one
MAX_ID = 128  # characters of a registration id [dps 4]

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

    def __init__(
        self, stream: ByteStream, provisioner: Provisioner, name: UserName, proof: Proof | None, *, pace: str
    ) -> None:
        self._stream = stream
        self._provisioner = provisioner
        self._name = name
        self._proof = proof
        self._pace = pace
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

    def closed(self, reason: str) -> None:
        """Work already begun is finished: the registration may be durable, and the device will ask again."""
        log.debug(
            "registering device disconnected",
            extra={
                "tracking_id": self._stream.tracking_id,
                "registration_id": self._name.registration_id,
                "reason": reason,
            },
        )

    def _note(self, error: MoorageError) -> None:
        """Leave a decision record of what is refused before the provisioning service sees it."""
        self._provisioner.note_unreadable(
            "register", self._name.registration_id, str(error), self._stream.tracking_id, self._stream.peer
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
        retry_after: int | None = None
        try:
            if publish.topic.startswith(REGISTER):
                status, body = await self._register(publish.payload)
            else:
                query = publish.topic.partition("?")[2]
                status, body = await self._poll(dict(parse_qsl(query, keep_blank_values=True)))
            if status == 202:
                retry_after = 3 if self._pace == "azure" else 1
        except MoorageError as error:
            status, body, retry_after = self._fault(error)
        except Exception:
            log.exception("registration failed", extra={"tracking_id": self._stream.tracking_id})
            status, body, retry_after = self._fault(MoorageError("internal error"))
        # `$rid` first, `retry-after` behind it, no other `$`: each client breaks on something else [dps 7.5].
        wait = f"&retry-after={retry_after}" if retry_after is not None else ""
        self._send(f"$dps/registrations/res/{status}/?$rid={rid}{wait}", body)

    async def _register(self, payload: bytes) -> tuple[int, dict[str, Any]]:
        api_version, wish = self._read(payload)
        state = await self._provisioner.register(
            RegistrationRequest(
                id_scope=self._name.id_scope,
                registration_id=self._name.registration_id,
                api_version=api_version,
                payload=wish,
                tracking_id=self._stream.tracking_id,
                door=self._stream.peer.door,
                address=self._stream.peer.address,
            ),
            self._proof,
        )
        at_once = self._pace == "fast" and self._name.client_version.startswith(ANSWERED_AT_ONCE)
        if at_once:
            return 200, state.operation_status(api_version)
        return 202, state.accepted()

    def _read(self, payload: bytes) -> tuple[ApiVersion, Any]:
        """The api-version, and the `payload` in the request's body. Raises Invalid."""
        try:
            return (
                api_versions.device(self._name.api_version),
                read_register_body(payload, self._name.registration_id),
            )
        except MoorageError as error:
            self._note(error)
            raise

    async def _poll(self, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        operation_id = query.get("operationId", "")
        if not operation_id:
            raise NotFound("operation", "")
        state: RegistrationState = await self._provisioner.operation(
            self._name.id_scope, self._name.registration_id, operation_id
        )
        return 200, state.operation_status(api_versions.device(self._name.api_version))

    def _fault(self, error: MoorageError) -> tuple[int, dict[str, Any], int | None]:
        if isinstance(error, NotSupported):
            # Not 501: what is 429 or more, Python and Node ask again for ever [dps trap 14].
            error = Invalid("", str(error))
        return faults.dps_error(error, self._stream.tracking_id, self._provisioner.clock.now())

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

    def __init__(self, provisioner: Provisioner, *, pace: str) -> None:
        self._provisioner = provisioner
        self._pace = pace

    async def __call__(self, stream: ByteStream, connect: packets.Connect) -> DpsMqtt | None:
        try:
            name = UserName.parse(connect.username or "")
            if connect.client_id.lower() != name.registration_id.lower():
                raise Invalid(
                    "client id",
                    f"is {connect.client_id[:MAX_ID]!r}, the user name says {name.registration_id!r}",
                )
        except Invalid as error:
            self._provisioner.note_unreadable(
                "connect", connect.client_id, str(error), stream.tracking_id, stream.peer
            )
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
        return DpsMqtt(stream, self._provisioner, name, proof, pace=self._pace)

"""The DPS device API over AMQP: links, application properties and dispositions ⇄ `DeviceApi` [dps 9].

A device opens two links of one address, `{id scope}/registrations/{registration id}`: one brings its requests, the
other takes the answers back. It proves itself by the certificate of the connection, without any SASL, or by SASL PLAIN
with that address as the user and a SAS token as the password, or by the SASL mechanism TPM. A bad certificate or token
is told to the register request, in its rejection, as over MQTT: of a refusal in SASL's outcome Node makes "not
connected", and no client can say why. The id of a link needs no check of its own: a token names the id it is for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from moorage.adapters import faults
from moorage.adapters.amqp import AmqpConversation
from moorage.adapters.dps_device import Answer, Device, DeviceApi
from moorage.adapters.links import LinkHandler, address_path, link_path
from moorage.adapters.request_nodes import RequestNode, text
from moorage.errors import Invalid, MoorageError
from moorage.provisioning.provisioner import Proof, SasProof, X509Proof
from moorage.wire.amqp import (
    AmqpValue,
    Data,
    Error,
    Int,
    Link,
    Message,
    Properties,
    Receiver,
    Rejected,
    Sender,
)

REGISTER, POLL, LOOK_UP = "iotdps-register", "iotdps-get-operationstatus", "iotdps-get-registration"
OPERATION_TYPE, OPERATION_ID = "iotdps-operation-type", "iotdps-operation-id"
API_VERSION, CLIENT_VERSION = "com.microsoft:api-version", "com.microsoft:client-version"
RETRY_AFTER = "retry-after"

MAX_LINKS = 8  # of one connection; a device has two
MAX_IN_FLIGHT = 8  # requests of one link; a device has one
MAX_REQUEST = 96 * 1024  # bytes [dps 19]


class DpsAmqp:
    """The links of devices that register, and their way through SASL: a `Face` and a `Gate`."""

    def __init__(self, api: DeviceApi) -> None:
        self._api = api

    # A face

    def takes(self, path: Sequence[str]) -> bool:
        return len(path) == 3 and path[1].lower() == "registrations"

    def attach(
        self, conversation: AmqpConversation, link: Sender | Receiver, path: Sequence[str]
    ) -> LinkHandler:
        if conversation.count(RegistrationNode) >= MAX_LINKS:
            raise Invalid("links", f"a device that registers has no more than {MAX_LINKS}")
        return RegistrationNode(conversation, link, self._api)

    # A gate

    def knows(self, user: str) -> bool:
        return self.takes(address_path(user))


class RegistrationNode(RequestNode):
    """One link to or from the node of a registration id."""

    in_flight = MAX_IN_FLIGHT
    max_request = MAX_REQUEST

    def __init__(self, conversation: AmqpConversation, link: Sender | Receiver, api: DeviceApi) -> None:
        super().__init__(conversation, link)
        self._api = api

    async def answer(self, request: Message) -> Message | Rejected:
        back = next((link for link in self.link.session.links if self._takes_answers(link)), None)
        if back is None:
            return self._refuse(Invalid("link", "attach a receiver of this address to take the answer back"))
        asked = request.application_properties or {}
        device, operation = self._device(back), text(asked.get(OPERATION_TYPE))
        if operation == REGISTER:
            answer = await self._api.register(device, _content(request))
        elif operation == POLL:
            answer = await self._api.poll(device, text(asked.get(OPERATION_ID)))
        elif operation == LOOK_UP:
            answer = await self._api.look_up(device, _content(request))
        else:
            return self._refuse(Invalid(OPERATION_TYPE, f"{operation[:100]!r} is not an operation of DPS"))
        return _rejected(answer) if answer.error is not None else _message(request, answer)

    def _refuse(self, error: MoorageError) -> Rejected:
        """For what cannot be understood as a request of the device API."""
        stream, registration_id = self.conversation.stream, link_path(self.link)[2]
        self._api.note_refusal("request", registration_id, error, stream.peer, stream.tracking_id)
        return _rejected(self._api.refusal(error, stream.peer, stream.tracking_id))

    def _device(self, back: Sender) -> Device:
        """As the two links tell it: each client writes the properties on both, but for the newest ones of C."""
        id_scope, _, registration_id = link_path(self.link)
        return Device(
            id_scope=id_scope,
            registration_id=registration_id,
            api_version=_told(API_VERSION, self.link, back),
            agent=_told(CLIENT_VERSION, self.link, back),
            proof=self._proof(),
            tpm=credentials.tpm if (credentials := self.conversation.credentials) is not None else None,
            peer=self.conversation.stream.peer,
            tracking_id=self.conversation.stream.tracking_id,
        )

    def _proof(self) -> Proof | None:
        if (credentials := self.conversation.credentials) is not None:
            return SasProof(credentials.password)
        chain = self.conversation.stream.peer.chain
        return X509Proof(chain) if chain else None


def _told(name: str, *links: Link) -> str:
    return next((text(link.properties[name]) for link in links if name in link.properties), "")


def _content(request: Message) -> bytes:
    """The JSON of a request, in whatever body a client puts it; none is as good as an empty one [dps 9.3]."""
    value = request.body.value if isinstance(request.body, AmqpValue) else request.payload
    return value if isinstance(value, bytes) else text(value).encode()


def _message(request: Message, answer: Answer) -> Message:
    """One data section, as C insists; a correlation id only where there was one, with its own type [dps 9.4]."""
    asked = request.properties.correlation_id if request.properties is not None else None
    told: dict[str, Any] = {}
    if answer.retry_after is not None:
        told[RETRY_AFTER] = Int(answer.retry_after)
    return Message(
        properties=Properties(correlation_id=asked, content_type="application/json; charset=utf-8"),
        application_properties=told,
        body=Data.of(_json(answer).encode()),
    )


def _rejected(answer: Answer) -> Rejected:
    """Node reads `retry-after` in the error's info, C# `Retry-After` [dps 9.5]."""
    error = answer.error or MoorageError("internal error")
    info = None
    if answer.retry_after is not None:
        info = {name: Int(answer.retry_after) for name in (RETRY_AFTER, "Retry-After")}
    return Rejected(Error(faults.fault(faults.DPS_AMQP, error), _json(answer), info))


def _json(answer: Answer) -> str:
    return json.dumps(answer.body, separators=(",", ":"))

"""A device registering, by any protocol of DPS: ask, wait as told, ask what has become of it [dps 6 to 9]."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

from moorage.cli.device import dps_packets
from moorage.cli.device.lines import Line, tls_line, websocket_line
from moorage.cli.device.proof import expiry
from moorage.cli.target import no_answer
from moorage.credentials.sas import make_token, sign_token
from moorage.errors import Invalid, MoorageError, Unavailable
from moorage.wire.amqp import (
    ClientSasl,
    Connection,
    CreditChanged,
    Data,
    DeliveryReceived,
    LinkAttached,
    LinkDetached,
    Message,
    Opened,
    Properties,
    Rejected,
    SaslChallenge,
    SaslCode,
    SaslOutcome,
    SessionBegun,
    Source,
    Symbol,
    Target,
)
from moorage.wire.amqp.events import DispositionReceived
from moorage.wire.amqp.sasl_tpm import TpmClient, token_response
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.connection import ClientConnection

PROTOCOLS = ("mqtt", "mqtt-ws", "amqp", "amqp-ws", "https")
TPM_PROTOCOLS = ("amqp", "amqp-ws", "https")  # MQTT has no place for the challenge [dps 7]

T = TypeVar("T")


class NotRegistered(MoorageError):
    """The service said no, in its own words."""


class Tpm(Protocol):
    """A device's TPM: its public keys, each a TPM2B_PUBLIC, and what it does with a key that it alone can open."""

    @property
    def endorsement_key(self) -> bytes: ...

    @property
    def storage_root_key(self) -> bytes: ...

    def activate(self, blob: bytes) -> None:
        """Take the HMAC key out of an activation blob [dps 12.1]."""
        ...

    def sign(self, content: bytes) -> bytes:
        """HMAC-SHA256 with the key activated last."""
        ...


@dataclass(frozen=True, kw_only=True)
class Device:
    """Who registers. `trust` holds its client certificate, where it has one; `key` its symmetric key, base64.

    One with a TPM sends the keys of it in the body of its register request; all else about it is done here.
    """

    host: str
    id_scope: str
    registration_id: str
    api_version: str
    trust: ssl.SSLContext
    key: str | None = field(default=None, repr=False)
    tpm: Tpm | None = field(default=None, repr=False)
    https_port: int = 443

    @property
    def path(self) -> str:
        return f"{self.id_scope}/registrations/{self.registration_id}"

    @cached_property
    def token(self) -> str | None:
        """Its SAS token; None with a certificate, and with a TPM, which is challenged first."""
        return None if self.key is None else make_token(self.path, self.key, expiry(), "registration")


def _answer(tpm: Tpm, device: Device, blob: bytes) -> str:
    """The SAS token that answers a challenge."""
    tpm.activate(blob)
    return sign_token(quote(device.path, safe=""), expiry(), tpm.sign, "registration")


class Reply(NamedTuple):
    """The status is HTTP's in every protocol; `retry_after` is in seconds."""

    status: int
    body: dict[str, Any]
    retry_after: int | None = None


Ask = Callable[[bytes, str | None], Reply]
"""Register with a body, or poll the operation of that id."""


def register(device: Device, protocol: str, body: bytes) -> dict[str, Any]:
    """What the operation ended in: assigned, failed or disabled. Raises NotRegistered, Unavailable."""
    with _OPEN[protocol](device) as ask:
        reply = ask(body, None)
        while reply.status in (202, 429):
            time.sleep(dps_packets.DEFAULT_WAIT if reply.retry_after is None else reply.retry_after)
            operation = reply.body.get("operationId")
            reply = ask(body if operation is None else b"", operation)
    if reply.status >= 300:
        raise NotRegistered(f"{reply.body.get('message') or reply.body} (status {reply.status})")
    return reply.body


# --- HTTPS ------------------------------------------------------------------------------------------------


@contextmanager
def _https(device: Device) -> Iterator[Ask]:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if device.token is not None:
        headers["Authorization"] = device.token
    root = "/" + "/".join(quote(part, safe="") for part in device.path.split("/"))
    connection = http.client.HTTPSConnection(device.host, device.https_port, context=device.trust, timeout=60)

    def ask(body: bytes, operation_id: str | None) -> Reply:
        reply = ask_once(body, operation_id)
        challenge = reply.body.get("authenticationKey")
        if device.tpm is None or challenge is None or "Authorization" in headers:
            return reply
        connection.close()  # a chip may take longer than a service lets a connection idle
        headers["Authorization"] = _answer(device.tpm, device, base64.b64decode(challenge))
        return ask_once(body, operation_id)

    def ask_once(body: bytes, operation_id: str | None) -> Reply:
        method, rest = ("PUT", "register") if operation_id is None else ("GET", f"operations/{operation_id}")
        try:
            connection.request(method, f"{root}/{rest}?api-version={device.api_version}", body, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise no_answer(device.host, device.https_port, error) from None
        after = response.getheader("retry-after")
        return Reply(response.status, _json(content), int(after) if after else None)

    try:
        yield ask
    finally:
        connection.close()


# --- MQTT -------------------------------------------------------------------------------------------------


@contextmanager
def _mqtt(device: Device) -> Iterator[Ask]:
    with tls_line(device.host, 8883, device.trust) as line:
        yield _mqtt_ask(device, line)


@contextmanager
def _mqtt_websocket(device: Device) -> Iterator[Ask]:
    with websocket_line(device.host, device.https_port, device.trust, "mqtt") as line:
        yield _mqtt_ask(device, line)


def _mqtt_ask(device: Device, line: Line) -> Ask:
    incoming = _Incoming(line, ClientConnection().receive)
    connect = dps_packets.connect_packet(
        device.id_scope, device.registration_id, device.api_version, device.token
    )
    line.send(packets.encode_connect(connect))
    code = incoming.next(packets.ConnAck).code
    if code:
        raise NotRegistered(f"{device.host} refused the MQTT connection with code {code}")
    line.send(packets.encode_subscribe(1, [(dps_packets.RESPONSES, 1)]))
    incoming.next(packets.SubAck)

    def ask(body: bytes, operation_id: str | None) -> Reply:
        topic = dps_packets.request_topic(operation_id)
        line.send(packets.encode_publish(topic, body, qos=1, packet_id=2))
        published = incoming.next(packets.Publish)
        if published.packet_id is not None:
            line.send(packets.encode_puback(published.packet_id))
        told = dps_packets.read_response(published.topic)
        if told is None:
            raise Unavailable(f"{device.host} answered on the topic {published.topic!r}")
        return Reply(told.status, _json(published.payload), told.retry_after)

    return ask


# --- AMQP -------------------------------------------------------------------------------------------------


@contextmanager
def _amqp(device: Device) -> Iterator[Ask]:
    with tls_line(device.host, 5671, device.trust) as line:
        yield _amqp_ask(device, line)


@contextmanager
def _amqp_websocket(device: Device) -> Iterator[Ask]:
    with websocket_line(device.host, device.https_port, device.trust, "AMQPWSB10") as line:
        yield _amqp_ask(device, line)


def _amqp_ask(device: Device, line: Line) -> Ask:
    """With neither token nor TPM there is no SASL layer: TLS has shown who we are [dps 9.1]."""
    exchange = _tpm_exchange(device)
    plain = ClientSasl.plain(device.path, device.token) if device.token is not None else None
    sasl = plain if exchange is None else exchange.credentials
    wire = Connection(role="client", container_id=f"moorage-{uuid.uuid4()}", hostname=device.host, sasl=sasl)
    incoming = _Incoming(line, wire.receive, wire.take_output)
    wire.open()
    if device.tpm is not None and exchange is not None:
        blob = _challenge(exchange, wire, incoming)
        wire.sasl_response(token_response(_answer(device.tpm, device, blob)))
    incoming.next(Opened)
    session = wire.begin()
    incoming.next(SessionBegun)
    version: dict[str, Any] = {Symbol("com.microsoft:api-version"): device.api_version}
    receiver = session.attach_receiver("responses", Source(device.path), properties=version)
    receiver.keep_credit(10)
    incoming.next(LinkAttached)
    sender = session.attach_sender("requests", Target(device.path), properties=version)
    incoming.next(LinkAttached)

    def ask(body: bytes, operation_id: str | None) -> Reply:
        operation = "iotdps-register" if operation_id is None else "iotdps-get-operationstatus"
        properties: dict[str, Any] = {"iotdps-operation-type": operation}
        if operation_id is not None:
            properties["iotdps-operation-id"] = operation_id
        message = Message(
            properties=Properties(correlation_id=str(uuid.uuid4())),
            application_properties=properties,
            body=Data((body,)),
        )
        while not sender.sendable:
            incoming.next(CreditChanged)
        sender.send(message.encode(), settled=False)
        settled = incoming.next(DispositionReceived)
        if isinstance(settled.state, Rejected):
            error = settled.state.error
            return Reply(400, _json((error.description or "{}").encode()) if error is not None else {})
        answer = Message.decode(incoming.next(DeliveryReceived).message)
        after = (answer.application_properties or {}).get("retry-after")
        status = 202 if after is not None else 200
        return Reply(status, _json(answer.payload), int(after) if after is not None else None)

    return ask


def _tpm_exchange(device: Device) -> TpmClient | None:
    tpm = device.tpm
    if tpm is None:
        return None
    return TpmClient(device.id_scope, device.registration_id, tpm.endorsement_key, tpm.storage_root_key)


def _challenge(exchange: TpmClient, wire: Connection, incoming: _Incoming) -> bytes:
    """The activation blob, once all segments of it are there [dps 12.3]. Raises NotRegistered, Invalid."""
    while exchange.blob is None:
        response = exchange.receive(incoming.next(SaslChallenge).challenge)
        if response is not None:
            try:
                wire.sasl_response(response)
            except ValueError as error:
                raise Invalid("--protocol", f"use https, for the TPM's keys are too long ({error})") from None
    return exchange.blob


# --- What they share --------------------------------------------------------------------------------------


class _Incoming:
    """The events of a sans-I/O engine, one kind after the other."""

    def __init__(
        self,
        line: Line,
        receive: Callable[[bytes], list[Any]],
        output: Callable[[], bytes] = bytes,
    ) -> None:
        self._line = line
        self._receive = receive
        self._output = output
        self._events: list[Any] = []

    def next(self, kind: type[T]) -> T:
        """The first of `kind`, whatever comes before it. Raises NotRegistered, Unavailable."""
        while True:
            if output := self._output():
                self._line.send(output)
            for at, event in enumerate(self._events):
                if isinstance(event, kind):
                    del self._events[: at + 1]
                    return event
                if isinstance(event, SaslOutcome) and event.code is not SaslCode.OK:
                    said = event.code.name.lower().replace("_", "-")
                    raise NotRegistered(f"the proof is not accepted (SASL outcome {said})")
                if isinstance(event, LinkDetached) and event.error is not None:
                    raise NotRegistered(event.error.description or event.error.condition)
            self._events += self._receive(self._line.receive())


def _json(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content or b"{}")
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Unavailable(f"the answer is not a JSON object: {content[:200]!r}")
    return document


_OPEN = {
    "mqtt": _mqtt,
    "mqtt-ws": _mqtt_websocket,
    "amqp": _amqp,
    "amqp-ws": _amqp_websocket,
    "https": _https,
}

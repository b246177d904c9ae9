"""A plain MQTT client, paho, that follows the documented topics without any SDK."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, Queue
from typing import Any, NamedTuple

from paho.mqtt import client as paho  # type: ignore[import-untyped]

from moorage.credentials.sas import make_token
from tests.support.certificates import CertificateFiles
from tests.support.devices import SasDevice

WITHIN = 10.0  # seconds for whatever is waited for


class Acknowledged(NamedTuple):
    """A CONNACK, PUBACK or SUBACK: what is in it."""

    value: Any


class Message(NamedTuple):
    topic: str
    payload: bytes


class Plain:
    """One connection at a time; what arrives is kept in the order of its arrival."""

    def __init__(self, client: Any, host: str, port: int, keep_alive: int) -> None:
        self.session_present = False
        self.closed = threading.Event()  # by the server
        self._client = client
        self._address = (host, port, keep_alive)
        self._arrived: Queue[Acknowledged | Message] = Queue()
        client.on_connect = self._on_connect
        client.on_publish = lambda *_: self._arrived.put(Acknowledged("puback"))
        client.on_subscribe = lambda _client, _data, _id, granted: self._arrived.put(Acknowledged(granted))
        client.on_message = lambda _client, _data, m: self._arrived.put(Message(m.topic, m.payload))
        client.on_disconnect = lambda *_: self.closed.set()

    def _on_connect(self, _client: Any, _data: Any, flags: Mapping[str, int], code: int) -> None:
        self.session_present = bool(flags["session present"])
        self._arrived.put(Acknowledged(code))

    def connect(self) -> int:
        """The return code of CONNACK."""
        self._client.connect(*self._address)
        self._client.loop_start()
        code: int = self._acknowledgement()
        return code

    def subscribe(self, topic_filter: str, qos: int = 1) -> int:
        """What is granted; 0x80 for a refusal."""
        self._client.subscribe(topic_filter, qos)
        (granted,) = self._acknowledgement()
        return int(granted)

    def publish(self, topic: str, payload: bytes = b"", *, qos: int = 1, retain: bool = False) -> None:
        """With QoS 1 the acknowledgement is left to `arrived`."""
        self._client.publish(topic, payload, qos, retain)

    def telemetry(self, topic: str, payload: bytes = b"", *, qos: int = 1, retain: bool = False) -> None:
        """Publish and see it sent (QoS 0) or acknowledged (QoS 1)."""
        self.publish(topic, payload, qos=qos, retain=retain)
        assert self._acknowledgement() == "puback"

    def arrived(self) -> Acknowledged | Message:
        try:
            return self._arrived.get(timeout=WITHIN)
        except Empty:
            raise AssertionError(f"nothing arrived within {WITHIN:g} s") from None

    def message(self) -> Message:
        arrived = self.arrived()
        assert isinstance(arrived, Message), arrived
        return arrived

    def ask(self, topic: str, payload: bytes = b"") -> Message:
        """Publish a request, see it acknowledged, and then its answer, in that order."""
        self.telemetry(topic, payload)
        return self.message()

    def wait_closed(self) -> None:
        assert self.closed.wait(WITHIN), f"the server did not close the connection within {WITHIN:g} s"

    def drop(self) -> None:
        """End the connection without DISCONNECT, as a device does that loses power."""
        self._client.socket().shutdown(socket.SHUT_RDWR)
        self.wait_closed()

    def hush(self) -> None:
        """Stay connected and do nothing any more, not even what keeps the connection alive."""
        self._client.loop_stop()

    def _acknowledgement(self) -> Any:
        arrived = self.arrived()
        assert isinstance(arrived, Acknowledged), arrived
        return arrived.value

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def plain_client(
    env: Mapping[str, str],
    client_id: str,
    user_name: str,
    password: str | None = None,
    *,
    certificate: CertificateFiles | None = None,
    will: tuple[str, bytes] | None = None,
    clean_session: bool = True,
    protocol: int = paho.MQTTv311,
    websockets: bool = False,
    keep_alive: int = 60,
) -> Iterator[Plain]:
    client = paho.Client(
        client_id,
        clean_session,
        protocol=protocol,
        transport="websockets" if websockets else "tcp",
        reconnect_on_failure=False,
    )
    trust = ssl.create_default_context(cafile=env["MOORAGE_CA_FILE"])
    if certificate is not None:
        trust.load_cert_chain(*certificate)
    client.tls_set_context(trust)
    if websockets:
        client.ws_set_options(path="/$iothub/websocket")
    client.username_pw_set(user_name, password)
    if will is not None:
        client.will_set(will[0], will[1], qos=1)
    plain = Plain(client, env["IOTHUB_HOSTNAME"], 443 if websockets else 8883, keep_alive)
    try:
        yield plain
    finally:
        plain.stop()


def device_token(device: SasDevice, *, lifetime: int = 3600) -> str:
    """A SAS token of the device, for its password; a negative lifetime for one that has expired."""
    resource = f"{device.hostname}/devices/{device.device_id}"
    return make_token(resource, device.primary_key, int(time.time()) + lifetime)


def hub_client(env: Mapping[str, str], device: SasDevice, **options: Any) -> Any:
    """A plain client that connects as the documentation says: `{host}/{device}/?api-version=2021-04-12`."""
    user_name = f"{device.hostname}/{device.device_id}/?api-version=2021-04-12"
    return plain_client(env, device.device_id, user_name, device_token(device), **options)

"""A device without an SDK: MQTT over TLS with blocking sockets, for tests that only need telemetry to be there."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable

from moorage.credentials.sas import make_token
from moorage.wire.mqtt.packets import (
    Connect,
    encode_connect,
    encode_disconnect,
    encode_puback,
    encode_publish,
)


def device_token(host: str, device_id: str, key: str, *, lifetime: int = 600) -> str:
    return make_token(f"{host}/devices/{device_id}", key, int(time.time()) + lifetime)


def send(
    host: str, ca_file: str, device_id: str, password: str, messages: Iterable[tuple[str, bytes]] = ()
) -> int:
    """Connect, send `messages` (property bag, body) at QoS 1 one after the other, disconnect. The CONNACK's code."""
    trust = ssl.create_default_context(cafile=ca_file)
    connect = Connect(
        client_id=device_id,
        username=f"{host}/{device_id}/?api-version=2021-04-12",
        password=password.encode(),
        clean_session=True,
        keep_alive=60,
    )
    with (
        socket.create_connection((host, 8883), timeout=10) as plain,
        trust.wrap_socket(plain, server_hostname=host) as stream,
    ):
        stream.sendall(encode_connect(connect))
        if code := _read(stream, 4)[3]:
            return code
        for number, (bag, body) in enumerate(messages, 1):
            topic = f"devices/{device_id}/messages/events/{bag}"
            stream.sendall(encode_publish(topic, body, qos=1, packet_id=number))
            assert _read(stream, 4) == encode_puback(number)
        stream.sendall(encode_disconnect())
        return 0


def _read(stream: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.recv(size - len(data))
        assert more, "the server closed the connection"
        data += more
    return data

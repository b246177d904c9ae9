"""What `az iot hub monitor-events` does, step by step: from the hub's connection string to the events.

Its releases differ: up to 0.25 they go by `uamqp` and SASL PLAIN, newer ones by the AMQP of `azure-eventhub` and
`$cbs`. Both learn from the redirect where the built-in endpoint is. [hub-service 14]
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import certifi
import pytest
import uamqp  # type: ignore[import-untyped]
from azure.eventhub import EventHubConsumerClient
from azure.eventhub._pyamqp import ReceiveClient
from azure.eventhub._pyamqp.authentication import AccessToken, _CBSAuth
from azure.eventhub._pyamqp.error import AMQPLinkRedirect

from moorage.cli.target import Login
from moorage.credentials.sas import make_token
from tests.conftest import RunningServer
from tests.support.devices import device_client, sas_device
from tests.support.events import consumer_options
from tests.support.services import Hub

pytestmark = pytest.mark.clients

CBS_TYPE = b"servicebus.windows.net:sastoken"


class Endpoint(NamedTuple):
    host: str
    entity: str
    address: str


@pytest.fixture
def login(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Login:
    """Of the hub's owner. The clients look for roots where `certifi` says."""
    monkeypatch.setattr(certifi, "where", lambda: server.env["SSL_CERT_FILE"])
    return Login.parse(server.env["IOTHUB_CONNECTION_STRING"], server.env["SSL_CERT_FILE"])


def token(login: Login, resource: str) -> str:
    return make_token(
        resource, login.key, int(time.time()) + 360, login.policy, text_key=resource[:5] == "sb://"
    )


def redirected_uamqp(login: Login) -> Endpoint:
    """A link to the hub's own address, the token in SASL PLAIN."""
    user = f"{login.policy}@sas.root.{login.host.split('.')[0]}"
    credentials = f"{quote(user, safe='')}:{quote(token(login, login.host), safe='')}"
    source = uamqp.address.Source(f"amqps://{credentials}@{login.host}/messages/events/$management")
    client = uamqp.ReceiveClient(source, timeout=30_000, prefetch=1)
    try:
        client.open()
        with pytest.raises(uamqp.errors.LinkRedirect) as caught:
            client.receive_message_batch(max_batch_size=1)
    finally:
        client.close()
    address = caught.value.address.decode()
    return Endpoint(caught.value.hostname.decode(), address.replace("amqps://", "").split("/")[1], address)


def redirected_pyamqp(login: Login) -> Endpoint:
    """The same address, the token shown to `$cbs` for the host."""
    source = f"amqps://{login.host}/messages/events/$management"
    expiry = time.time() + 360
    auth = _CBSAuth(
        uri=source,
        audience=login.host,
        token_type=CBS_TYPE,
        get_token=lambda: AccessToken(token(login, login.host), int(expiry)),
        expires_in=360,
    )
    client: Any = ReceiveClient(  # type: ignore[no-untyped-call,unused-ignore]
        hostname=login.host, source=source, auth=auth, network_trace=False, timeout=30_000, prefetch=1
    )
    try:
        client.open()
        with pytest.raises(AMQPLinkRedirect) as caught:
            client.receive_message_batch(max_batch_size=1, timeout=5000)
    finally:
        client.close()
    address = caught.value.address
    path = address.replace("amqps://", "").split("/", 1)[1].removesuffix("/$management")
    return Endpoint(caught.value.hostname, path, address)


@pytest.mark.parametrize("redirected", [redirected_uamqp, redirected_pyamqp])
def test_the_hub_tells_where_its_endpoint_is(
    login: Login, env: Mapping[str, str], redirected: Callable[[Login], Endpoint]
) -> None:
    found = redirected(login)
    known = dict(part.split("=", 1) for part in env["EVENTHUB_CONNECTION_STRING"].split(";"))
    assert (found.host, found.entity) == (login.host, known["EntityPath"])
    assert found.address == f"amqps://{login.host}:5671/{found.entity}/$management"


def test_uamqp_reads_on_from_the_redirect(login: Login, hub: Hub, device_id: str) -> None:
    """Partitions from the address of the redirect itself, then events since a time, by the number unquoted."""
    found = redirected_uamqp(login)
    resource = f"sb://{found.host}/{found.entity}"

    def auth() -> Any:
        return uamqp.authentication.SASTokenAuth(
            audience=resource,
            uri=resource,
            expires_at=time.time() + 360,
            token=token(login, resource).encode(),
        )

    asking = uamqp.ReceiveClient(uamqp.address.Source(found.address), auth=auth(), timeout=30_000)
    try:
        asking.open()
        answer = asking.mgmt_request(
            uamqp.Message(application_properties={"name": found.entity}),
            b"READ",
            op_type=b"com.microsoft:eventhub",
            status_code_field=b"status-code",
            description_fields=b"status-description",
            timeout=30_000,
        ).get_data()
    finally:
        asking.close()
    assert answer[b"partition_count"] == len(answer[b"partition_ids"]) == 4

    since = int(time.time() * 1000) - 1
    with device_client(sas_device(hub, device_id)) as device:
        device.send_message(json.dumps({"speed": 12}))
    came = []
    for partition in answer[b"partition_ids"]:
        source = uamqp.address.Source(
            f"amqps://{found.host}/{found.entity}/ConsumerGroups/$Default/Partitions/{partition.decode()}"
        )
        source.set_filter(f"amqp.annotation.x-opt-enqueuedtimeutc > {since}".encode())
        reading = uamqp.ReceiveClient(source, auth=auth(), timeout=2000, prefetch=300)
        try:
            came += reading.receive_message_batch(timeout=1500)
        finally:
            reading.close()
    mine = [each for each in came if each.annotations[b"iothub-connection-device-id"] == device_id.encode()]
    assert [b"".join(each.get_data()) for each in mine] == [b'{"speed": 12}']


def test_the_newest_az_reads_on_with_the_event_hubs_client(login: Login, env: Mapping[str, str]) -> None:
    found = redirected_pyamqp(login)
    text = (
        f"Endpoint=sb://{found.host}/;SharedAccessKeyName={login.policy};"
        f"SharedAccessKey={login.key};EntityPath={found.entity}"
    )
    options = consumer_options(env) | {"conn_str": text, "eventhub_name": found.entity}
    with EventHubConsumerClient.from_connection_string(**options) as client:
        assert client.get_partition_ids() == ["0", "1", "2", "3"]

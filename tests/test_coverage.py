"""The coverage page is made from its table, the table is whole, and what it calls refused is tried."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from moorage.adapters.dps_device import DeviceApi
from moorage.adapters.dps_device_http import DpsDeviceHttp
from moorage.adapters.dps_http import DpsHttp
from moorage.adapters.http import HttpAdapter
from moorage.adapters.hub_service.groups import groups
from moorage.adapters.hub_service.handler import HubHttp
from moorage.app import KINDS
from moorage.coverage import (
    HTTP_501,
    RESOURCE_MANAGER,
    ROWS,
    Area,
    Standing,
    markdown,
)
from moorage.credentials import policy
from moorage.credentials.decision import Decisions
from moorage.credentials.policy import SharedAccessPolicy
from moorage.credentials.sas import make_token, new_key
from moorage.hub.device_identity import read_settings
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.method import Methods
from moorage.hub.session import Sessions
from moorage.interfaces import Peer
from moorage.net.waiting import LoopWaiting
from moorage.provisioning.provisioner import Provisioner
from moorage.provisioning.service import ProvisioningService
from moorage.store.sqlite import SqliteStore
from moorage.wire.amqp import (
    AmqpValue,
    ClientSasl,
    Connection,
    DeliveryReceived,
    LinkDetached,
    Message,
    Opened,
    Properties,
    SaslCode,
    SaslOutcome,
    SessionBegun,
    Source,
    Target,
    conditions,
)
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.connection import ClientConnection
from tests.conftest import RunningServer
from tests.support import amqp_device
from tests.support.amqp_device import Line
from tests.support.services import Hub as HubOverHttps

T = TypeVar("T")

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
CHECKLISTS = {Area.DPS: 74, Area.HUB_DEVICE: 92, Area.HUB_SERVICE: 99}
REFUSALS = ("501", "400", "401", "0x80", "CONNACK", "amqp:", "SASL outcome", "closed")


# --- The table and the page ------------------------------------------------------------------------------


def test_the_page_is_the_one_that_the_table_makes() -> None:
    assert PAGE.read_text("utf-8") == markdown(), "run: python -m moorage.coverage > docs/coverage.md"


@pytest.mark.parametrize("area", Area)
def test_every_row_of_a_checklist_stands_in_the_table_once(area: Area) -> None:
    numbers = [row.number for row in ROWS if row.area is area]

    assert numbers == list(range(1, CHECKLISTS[area] + 1))


def test_whatever_is_not_exact_has_a_note() -> None:
    assert not [row for row in ROWS if row.standing is not Standing.EXACT and not row.note]


def test_a_refused_row_says_what_the_refusal_looks_like() -> None:
    refused = [row for row in ROWS if row.standing is Standing.REFUSED]

    assert not [row for row in refused if not any(word in row.note for word in REFUSALS)]


def test_the_page_is_plain_text_in_cells_of_their_own() -> None:
    assert markdown().isascii()
    for row in ROWS:
        assert not {"|", "\n"} & set(row.capability + row.note)


# --- What is refused over HTTP ---------------------------------------------------------------------------

ID_SCOPE = "0ne00ABCDEF"
REGISTRATION = f"/{ID_SCOPE}/registrations/d"
KEYS = {"type": "symmetricKey"}
QUERY = {"query": "SELECT * FROM devices"}

Sample = tuple[str, str] | tuple[str, str, object]


def enrolling(**members: Any) -> Sample:
    return "PUT", "/enrollments/d", {"registrationId": "d", **members}


def grouping(**members: Any) -> Sample:
    return "PUT", "/enrollmentGroups/g", {"enrollmentGroupId": "g", **members}


# A request for each row whose note promises HTTP 501.
SAMPLES: dict[tuple[Area, int], Sample] = {
    (Area.HUB_DEVICE, 5): ("POST", "/devices/d/messages/events", {}),
    (Area.HUB_DEVICE, 41): ("POST", "/devices/d/messages/events", {}),
    (Area.HUB_DEVICE, 42): ("POST", "/devices/d/messages/events", [{"body": "aGVsbG8="}]),
    (Area.HUB_DEVICE, 46): ("GET", "/devices/d/messages/devicebound"),
    (Area.HUB_DEVICE, 47): ("POST", "/devices/d/messages/deviceBound/lock/abandon"),
    (Area.HUB_DEVICE, 77): ("POST", "/devices/d/files/", {"blobName": "a.txt"}),
    (Area.HUB_DEVICE, 78): ("POST", "/devices/d/files", {"blobName": "a.txt"}),
    (Area.HUB_DEVICE, 79): ("POST", "/devices/d/files", {"blobName": "a.txt"}),
    (Area.HUB_DEVICE, 80): ("POST", "/devices/d/files/notifications/c", {"isSuccess": True}),
    (Area.HUB_DEVICE, 81): ("POST", "/devices/d/files", {"blobName": "a.txt"}),
    (Area.HUB_DEVICE, 92): ("GET", "/devices/d/messages/deviceBound"),
    (Area.HUB_SERVICE, 89): ("PUT", "/jobs/v2/j", {"jobId": "j", "type": "scheduleUpdateTwin"}),
    (Area.HUB_SERVICE, 90): ("POST", "/jobs/v2/j/cancel"),
    (Area.HUB_SERVICE, 91): ("POST", "/jobs/create", {"type": "export"}),
    (Area.HUB_SERVICE, 92): ("PUT", "/configurations/c", {"id": "c"}),
    (Area.HUB_SERVICE, 93): ("POST", "/configurations/testQueries", {"targetCondition": "tags.a=1"}),
    (Area.HUB_SERVICE, 94): ("GET", "/configurations"),
    (Area.HUB_SERVICE, 95): ("POST", "/devices/d/applyConfigurationContent", {}),
    (Area.HUB_SERVICE, 96): ("PATCH", "/digitaltwins/d", []),
}

HOST = "moorage.example.net"
NOW = 1_714_645_230_000_000


class StoppedClock:
    def now(self) -> int:
        return NOW

    def monotonic(self) -> float:
        return 0.0


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass
class Site:
    """The service APIs of a DPS instance and a hub, and their owners."""

    app: HttpAdapter
    decisions: Decisions
    owners: Mapping[Area, SharedAccessPolicy]
    device_key: str

    def owner_token(self, area: Area) -> str:
        owner = self.owners[Area.DPS if area is Area.DPS else Area.HUB_SERVICE]
        return make_token(HOST, owner.primary_key, NOW // 1_000_000 + 60, owner.name)

    async def call(self, sample: Sample, token: str | None) -> Answer:
        method, path, *rest = sample
        content = json.dumps(rest[0]).encode() if rest else b""
        sent = {"host": HOST, "content-type": "application/json", "content-length": str(len(content))}
        if token is not None:
            sent["authorization"] = token
        answered: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            answered.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"api-version=2021-10-01",
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "extensions": {
                "moorage.tracking_id": "5d1f0c6a8e7b4c34",
                "moorage.peer": Peer("192.0.2.7", "https"),
            },
        }
        await self.app(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in answered[0]["headers"]}
        return Answer(answered[0]["status"], headers, json.loads(answered[1]["body"]))


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    clock, decisions = StoppedClock(), Decisions()
    store = SqliteStore.open(None, kinds=KINDS)
    hub = Hub(scope=2, name="hub", host_names=(HOST,), advertised_host=HOST, created=NOW)
    service = ProvisioningService(scope=1, id_scope=ID_SCOPE, host_names=(HOST,), created=NOW, etag="e")
    identities = Identities(hub, store, clock, Sessions(clock))
    device = await identities.create(read_settings("d", {}))
    dps_owner, hub_owner = policy.provisioning_policies()[0], policy.hub_policies()[0]
    await store.records(policy.KIND, 1).put(dps_owner)
    await store.records(policy.KIND, 2).put(hub_owner)
    provisioner = Provisioner(service, store=store, clock=clock, hubs={2: identities}, decisions=decisions)
    dps, devices = DpsHttp(provisioner), DpsDeviceHttp(DeviceApi(provisioner, pace="fast"))
    back_ends = HubHttp(
        lambda _: (hub, identities),
        *groups(methods=Methods(LoopWaiting())),
        store=store,
        clock=clock,
        decisions=decisions,
    )
    owners = {Area.DPS: dps_owner, Area.HUB_SERVICE: hub_owner}
    key = device.authentication.primary_key or ""
    yield Site(HttpAdapter(back_ends, dps, devices, otherwise=dps), decisions, owners, key)
    await store.close()


def test_every_row_that_promises_http_501_is_tried() -> None:
    assert set(SAMPLES) == {(row.area, row.number) for row in ROWS if HTTP_501 in row.note}


@pytest.mark.parametrize(("area", "number"), SAMPLES)
async def test_http_501_with_an_error_body(site: Site, area: Area, number: int) -> None:
    answer = await site.call(SAMPLES[area, number], site.owner_token(area))

    assert answer.status == 501, answer
    if area is Area.DPS:
        assert answer.body["errorCode"] == 501_000
        assert answer.body["message"]
    else:
        assert answer.headers["iothub-errorcode"] == "NotImplemented"
        assert answer.body["Message"].startswith("ErrorCode:NotImplemented;")
    assert answer.headers["x-ms-request-id"] == "5d1f0c6a8e7b4c34"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/subscriptions"),
        ("GET", "/providers/Microsoft.Devices/operations"),
        ("PUT", "/subscriptions/s/resourceGroups/r/providers/Microsoft.Devices/provisioningServices/d"),
        ("POST", "/Subscriptions/s/providers/Microsoft.Devices/checkNameAvailability"),
    ],
)
def test_the_resource_manager_is_refused_in_its_own_shape(
    server: RunningServer, method: str, path: str
) -> None:
    assert any(RESOURCE_MANAGER in row.note for row in ROWS)

    answer = HubOverHttps(server.env).call(method, path, {"properties": {"ipFilterRules": []}})

    assert answer.status == 501
    assert answer.body["error"]["code"] == "NotImplemented"
    assert "moorage dps" in answer.body["error"]["message"]


DEVICE_CALLS = [
    ("/devices/d/messages/events", "d"),
    ("/devices/d/messages/deviceBound", "d"),
    ("/Devices/d/Files/notifications", "d"),
    ("/devices/d/modules/m/messages/events", "d/m"),
]


@pytest.mark.parametrize(("path", "subject"), DEVICE_CALLS)
@pytest.mark.parametrize("proven", [True, False], ids=["with a token", "by certificate or by nothing"])
async def test_a_device_over_https_is_told_where_to_go_and_leaves_a_decision(
    site: Site, path: str, subject: str, proven: bool
) -> None:
    token = make_token(f"{HOST}/devices/d", site.device_key, NOW // 1_000_000 + 60) if proven else None

    answer = await site.call(("POST", path, {}), token)

    assert answer.status == 501, answer
    assert "MQTT" in json.dumps(answer.body)
    [decision] = site.decisions.of(subject)
    assert not decision.accepted
    assert decision.tracking_id == "5d1f0c6a8e7b4c34"
    assert "over HTTPS" in decision.error


# --- What is refused over MQTT and AMQP ------------------------------------------------------------------


def tls(server: RunningServer, port: int) -> AbstractContextManager[ssl.SSLSocket]:
    return amqp_device.tls(server.address, port, server.env["SSL_CERT_FILE"])


@pytest.fixture(scope="module")
def device_key(server: RunningServer) -> str:
    answer = HubOverHttps(server.env).call("PUT", "/devices/coverage", {"deviceId": "coverage"})
    assert answer.status == 200, answer
    key: str = answer.body["authentication"]["symmetricKey"]["primaryKey"]
    return key


def device_token(server: RunningServer, key: str) -> str:
    return make_token(f"{server.address}/devices/coverage", key, int(time.time()) + 600)


@contextmanager
def mqtt(server: RunningServer, client_id: str, password: str) -> Iterator[tuple[Line, packets.ConnAck]]:
    connect = packets.Connect(
        client_id=client_id,
        username=f"{server.address}/{client_id}/?api-version=2021-04-12",
        password=password.encode(),
        keep_alive=60,
    )
    with tls(server, 8883) as connection:
        line = Line(connection, ClientConnection().receive)
        yield line, line.ask(packets.encode_connect(connect), packets.ConnAck)


@pytest.mark.parametrize(
    "topic_filter",
    [
        "devices/other/messages/devicebound/#",
        "devices/coverage/modules/m/inputs/#",
    ],
)
def test_a_subscription_to_what_is_not_for_the_device_gets_0x80(
    server: RunningServer, device_key: str, topic_filter: str
) -> None:
    with mqtt(server, "coverage", device_token(server, device_key)) as (device, _):
        granted = device.ask(packets.encode_subscribe(1, [(topic_filter, 1)]), packets.SubAck)

    assert granted.codes == (0x80,)


@pytest.mark.parametrize(
    ("request_body", "key", "status"),
    [({"csr": "MIIB"}, None, 400), ({}, new_key(), 401)],
    ids=["a certificate is asked for", "a key is presented"],
)
def test_a_registration_is_refused_on_the_response_topic(
    server: RunningServer, request_body: dict[str, str], key: str | None, status: int
) -> None:
    resource = f"{server.env['PROVISIONING_IDSCOPE']}/registrations/nobody"
    token = make_token(resource, key, int(time.time()) + 600, "registration").encode() if key else None
    connect = packets.Connect(
        client_id="nobody", username=f"{resource}/api-version=2019-03-31", password=token, keep_alive=60
    )
    request = "$dps/registrations/PUT/iotdps-register/?$rid=17"
    with tls(server, 8883) as connection:
        device = Line(connection, ClientConnection().receive)
        assert device.ask(packets.encode_connect(connect), packets.ConnAck).code == 0
        device.ask(packets.encode_subscribe(1, [("$dps/registrations/res/#", 0)]), packets.SubAck)
        answer = device.ask(
            packets.encode_publish(request, json.dumps(request_body).encode()), packets.Publish
        )

    assert answer.topic == f"$dps/registrations/res/{status}/?$rid=17"
    assert json.loads(answer.payload)["errorCode"] // 1000 == status


class AmqpLine:
    """An AMQP connection with a session, opened without SASL."""

    def __init__(self, connection: ssl.SSLSocket, sasl: ClientSasl | None = None) -> None:
        self._wire = Connection(role="client", container_id="coverage", hostname="localhost", sasl=sasl)
        self._line = Line(connection, self._wire.receive)
        self._wire.open()
        self.verdict = self.ask(SaslOutcome).code if sasl is not None else None

    def ask(self, kind: type[T]) -> T:
        return self._line.ask(self._wire.take_output(), kind, self._wire.take_output)

    def begin(self) -> None:
        self.ask(Opened)
        self.session = self._wire.begin()
        self.ask(SessionBegun)

    def put_token(self, token: str) -> int:
        """The status that `$cbs` answers."""
        answers = self.session.attach_receiver("answers", Source("$cbs"), target=Target("answers"))
        questions = self.session.attach_sender("questions", Target("$cbs"))
        answers.keep_credit(10)
        message = Message(
            properties=Properties(message_id="1"),
            application_properties={"operation": "put-token", "type": "sas", "name": "coverage"},
            body=AmqpValue(token),
        )
        questions.post(message.encode())
        answer = Message.decode(self.ask(DeliveryReceived).message)
        assert answer.application_properties is not None
        return int(answer.application_properties["status-code"])


@pytest.fixture
def amqp(server: RunningServer) -> Iterator[AmqpLine]:
    with tls(server, 5671) as connection:
        line = AmqpLine(connection)
        line.begin()
        yield line


@pytest.mark.parametrize(
    "address",
    [
        "/devices/coverage/messages/events",
        "/devices/coverage/twin",
        "/devices/coverage/methods/devicebound",
    ],
)
def test_a_link_to_what_is_refused_is_not_implemented(
    server: RunningServer, amqp: AmqpLine, address: str
) -> None:
    owner = HubOverHttps(server.env)
    assert amqp.put_token(owner.token()) == 200

    amqp.session.attach_sender("to", Target(address))
    refused = amqp.ask(LinkDetached)
    amqp.session.attach_receiver("from", Source(address))
    refused_too = amqp.ask(LinkDetached)

    for link in (refused, refused_too):
        assert link.closed
        assert link.error is not None
        assert link.error.condition == conditions.NOT_IMPLEMENTED
        assert json.loads(link.error.description or "")["errorCode"] == 501_000


@pytest.mark.parametrize("queue", ["filenotifications", "fileuploadnotifications"])
def test_a_link_from_a_queue_of_the_service_is_not_implemented(
    server: RunningServer, amqp: AmqpLine, queue: str
) -> None:
    assert amqp.put_token(HubOverHttps(server.env).token()) == 200

    amqp.session.attach_receiver("from", Source(f"/messages/serviceBound/{queue}"))

    refused = amqp.ask(LinkDetached).error
    assert refused is not None
    assert refused.condition == conditions.NOT_IMPLEMENTED


def test_cbs_answers_501_to_a_device(server: RunningServer, amqp: AmqpLine, device_key: str) -> None:
    assert amqp.put_token(device_token(server, device_key)) == 501


def test_sasl_plain_ends_in_outcome_auth_for_devices(server: RunningServer, device_key: str) -> None:
    with tls(server, 5671) as connection:
        line = AmqpLine(connection, ClientSasl.plain("coverage@sas.hub", device_token(server, device_key)))

    assert line.verdict is SaslCode.AUTH

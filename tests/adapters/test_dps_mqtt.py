"""Registration over MQTT, packet by packet, as each of Microsoft's device programs does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from moorage.adapters.dps_device import DeviceApi, Pace
from moorage.adapters.dps_mqtt import MAX_IN_FLIGHT, DpsMqttDoor, UserName, is_dps_user_name
from moorage.adapters.mqtt import MqttConversation
from moorage.credentials.sas import make_token, new_key
from moorage.credentials.x509 import Certificate
from moorage.errors import Invalid, NotFound
from moorage.interfaces import ByteStream, Conversation
from moorage.provisioning.attestation import proof
from moorage.provisioning.throttle import RateLimits
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.packets import ConnAck, PingResp, PubAck, Publish, SubAck, UnsubAck
from tests.support.mqtt_peer import MqttPeer, connect, publish
from tests.support.site import (
    ID_SCOPE,
    POLLED_OUT,
    REGISTERED_OUT,
    Site,
    certificate,
    enroll_certificate,
    failed_checks,
)
from tests.support.software_tpm import SoftwareTpm

RESPONSES = "$dps/registrations/res/#"
REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid="
POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid="
PYTHON = "azure-iot-device-provisioning-py%2F2.14.0%28Linux%29"

Arrive = Callable[..., MqttPeer]


def user_name(
    registration_id: str = "pump-7", *, scope: str = ID_SCOPE, version: str = "2019-03-31", agent: str = "C"
) -> str:
    return f"{scope}/registrations/{registration_id}/api-version={version}&ClientVersion={agent}"


def arrivals(site: Site, pace: Pace) -> Arrive:
    door = DpsMqttDoor(DeviceApi(site.provisioner, pace=pace))

    def open_conversation(stream: ByteStream) -> Conversation:
        return MqttConversation(stream, lambda connect: door, connect_timeout=30)

    return lambda **peer: MqttPeer(site.time, open_conversation, **peer)


@pytest.fixture
def arrive(site: Site) -> Arrive:
    return arrivals(site, "fast")


@pytest.fixture
async def leaf(site: Site) -> Certificate:
    """Enrolled as pump-7."""
    return await enroll_certificate(site, "pump-7")


async def connected(
    arrive: Arrive, leaf: Certificate | None, *, qos: int = 1, password: str | None = None, **name: str
) -> MqttPeer:
    """A device that listens for responses."""
    peer = arrive(chain=[leaf.der] if leaf is not None else [])
    client_id = name.get("registration_id", "pump-7")
    peer.send(connect(client_id, password, username=user_name(**name)))
    assert await peer.expect(ConnAck) == ConnAck(0)
    peer.send(packets.encode_subscribe(1, [(RESPONSES, qos)]))
    assert await peer.expect(SubAck) == SubAck(1, (min(qos, 1),))
    return peer


async def ask(
    peer: MqttPeer, topic: str, payload: bytes = b"", *, packet_id: int | None = 7
) -> tuple[str, Any]:
    """Topic and body of the response, behind the PUBACK where one is due."""
    peer.send(publish(topic, payload, packet_id))
    if packet_id is not None:
        assert await peer.expect(PubAck) == PubAck(packet_id)
    response = await peer.expect(Publish)
    assert response.payload.isascii(), "Node decodes it as ASCII"
    assert response.topic.count("$") == 2, "Python splits there"
    assert not response.retain
    return response.topic, json.loads(response.payload)


async def operation_of(peer: MqttPeer) -> str:
    """Register; the id to ask by."""
    topic, body = await ask(peer, f"{REGISTER}1")
    assert topic.startswith("$dps/registrations/res/202/?$rid=1&retry-after=")
    assert set(body) == {"operationId", "status"}
    assert body["status"] == "assigning"
    operation_id: str = body["operationId"]
    return operation_id


def refused(topic: str, body: Any, status: int, code: int) -> None:
    assert topic == f"$dps/registrations/res/{status}/?$rid=1"
    assert body["errorCode"] == code
    assert body["trackingId"] == "ab" * 16
    assert not {"status", "operationId"} & set(body), "C takes the body for an operation then"


# --- User names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version", "agent"),
    [
        (f"s/registrations/d/api-version=2019-03-31&ClientVersion={PYTHON}", "2019-03-31", PYTHON),
        ("s/registrations/d/api-version=2019-03-31", "2019-03-31", ""),
        ("s/REGISTRATIONS/d/API-Version=2019-03-31&clientversion=x", "2019-03-31", "x"),
        ("s/registrations/d/api-version=2018-11-01&ClientVersion=a/b (c; d/e)", "2018-11-01", "a/b (c; d/e)"),
        ("s/registrations/d/ClientVersion=2019-03-31&api-version=1", "1", "2019-03-31"),
        ("s/registrations/d/", "", ""),
    ],
)
def test_user_names_of_all_clients(text: str, version: str, agent: str) -> None:
    name = UserName.parse(text)
    assert (name.id_scope, name.registration_id, name.api_version) == ("s", "d", version)
    assert name.client_version in (agent, "azure-iot-device-provisioning-py/2.14.0(Linux)")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s/registrations/d",
        "s/registration/d/api-version=1",
        "/registrations/d/api-version=1",
        "s/registrations//api-version=1",
        f"s/registrations/{'x' * 129}/api-version=1",
    ],
)
def test_user_names_that_name_nobody(text: str) -> None:
    with pytest.raises(Invalid):
        UserName.parse(text)


@pytest.mark.parametrize(
    ("text", "dps"),
    [
        ("0ne00/registrations/d/api-version=2019-03-31", True),
        ("0ne00/Registrations/d/api-version=2019-03-31&ClientVersion=a/b", True),
        ("hub/d/?api-version=2021-04-12", False),
        ("hub/d/m/?api-version=2021-04-12", False),
        ("hub/registrations/?api-version=2021-04-12", False),
        ("hub/registrations/m/?api-version=2021-04-12", False),
        ("hub/d/api-version=2016-11-14", False),
        ("", False),
        (None, False),
    ],
)
def test_dps_is_told_from_a_hub(text: str | None, dps: bool) -> None:
    assert is_dps_user_name(text) is dps


# --- CONNECT ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client_id", "name"),
    [
        ("pump-8", user_name()),
        ("", user_name()),
        ("pump-7", "0ne00/registrations/pump-7"),
        ("pump-7", None),
        ("pump-7", user_name("x" * 200)),
    ],
    ids=["client id", "empty client id", "no version", "none", "too long"],
)
async def test_a_connect_that_names_nobody(
    site: Site, arrive: Arrive, client_id: str, name: str | None
) -> None:
    peer = arrive()
    peer.send(connect(client_id, None, username=name))
    assert await peer.expect(ConnAck) == ConnAck(4)
    await peer.ended()
    decision = site.refusal()
    assert (decision.operation, decision.tracking_id) == ("connect", "ab" * 16)


async def test_ids_compare_without_regard_to_case(arrive: Arrive, leaf: Certificate) -> None:
    peer = arrive(chain=[leaf.der])
    peer.send(connect("PUMP-7", None, username=user_name("Pump-7")))
    assert await peer.expect(ConnAck) == ConnAck(0)


async def test_a_kept_session_is_never_present(arrive: Arrive, leaf: Certificate) -> None:
    """C# gives up when it is [dps 7.1]."""
    for _ in range(2):
        await connected(arrive, leaf)


async def test_the_newer_connection_does_not_end_the_older(arrive: Arrive, leaf: Certificate) -> None:
    """CONNECT proves nothing: else anybody could keep a device from registering."""
    older = await connected(arrive, leaf)
    await connected(arrive, None)
    await operation_of(older)


# --- Registration -------------------------------------------------------------------------------------------


async def test_register_and_poll(site: Site, arrive: Arrive, leaf: Certificate) -> None:
    peer = await connected(arrive, leaf)
    operation_id = await operation_of(peer)
    topic, body = await ask(peer, f"{POLL}2&operationId={operation_id}", b" ", packet_id=8)
    assert topic == "$dps/registrations/res/200/?$rid=2"
    assert (body["operationId"], body["status"]) == (operation_id, "assigned")
    state = body["registrationState"]
    assert (state["assignedHub"], state["deviceId"], state["substatus"]) == (
        "localhost",
        "pump-7",
        "initialAssignment",
    )
    assert (await site.identities.get("pump-7")).authentication.primary_thumbprint == leaf.sha256


@pytest.mark.parametrize(
    ("pace", "agent", "status", "wait"),
    [
        ("fast", PYTHON, 200, ""),
        ("fast", "C%2F1.9", 202, "&retry-after=1"),
        ("fast", "some%20azure-iot-device-provisioning-py%2F2", 202, "&retry-after=1"),
        ("azure", PYTHON, 202, "&retry-after=3"),
        ("azure", "C%2F1.9", 202, "&retry-after=3"),
    ],
)
async def test_the_pace(
    site: Site, leaf: Certificate, pace: Pace, agent: str, status: int, wait: str
) -> None:
    """Only Python is answered at once: IoT Edge insists on 202 [dps trap 11]."""
    peer = await connected(arrivals(site, pace), leaf, agent=agent)
    topic, body = await ask(peer, f"{REGISTER}1")
    assert topic == f"$dps/registrations/res/{status}/?$rid=1{wait}"
    assert body["status"] == {200: "assigned", 202: "assigning"}[status]


@pytest.mark.parametrize("rid", ["1", "6d1cf3a2-7c1e-4e3d-9c85-6d1cf3a27c1e", "a%2Fb%20c", "~!*'()"])
async def test_the_request_id_comes_back_byte_for_byte(arrive: Arrive, leaf: Certificate, rid: str) -> None:
    peer = await connected(arrive, leaf)
    topic, _ = await ask(peer, f"{REGISTER}{rid}")
    assert topic == f"$dps/registrations/res/202/?$rid={rid}&retry-after=1"


async def test_quality_of_service_0_throughout(arrive: Arrive, leaf: Certificate) -> None:
    """C and Java publish with 0; who subscribes with 0 gets 0."""
    peer = await connected(arrive, leaf, qos=0)
    peer.send(publish(f"{REGISTER}1"))
    response = await peer.expect(Publish)
    assert (response.qos, response.packet_id) == (0, None)


async def test_responses_have_packet_ids_of_their_own(arrive: Arrive, leaf: Certificate) -> None:
    peer = await connected(arrive, leaf, qos=2)
    ids = set()
    for number in range(1, 4):
        peer.send(publish(f"{REGISTER}{number}", b"", number))
        await peer.expect(PubAck)
        response = await peer.expect(Publish)
        assert response.qos == 1
        ids.add(response.packet_id)
        peer.send(packets.encode_puback(response.packet_id or 0))
    assert len(ids) == 3
    assert not {None, 0} & ids


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{}",
        b'{"payload":null,"registrationId":"pump-7"}',
        b'{"registrationId":"PUMP-7"}',
        b'{"payload":"text"}',
        b'{"payload":{"a":[1]},"unknown":1,"tpm":null}',
    ],
)
async def test_register_bodies_of_all_clients(arrive: Arrive, leaf: Certificate, body: bytes) -> None:
    peer = await connected(arrive, leaf)
    topic, _ = await ask(peer, f"{REGISTER}1", body)
    assert topic.startswith("$dps/registrations/res/202/")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"registrationId":"pump-8"}', "pump-8"),
        (b'{"registrationId":7}', "the body says 7"),
        (b'{"csr":"AAAA"}', "needs the api-version"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_register_body_that_is_refused(
    site: Site, arrive: Arrive, leaf: Certificate, body: bytes, why: str
) -> None:
    """400 also for what is not supported: whatever is 429 or more, Python and Node ask again for ever."""
    peer = await connected(arrive, leaf)
    topic, answer = await ask(peer, f"{REGISTER}1", body)
    refused(topic, answer, 400, 400000)
    assert why in answer["message"]
    decision = site.refusal()
    assert why in decision.error
    assert (decision.subject, decision.tracking_id) == ("pump-7", "ab" * 16)


async def test_a_tpm_is_told_to_use_another_door(site: Site, arrive: Arrive, leaf: Certificate) -> None:
    peer = await connected(arrive, leaf)
    body = json.dumps({"tpm": SoftwareTpm().keys}).encode()
    topic, answer = await ask(peer, f"{REGISTER}1", body)
    refused(topic, answer, 400, 400000)
    assert "HTTPS or AMQP" in answer["message"]
    assert site.refusal().error.startswith("TPM attestation over MQTT")


@pytest.mark.parametrize("version", ["", "2015-01-01", "latest"])
async def test_an_api_version_that_is_none(
    site: Site, arrive: Arrive, leaf: Certificate, version: str
) -> None:
    peer = await connected(arrive, leaf, version=version)
    refused(*await ask(peer, f"{REGISTER}1"), 400, 400000)
    assert "api-version" in site.refusal().error


async def test_bad_proof_is_let_in_and_told_at_register(
    site: Site, arrive: Arrive, leaf: Certificate
) -> None:
    """Clients look for it there, and the CLI for its 401 [dps trap 3]."""
    token = make_token(f"{ID_SCOPE}/registrations/pump-7", new_key(), site.seconds + 600)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"leaf": None}, proof.PRESENTED),
        ({"leaf": certificate("pump-7")}, proof.MATCHES),
        ({"leaf": leaf, "password": token}, proof.PRESENTED),
        ({"leaf": leaf, "registration_id": "nobody"}, proof.ENROLLED),
        ({"leaf": leaf, "scope": "0ne00000000"}, proof.ID_SCOPE),
    ]
    for case, check in cases:
        before = len(site.refusals())
        peer = await connected(arrive, **case)
        refused(*await ask(peer, f"{REGISTER}1"), 401, 401002)
        (decision,) = site.refusals()[before:]
        assert decision.operation == "register"
        assert failed_checks(decision) == [check]


async def test_a_disabled_enrollment_is_an_outcome_and_no_error(site: Site, arrive: Arrive) -> None:
    leaf = await enroll_certificate(site, "pump-7", provisioningStatus="disabled")
    peer = await connected(arrive, leaf)
    topic, body = await ask(peer, f"{POLL}1&operationId={await operation_of(peer)}")
    assert topic == "$dps/registrations/res/200/?$rid=1"
    assert body["status"] == "disabled"
    assert "assignedHub" not in body["registrationState"]


async def test_words_beyond_ascii_are_escaped(arrive: Arrive, leaf: Certificate) -> None:
    peer = await connected(arrive, leaf)
    topic, body = await ask(peer, f"{REGISTER}1", '{"registrationId":"Ähre"}'.encode())
    refused(topic, body, 400, 400000)
    assert "Ähre" in body["message"]


@pytest.mark.parametrize(
    ("version", "substatus"),
    [("2019-03-31", "initialAssignment"), ("2021-10-01", "reprovisionedToInitialAssignment")],
)
async def test_an_older_program_is_told_what_it_knows(
    arrive: Arrive, leaf: Certificate, version: str, substatus: str
) -> None:
    """[dps trap 38]"""
    peer = await connected(arrive, leaf, version=version)
    await operation_of(peer)
    _, body = await ask(peer, f"{POLL}1&operationId={await operation_of(peer)}")
    assert body["registrationState"]["substatus"] == substatus


# --- Polling ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b" ", b'{"operationId":"x"}', b"not JSON", b"\xff"])
async def test_the_payload_of_a_poll_does_not_matter(
    arrive: Arrive, leaf: Certificate, payload: bytes
) -> None:
    peer = await connected(arrive, leaf)
    topic, _ = await ask(peer, f"{POLL}1&operationId={await operation_of(peer)}", payload)
    assert topic == "$dps/registrations/res/200/?$rid=1"


async def test_an_operation_belongs_to_one_device(site: Site, arrive: Arrive, leaf: Certificate) -> None:
    operation_id = await operation_of(await connected(arrive, leaf))
    other = await connected(arrive, await enroll_certificate(site, "pump-8"), registration_id="pump-8")
    await operation_of(other)
    for asked in (f"&operationId={operation_id}", "&operationId=5.0.0", "&operationId=", ""):
        topic, body = await ask(other, f"{POLL}1{asked}")
        refused(topic, body, 404, 404203)


async def test_several_requests_at_once(arrive: Arrive, leaf: Certificate) -> None:
    """All of a retry are answered, each behind its own PUBACK."""
    peer = await connected(arrive, leaf)
    peer.send(*(publish(f"{REGISTER}{number}", b"", number) for number in (1, 2, 3)))
    seen = [await peer.expect(PubAck) for _ in range(3)]
    assert seen == [PubAck(1), PubAck(2), PubAck(3)]
    topics = {(await peer.expect(Publish)).topic for _ in range(3)}
    assert topics == {f"$dps/registrations/res/202/?$rid={n}&retry-after=1" for n in (1, 2, 3)}


@pytest.mark.parametrize("limits", [REGISTERED_OUT])
async def test_too_many_registrations(
    site: Site, arrive: Arrive, leaf: Certificate, limits: RateLimits
) -> None:
    """Python and Node wait as long as they are told, and ask again [dps 6.5]."""
    peer = await connected(arrive, leaf)
    await operation_of(peer)
    topic, body = await ask(peer, f"{REGISTER}2")
    assert topic == "$dps/registrations/res/429/?$rid=2&retry-after=60"
    assert body["errorCode"] == 429001
    assert failed_checks(site.refusal()) == ["rate"]
    site.time.advance(60)
    await operation_of(peer)


@pytest.mark.parametrize("limits", [POLLED_OUT])
async def test_too_many_polls(site: Site, arrive: Arrive, leaf: Certificate, limits: RateLimits) -> None:
    """Of one device; what others ask for is not counted."""
    peer = await connected(arrive, leaf)
    operation_id = await operation_of(peer)
    await ask(peer, f"{POLL}1&operationId=5.0.0")
    await ask(peer, f"{POLL}2&operationId={operation_id}")
    topic, _ = await ask(peer, f"{POLL}3&operationId={operation_id}")
    assert topic == "$dps/registrations/res/429/?$rid=3&retry-after=10"
    assert (site.refusals()[-1].operation, failed_checks(site.refusals()[-1])) == ("poll", ["rate"])


# --- What else a device may send ----------------------------------------------------------------------------


async def test_other_filters_are_refused_and_unsubscribe_is_obeyed(arrive: Arrive, leaf: Certificate) -> None:
    peer = await connected(arrive, leaf)
    filters = [("$dps/#", 0), (RESPONSES, 2), ("#", 1)]
    peer.send(packets.encode_subscribe(2, filters), packets.encode_unsubscribe(3, ["#"]))
    assert await peer.expect(SubAck) == SubAck(2, (0x80, 1, 0x80))
    assert await peer.expect(UnsubAck) == UnsubAck(3)
    await operation_of(peer)
    peer.send(packets.encode_unsubscribe(4, [RESPONSES]), packets.encode_pingreq())
    assert await peer.expect(UnsubAck) == UnsubAck(4)
    await peer.expect(PingResp)
    peer.send(publish(f"{REGISTER}1"))
    assert "before SUBSCRIBE" in await peer.ended()


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (packets.encode_publish(f"{REGISTER}1", b"", qos=2, packet_id=1), "QoS 2"),
        (publish("$dps/registrations/PUT/other/?$rid=1"), "does not have the topic"),
        (publish("devices/pump-7/messages/events/"), "does not have the topic"),
        (publish(REGISTER + "1" * 65_000), "$rid"),
        (packets.encode_pubrel(1), "PubRel"),
        (b"\x00\x00", "type 0"),
    ],
    ids=["QoS 2", "unknown", "telemetry", "request id", "PUBREL", "malformed"],
)
async def test_what_closes(site: Site, arrive: Arrive, leaf: Certificate, packet: bytes, why: str) -> None:
    peer = await connected(arrive, leaf)
    peer.send(packet, publish(f"{REGISTER}2"))
    assert why in await peer.ended()
    decision = site.refusal()
    assert why in decision.error
    assert decision.subject == "pump-7"


async def test_a_request_before_subscribe_closes(site: Site, arrive: Arrive, leaf: Certificate) -> None:
    peer = arrive(chain=[leaf.der])
    peer.send(connect("pump-7", None, username=user_name()), publish(f"{REGISTER}1", b"", 1))
    await peer.expect(ConnAck)
    assert "before SUBSCRIBE" in await peer.ended()
    with pytest.raises(NotFound):
        await site.provisioner.registration("pump-7")


async def test_more_requests_than_a_device_can_have(arrive: Arrive, leaf: Certificate) -> None:
    peer = await connected(arrive, leaf, qos=0)
    peer.send(*(publish(f"{REGISTER}{number}") for number in range(MAX_IN_FLIGHT + 1)))
    assert "more requests at once" in await peer.ended()


async def test_a_registration_is_finished_though_the_device_has_left(
    site: Site, arrive: Arrive, leaf: Certificate
) -> None:
    peer = await connected(arrive, leaf)
    peer.send(publish(f"{REGISTER}1", b"", 1), packets.encode_disconnect())
    await peer.expect(PubAck)
    assert await peer.ended() == "DISCONNECT"
    await site.time.until(lambda: [each for each in site.decisions.of("pump-7") if each.accepted])
    assert (await site.provisioner.registration("pump-7")).assigned_hub == "localhost"


async def test_a_failure_of_ours_is_an_answer_too(
    site: Site,
    arrive: Arrive,
    leaf: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(request: object, proof: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(site.provisioner, "register", fail)
    peer = await connected(arrive, leaf)
    topic, body = await ask(peer, f"{REGISTER}1")
    refused(topic, body, 500, 500000)
    assert "ZeroDivisionError" in caplog.text

"""The documented MQTT topics by a plain client, paho, without an SDK."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest
from paho.mqtt.client import MQTTv31  # type: ignore[import-untyped]

from tests.conftest import RunningServer
from tests.support.certificates import CertificateFiles
from tests.support.decisions import failed_checks, refusal
from tests.support.devices import sas_device
from tests.support.events import Telemetry, application_properties, payload, system_properties
from tests.support.mqtt import Acknowledged, device_token, hub_client, plain_client
from tests.support.services import Dps, Hub
from tests.support.waiting import eventually

pytestmark = pytest.mark.clients

REFUSED = 0x80  # in SUBACK
KIB = 1024


# --- The provisioning service ----------------------------------------------------------------------------


def dps_client(env: Mapping[str, str], registration_id: str, **options: Any) -> Any:
    user_name = f"{env['PROVISIONING_IDSCOPE']}/registrations/{registration_id}/api-version=2019-03-31"
    return plain_client(env, registration_id, user_name, **options)


@pytest.mark.parametrize("body", [b"", b" ", b"{}"], ids=["empty", "blank", "object"])
def test_a_registration_by_its_topics(
    env: Mapping[str, str], dps: Dps, device_id: str, device_certificate: CertificateFiles, body: bytes
) -> None:
    """Whoever is not known to take the outcome at once is told to poll, and finds it at the first poll."""
    dps.put_enrollment(device_id, device_certificate[0])

    with dps_client(env, device_id, certificate=device_certificate, clean_session=False) as device:
        assert device.connect() == 0
        assert not device.session_present
        assert device.subscribe("$dps/registrations/res/#", 2) == 1
        device.publish("$dps/registrations/PUT/iotdps-register/?$rid=17", body)
        # PUBACK first: C#'s client takes the two in this order only [dps 7.2].
        assert device.arrived() == Acknowledged("puback")
        topic, payload = device.message()
        assert topic == "$dps/registrations/res/202/?$rid=17&retry-after=1"
        accepted = json.loads(payload)
        assert accepted["status"] == "assigning"

        poll = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=18&operationId="
        topic, payload = device.ask(poll + accepted["operationId"], b" ")

    assert topic == "$dps/registrations/res/200/?$rid=18"
    outcome = json.loads(payload)
    assert outcome["status"] == "assigned"
    assert outcome["operationId"] == accepted["operationId"]
    assert outcome["registrationState"]["assignedHub"] == env["IOTHUB_HOSTNAME"]
    assert outcome["registrationState"]["deviceId"] == device_id


@pytest.mark.port443
def test_a_registration_by_its_topics_over_websockets(
    env: Mapping[str, str], dps: Dps, device_id: str, device_certificate: CertificateFiles
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])

    with dps_client(env, device_id, certificate=device_certificate, websockets=True) as device:
        assert device.connect() == 0
        device.subscribe("$dps/registrations/res/#")
        topic, _ = device.ask("$dps/registrations/PUT/iotdps-register/?$rid=1")

    assert topic.startswith("$dps/registrations/res/202/")


def test_a_device_without_a_certificate_hears_of_it_at_its_request(
    env: Mapping[str, str], hub: Hub, dps: Dps, device_id: str, device_certificate: CertificateFiles
) -> None:
    """Not at CONNECT: clients look for the verdict in the answer [dps 7.3]."""
    dps.put_enrollment(device_id, device_certificate[0])

    with dps_client(env, device_id) as device:
        assert device.connect() == 0
        device.subscribe("$dps/registrations/res/#")
        topic, payload = device.ask("$dps/registrations/PUT/iotdps-register/?$rid=1")

    error = json.loads(payload)
    assert topic == "$dps/registrations/res/401/?$rid=1"
    assert error["errorCode"] == 401002
    decision = refusal(hub, device_id)
    assert failed_checks(decision) == ["certificate presented"]
    assert decision["trackingId"] == error["trackingId"]


def test_an_operation_of_somebody_else(
    env: Mapping[str, str], dps: Dps, device_id: str, device_certificate: CertificateFiles
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])

    with dps_client(env, device_id, certificate=device_certificate) as device:
        device.connect()
        device.subscribe("$dps/registrations/res/#")
        topic, payload = device.ask(
            "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1&operationId=5.0"
        )

    assert topic == "$dps/registrations/res/404/?$rid=1"
    assert json.loads(payload)["errorCode"] == 404203


@pytest.mark.parametrize(
    "user_name", ["", "nonsense", "{scope}/registrations/somebody-else/api-version=2019-03-31"]
)
def test_a_user_name_that_dps_cannot_read(env: Mapping[str, str], device_id: str, user_name: str) -> None:
    user_name = user_name.format(scope=env["PROVISIONING_IDSCOPE"])

    with plain_client(env, device_id, user_name) as device:
        assert device.connect() in (4, 5)
        device.wait_closed()


# --- The hub: connecting ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "user_name",
    [
        "{host}/{device}/?api-version=2021-04-12",
        "{host}/{device}/?api-version=2020-09-30&DeviceClientType=any%2F1.0",
        "{host}/{device}/api-version=2016-11-14&DeviceClientType=C",
        "{host}/{device}",
        "{HOST}/{device}/?unknown=parameter",
    ],
)
def test_every_form_of_user_name(env: Mapping[str, str], hub: Hub, device_id: str, user_name: str) -> None:
    device = sas_device(hub, device_id)
    user_name = user_name.format(host=device.hostname, HOST="LOCALHOST", device=device_id)

    with plain_client(env, device_id, user_name, device_token(device)) as client:
        assert client.connect() == 0
        assert not client.session_present


def test_a_client_id_that_is_not_the_device(env: Mapping[str, str], hub: Hub, device_id: str) -> None:
    device = sas_device(hub, device_id)
    user_name = f"{device.hostname}/{device_id}/?api-version=2021-04-12"

    with plain_client(env, f"not-{device_id}", user_name, device_token(device)) as client:
        assert client.connect() == 5
        client.wait_closed()

    assert failed_checks(refusal(hub, device_id)) == ["client id"]


def test_a_token_that_expired_a_day_ago(env: Mapping[str, str], hub: Hub, device_id: str) -> None:
    device = sas_device(hub, device_id)
    user_name = f"{device.hostname}/{device_id}/?api-version=2021-04-12"

    with plain_client(env, device_id, user_name, device_token(device, lifetime=-86_400)) as client:
        assert client.connect() == 5

    assert failed_checks(refusal(hub, device_id)) == ["expiry"]


def test_a_token_that_expired_a_moment_ago_is_still_good(
    env: Mapping[str, str], hub: Hub, device_id: str
) -> None:
    """Clocks differ: five minutes are let pass, as at Azure [hub-device 2.3]."""
    device = sas_device(hub, device_id)
    user_name = f"{device.hostname}/{device_id}/?api-version=2021-04-12"

    with plain_client(env, device_id, user_name, device_token(device, lifetime=-120)) as client:
        assert client.connect() == 0


def test_an_older_protocol(env: Mapping[str, str], hub: Hub, device_id: str) -> None:
    with hub_client(env, sas_device(hub, device_id), protocol=MQTTv31) as client:
        assert client.connect() == 1
        client.wait_closed()


# --- The hub: telemetry ----------------------------------------------------------------------------------


@pytest.mark.parametrize("websockets", [False, pytest.param(True, marks=pytest.mark.port443)])
def test_telemetry_by_its_topic(
    env: Mapping[str, str], hub: Hub, telemetry: Telemetry, device_id: str, websockets: bool
) -> None:
    bag = f"%24.mid=m%2F1&$.ct={quote('application/json', safe='')}&level=3&null&empty="
    topics = [
        f"devices/{device_id}/messages/events",
        f"devices/{device_id}/messages/events/",
        f"devices/{device_id}/messages/events/{bag}",
        f"devices/{device_id}/messages/events/{bag}/",
        f"devices/{device_id}/messages/events/?{bag}",
    ]

    with hub_client(env, sas_device(hub, device_id), websockets=websockets) as client:
        assert client.connect() == 0
        for qos in (0, 1):
            for number, topic in enumerate(topics):
                client.telemetry(topic, b"%d" % number, qos=qos)

    events = telemetry.of(device_id, 2 * len(topics))
    assert [event.body_as_str() for event in events] == [str(n) for n in range(len(topics))] * 2
    assert all(application_properties(event) == {} for event in events[:2])
    for event in events[2:5]:
        system = system_properties(event)
        assert (system["message-id"], system["content-type"]) == ("m/1", "application/json")
        assert application_properties(event) == {"level": "3", "null": None, "empty": ""}


def test_a_retained_message_is_marked_and_not_retained(
    env: Mapping[str, str], hub: Hub, telemetry: Telemetry, device_id: str
) -> None:
    with hub_client(env, sas_device(hub, device_id)) as client:
        client.connect()
        client.telemetry(f"devices/{device_id}/messages/events/", b"kept?", retain=True)

    (event,) = telemetry.of(device_id, 1)
    assert application_properties(event) == {"mqtt-retain": "true"}


def test_the_will_of_a_device_that_goes_without_a_word(
    env: Mapping[str, str], hub: Hub, telemetry: Telemetry, device_id: str
) -> None:
    device = sas_device(hub, device_id)
    will = (f"devices/{device_id}/messages/events/reason=power", b"gone")

    with hub_client(env, device, will=will) as client:
        client.connect()  # and goes with DISCONNECT: no will
    with hub_client(env, device, will=will) as client:
        client.connect()
        client.drop()

    (event,) = telemetry.of(device_id, 1)
    assert event.body_as_str() == "gone"
    assert application_properties(event) == {"reason": "power", "iothub-MessageType": "Will"}


def test_a_message_of_the_greatest_size_arrives_and_a_greater_one_closes(
    env: Mapping[str, str], hub: Hub, telemetry: Telemetry, device_id: str
) -> None:
    topic = f"devices/{device_id}/messages/events/"

    with hub_client(env, sas_device(hub, device_id)) as client:
        client.connect()
        client.telemetry(topic, bytes(256 * KIB))
        client.publish(topic, bytes(256 * KIB + 1))
        client.wait_closed()

    (event,) = telemetry.of(device_id, 1)
    assert len(payload(event)) == 256 * KIB
    decision = refusal(hub, device_id)
    assert failed_checks(decision) == ["message"]
    assert "262144" in decision["error"]


def why_closed(server: RunningServer, device_id: str) -> str:
    """The reason in the log for which the device's last connection ended."""

    def look() -> list[str]:
        marks = ("device disconnected", f"device_id={device_id}  reason=")
        return [line for line in server.log.splitlines() if all(mark in line for mark in marks)]

    line = eventually(look, what=f"the log says why {device_id} was disconnected")[-1]
    return line.partition("  reason=")[2]


@pytest.mark.parametrize(
    ("topic", "qos", "check"),
    [
        ("devices/somebody-else/messages/events/", 1, "topic"),
        ("anything/else", 0, "topic"),
        ("$iothub/no/such/topic", 1, "topic"),
        ("devices/{device}/messages/events/", 2, "PUBLISH"),
    ],
)
def test_what_closes_a_connection(
    env: Mapping[str, str],
    hub: Hub,
    telemetry: Telemetry,
    device_id: str,
    topic: str,
    qos: int,
    check: str,
) -> None:
    """MQTT 3.1.1 has no packet for the reason: the decisions have it. What came before is kept."""
    with hub_client(env, sas_device(hub, device_id)) as client:
        client.connect()
        client.telemetry(f"devices/{device_id}/messages/events/", b"before")
        client.publish(topic.format(device=device_id), b"after", qos=qos)
        client.wait_closed()

    assert failed_checks(refusal(hub, device_id)) == [check]
    assert [event.body_as_str() for event in telemetry.of(device_id, 1)] == ["before"]
    assert hub.get(f"/devices/{device_id}")["connectionState"] == "Disconnected"


# --- The hub: twin and subscriptions ---------------------------------------------------------------------


def test_the_twin_by_its_topics(env: Mapping[str, str], hub: Hub, device_id: str) -> None:
    with hub_client(env, sas_device(hub, device_id)) as client:
        client.connect()
        assert client.subscribe("$iothub/twin/res/#", 0) == 0
        answer = client.ask("$iothub/twin/GET/?$rid=first")
        reported = client.ask("$iothub/twin/PATCH/properties/reported/?$rid=second", b'{"on": true}')

    assert answer.topic == "$iothub/twin/res/200/?$rid=first"
    assert json.loads(answer.payload) == {"desired": {"$version": 1}, "reported": {"$version": 1}}
    assert (reported.topic, reported.payload) == ("$iothub/twin/res/204/?$rid=second&$version=2", b"")


def test_subscriptions_to_what_is_not_for_the_device_are_refused(
    env: Mapping[str, str], hub: Hub, device_id: str
) -> None:
    with hub_client(env, sas_device(hub, device_id)) as client:
        client.connect()
        for topic_filter in (
            "devices/somebody-else/messages/devicebound/#",
            "#",
        ):
            assert client.subscribe(topic_filter) == REFUSED, topic_filter
        assert client.subscribe("$iothub/twin/res/#", 2) == 1
        client.telemetry(f"devices/{device_id}/messages/events/", b"still connected")


def test_a_device_that_is_silent_for_longer_than_its_keep_alive_is_dropped(
    env: Mapping[str, str], server: RunningServer, hub: Hub, device_id: str
) -> None:
    with hub_client(env, sas_device(hub, device_id), keep_alive=1) as client:
        client.connect()
        client.hush()
        eventually(
            lambda: hub.get(f"/devices/{device_id}")["connectionState"] == "Disconnected",
            what="the silent device is dropped",
        )

    assert why_closed(server, device_id).startswith("keep-alive missed")

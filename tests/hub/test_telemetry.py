from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import TooLarge
from moorage.hub.instance import Hub, partition_of
from moorage.hub.session import Principal, Session
from moorage.hub.telemetry import (
    MAX_MESSAGE,
    MessageProperties,
    auth_method,
    check_size,
    head_size,
    read_bag,
    telemetry_head,
)
from moorage.interfaces import EventHead
from tests.support.sessions import ClosingLink

HUB = Hub(scope=7, name="hub", host_names=("localhost",), advertised_host="localhost", created=1)
Bag = list[tuple[str, str | None]]


def session(model_id: str = "", scope: str = "device", auth_type: str = "sas") -> Session:
    return Session(Principal("pump-7", "638812345678901234", scope, auth_type), 1, ClosingLink(), model_id)


def head(bag: Bag, *, retain: bool = False, will: bool = False) -> EventHead:
    return telemetry_head(HUB, session(), bag, retain=retain, will=will)


def test_a_message_without_properties() -> None:
    assert head([]) == EventHead(
        scope=7,
        partition=partition_of(HUB, "pump-7"),
        partition_key="pump-7",
        annotations=(
            ("iothub-connection-device-id", "pump-7"),
            (
                "iothub-connection-auth-method",
                '{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}',
            ),
            ("iothub-connection-auth-generation-id", "638812345678901234"),
            ("iothub-message-source", "Telemetry"),
        ),
    )


def test_system_properties_find_their_places() -> None:
    bag: Bag = [
        ("$.mid", "m1"),
        ("$.cid", "c1"),
        ("$.uid", "u1"),
        ("$.to", "/devices/x"),
        ("$.ct", "application/json"),
        ("$.ce", "utf-8"),
        ("$.exp", "2026-05-02T10:20:30.1230000Z"),
        ("$.ctime", "2026-05-02T10:20:00Z"),
        ("$.schema", "s1"),
        ("$.on", "output1"),
        ("$.ifid", "urn:azureiot:Security:SecurityAgent:1"),
        ("$.sub", "thermostat1"),
        ("$.diagid", "0a"),
        ("level", "7"),
        ("iothub-ack", "full"),
    ]
    made = head(bag)
    assert (made.message_id, made.correlation_id, made.user_id) == ("m1", "c1", "u1")
    assert (made.content_type, made.content_encoding) == ("application/json", "utf-8")
    assert made.absolute_expiry_time == 1_777_717_230_123_000
    assert made.to is None
    assert made.annotations[-2:] == (
        ("dt-subject", "thermostat1"),
        ("iothub-interface-id", "urn:azureiot:Security:SecurityAgent:1"),
    )
    assert made.application_properties == (
        ("iothub-creation-time-utc", "2026-05-02T10:20:00Z"),
        ("iothub-message-schema", "s1"),
        ("iothub-outputname", "output1"),
        ("$.diagid", "0a"),
        ("level", "7"),
        ("iothub-ack", "full"),
    )


def test_application_properties_keep_order_nulls_and_odd_names() -> None:
    odd = "!#$%&'*+-^_`|~()<>@,;:\\\"[]?={} \t"
    bag: Bag = [("b", None), (odd, odd), ("a", ""), ("b", "2")]
    assert head(bag).application_properties == (("b", "2"), (odd, odd), ("a", ""))
    assert head([("gone", None)]).application_properties == (("gone", None),)


def test_empty_system_properties_are_absent() -> None:
    assert read_bag([("$.mid", ""), ("$.ct", None), ("$.sub", "")]) == MessageProperties()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-02T10:20:30Z", 1_777_717_230_000_000),
        ("2026-05-02T10:20:30.123Z", 1_777_717_230_123_000),
        ("2026-05-02T10:20:30.1234567Z", 1_777_717_230_123_456),
        ("2026-05-02T10:20:30.123456", 1_777_717_230_123_456),
        ("2026-05-02T12:20:30+02:00", 1_777_717_230_000_000),
        ("2026-05-02", 1_777_680_000_000_000),
        (" 1969-12-31T23:59:59Z ", -1_000_000),
        ("0001-01-01T00:00:00+14:00", -62_135_647_200_000_000),
    ],
)
def test_expiry_as_clients_write_it(text: str, expected: int) -> None:
    assert read_bag([("$.exp", text)]) == MessageProperties(expiry=expected)


@pytest.mark.parametrize("text", [None, "", "tomorrow", "1777717230", "9999-99-99"])
def test_an_expiry_that_cannot_be_read_is_handed_on(text: str | None) -> None:
    properties = read_bag([("$.exp", text)])
    assert properties.expiry is None
    assert properties.application_properties == (("$.exp", text),)


def test_retain_and_will_leave_a_mark() -> None:
    assert head([("a", "1")], retain=True).application_properties == (("a", "1"), ("mqtt-retain", "true"))
    assert head([("a", "1")], will=True).application_properties == (
        ("a", "1"),
        ("iothub-MessageType", "Will"),
    )


def test_the_model_of_the_connection_is_stamped() -> None:
    made = telemetry_head(HUB, session("dtmi:com:example:Thermostat;1"), [])
    assert ("dt-dataschema", "dtmi:com:example:Thermostat;1") in made.annotations


@pytest.mark.parametrize(
    ("scope", "auth_type", "issuer"), [("device", "x509", "external"), ("hub", "sas", "iothub")]
)
def test_the_way_of_authentication_is_stamped(scope: str, auth_type: str, issuer: str) -> None:
    stamped = dict(telemetry_head(HUB, session(scope=scope, auth_type=auth_type), []).annotations)
    text = stamped["iothub-connection-auth-method"]
    assert text == auth_method(scope, auth_type)
    assert json.loads(text) == {
        "scope": scope,
        "type": auth_type,
        "issuer": issuer,
        "acceptingIpFilterRule": None,
    }


def test_a_device_cannot_stamp_for_the_hub() -> None:
    made = head([("iothub-connection-device-id", "other")])
    assert dict(made.annotations)["iothub-connection-device-id"] == "pump-7"
    assert made.application_properties == (("iothub-connection-device-id", "other"),)


def test_what_counts_towards_the_size() -> None:
    assert head_size(head([])) == 0
    made = head([("$.mid", "12345"), ("$.ct", "é"), ("$.sub", "ab"), ("name", "value"), ("null", None)])
    assert head_size(made) == 5 + 2 + 2 + len("namevalue") + len("null")


def test_the_limit_is_on_body_and_properties_together() -> None:
    made = head([("name", "value")])
    check_size(made, MAX_MESSAGE - 9)
    with pytest.raises(TooLarge) as fault:
        check_size(made, MAX_MESSAGE - 8)
    assert fault.value.field == "message"
    with pytest.raises(TooLarge):
        check_size(made, 0, limit=8)


names = st.sampled_from(["$.mid", "$.exp", "$.ct", "$.x", "a", "b"]) | st.text(max_size=5)


@given(st.lists(st.tuples(names, st.none() | st.text(max_size=30))))
def test_no_property_bag_is_refused(bag: Bag) -> None:
    made = head(bag)
    written = [name for name, _ in made.application_properties]
    assert len(written) == len(set(written))
    assert {name for name, _ in bag if not name.startswith("$.")} <= set(written)

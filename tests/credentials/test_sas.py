"""Shared access signatures against published vectors and the spellings of every client."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.credentials.sas import (
    check_key,
    covers,
    derive_key,
    host_name,
    make_token,
    new_key,
    parse_token,
    signed_by,
    verify,
)
from moorage.errors import Invalid, Unauthorized

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
EXPIRY = 1_893_456_000
NOW = (EXPIRY - 60) * 1_000_000


@pytest.mark.parametrize(
    ("resource", "signature"),
    [
        ("0ne00ABCDEF/registrations/sample-device-1", "Eez8dd14HAZ+gzGnBv9eDgStKGVnAuY2LYIhY22vpK8="),
        ("0ne00ABCDEF%2Fregistrations%2Fsample-device-1", "6mUeivgJ4j+4Ts7bWxJruhP6d/Rlwul3ztgvkd8/lo0="),
        ("0ne00ABCDEF%2fregistrations%2fsample-device-1", "UilxuJ0ebd+L7toFHN6EHBhHZHLaLZKnKzppN41CCJE="),
        ("moorage.example.net", "YyfkQfdHoFygw1Q42lEntm56Fnipxbk3O6j/oyWdNog="),
    ],
)
def test_a_signature_covers_the_resource_as_it_was_written(resource: str, signature: str) -> None:
    escapes: list[dict[str, str]] = [{}, {"+": "%2B", "/": "%2F", "=": "%3D"}, {"+": "%2b", "=": "%3d"}]
    for escape in escapes:
        written = "".join(escape.get(character, character) for character in signature)
        token = parse_token(f"SharedAccessSignature sr={resource}&sig={written}&se={EXPIRY}")
        assert token.resource == resource.replace("%2F", "/").replace("%2f", "/")
        verify(token, [KEY], NOW)


def test_event_hubs_clients_sign_with_the_text_of_the_key() -> None:
    head = "SharedAccessSignature sr=sb%3A%2F%2Fhub.example.net%2Fmoorage&skn=x"
    by_text = parse_token(f"{head}&sig=CqMWGvc8hO1Cq%2b1IxR9d6UQin/%2bZ16Ejuq/M7Qxrrh0%3d&se={EXPIRY}")
    decoded = parse_token(f"{head}&sig=olzP4vY3FGU3GX3Wo8u8TwQabkXnEcIdj0EulJ8OYGc=&se={EXPIRY}")
    assert signed_by(by_text, [KEY], text_keys=True)
    assert not signed_by(by_text, [KEY])
    assert signed_by(decoded, [KEY])
    assert signed_by(decoded, [KEY], text_keys=True)
    assert not signed_by(decoded, ["a key that is no base64"])


@pytest.mark.parametrize(
    ("group_key", "registration_id", "device_key"),
    [
        (KEY, "sample-device-1", "HqBf0pEwL8diy4sh5G9XY3YLVYHJwI1QGtiR/6eDYm0="),
        (
            "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==",
            "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6",
            "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=",
        ),
    ],
)
def test_device_keys_of_a_group(group_key: str, registration_id: str, device_key: str) -> None:
    assert derive_key(group_key, registration_id) == device_key


@pytest.mark.parametrize(
    "order", [("sr", "sig", "se", "skn"), ("sr", "sig", "skn", "se"), ("skn", "se", "sig", "sr")]
)
def test_the_parts_come_in_any_order(order: tuple[str, ...]) -> None:
    made = make_token("hub.local/devices/d1", KEY, EXPIRY, "device")
    parts = dict(part.split("=", 1) for part in made.removeprefix("SharedAccessSignature ").split("&"))
    token = parse_token("SharedAccessSignature " + "&".join(f"{name}={parts[name]}" for name in order))
    assert (token.resource, token.expiry, token.key_name) == ("hub.local/devices/d1", EXPIRY, "device")
    verify(token, [KEY], NOW)


def test_an_empty_key_name_is_none() -> None:
    assert parse_token(make_token("h", KEY, EXPIRY) + "&skn=").key_name is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Bearer abc",
        "SharedAccessSignature",
        "SharedAccessSignature ",
        "SharedAccessSignature sr=h&sig=AAAA",
        "SharedAccessSignature sr=h&se=1",
        "SharedAccessSignature sig=AAAA&se=1",
        "SharedAccessSignature sr=&sig=AAAA&se=1",
        "SharedAccessSignature sr=h&sig=AAAA&se=tomorrow",
        "SharedAccessSignature sr=h&sig=AAAA&se=-1",
        "SharedAccessSignature sr=h&sig=AAAA&se=²",
        "SharedAccessSignature sr=h&sig=AAAA&se=" + "9" * 400,
        "SharedAccessSignature sr=h&sig=A&se=1",
        "SharedAccessSignature sr=h&sig=%F0%9F&se=1",
        "SharedAccessSignature sr=h&sr=i&sig=AAAA&se=1",
        "SharedAccessSignature sr=" + "h" * 5000 + "&sig=AAAA&se=1",
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(Unauthorized) as refusal:
        parse_token(text)
    assert refusal.value.check == "token form"
    assert refusal.value.remedy


@given(st.text(max_size=200))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    for candidate in (text, "SharedAccessSignature " + text, f"SharedAccessSignature sr=h&sig={text}&se=1"):
        try:
            token = parse_token(candidate)
        except Unauthorized:
            continue
        assert token.resource_raw
        assert not signed_by(token, [KEY])


@given(
    resource=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    key=st.binary(min_size=16, max_size=64),
    name=st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    text_key=st.booleans(),
)
def test_what_was_made_verifies(resource: str, key: bytes, name: str | None, text_key: bool) -> None:
    encoded = base64.b64encode(key).decode()
    token = parse_token(make_token(resource, encoded, EXPIRY, name, text_key=text_key))
    assert (token.resource, token.key_name) == (resource, name)
    verify(token, [new_key(), encoded], NOW, text_keys=text_key)


@pytest.mark.parametrize(
    ("late", "skew", "accepted"),
    [
        (-1, 300, True),
        (0, 300, True),
        (299, 300, True),
        (300, 300, False),
        (86_400, 300, False),
        (0, 0, False),
    ],
)
def test_a_token_serves_a_little_past_its_expiry(late: int, skew: int, accepted: bool) -> None:
    token = parse_token(make_token("h", KEY, EXPIRY))
    now = (EXPIRY + late) * 1_000_000
    if accepted:
        verify(token, [KEY], now, skew_seconds=skew)
        return
    with pytest.raises(Unauthorized) as refusal:
        verify(token, [KEY], now, skew_seconds=skew)
    assert refusal.value.check == "expiry"


def test_a_wrong_signature_is_told_before_the_expiry() -> None:
    token = parse_token(make_token("h", new_key(), EXPIRY))
    with pytest.raises(Unauthorized) as refusal:
        verify(token, [KEY, new_key()], (EXPIRY + 10_000) * 1_000_000)
    assert refusal.value.check == "signature"


def test_a_token_does_not_show_its_signature() -> None:
    token = parse_token(make_token("h", KEY, EXPIRY))
    assert "signature" not in repr(token)


@pytest.mark.parametrize(
    ("resource", "wanted", "good"),
    [
        ("hub.local", "hub.local/devices/d1", True),
        ("HUB.local:8443", "hub.LOCAL/devices/d1", True),
        ("hub.local/", "hub.local", True),
        ("sb://hub.local/moorage", "hub.local/moorage/ConsumerGroups/x", True),
        ("amqps://hub.local:5671/devices", "hub.local/devices/d1", True),
        ("https://hub.local", "hub.local", True),
        ("[::1]:443", "[::1]/devices", True),
        ("hub.local/devices/d1", "hub.local/devices/d1", True),
        ("hub.local/devices/d1", "hub.local/devices/d10", False),
        ("hub.local/devices/D1", "hub.local/devices/d1", False),
        ("hub.local/devices/d1", "hub.local/devices", False),
        ("hub.localx", "hub.local", False),
        ("", "hub.local", False),
        ("/devices", "hub.local/devices", False),
        ("sb://", "hub.local", False),
    ],
)
def test_a_token_covers_what_lies_below_its_resource(resource: str, wanted: str, good: bool) -> None:
    assert covers(resource, wanted) is good


def test_paths_compare_without_case_where_asked() -> None:
    assert covers("0NE00abc/Registrations/X", "0ne00ABC/registrations/x", ignore_case=True)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Hub.Local:8443", "hub.local"),
        ("hub", "hub"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:443", "::1"),
        ("::1", "::1"),
        ("hub:", "hub"),
        ("hub:name", "hub:name"),
    ],
)
def test_host_names(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize("length", [15, 65])
def test_keys_have_16_to_64_bytes(length: int) -> None:
    for good in (16, 64):
        check_key("primaryKey", base64.b64encode(bytes(good)).decode())
    with pytest.raises(Invalid, match="primaryKey"):
        check_key("primaryKey", base64.b64encode(bytes(length)).decode())


@pytest.mark.parametrize("text", ["not base64!", "AAA", "ключ"])
def test_keys_are_base64(text: str) -> None:
    with pytest.raises(Invalid, match="base64"):
        check_key("primaryKey", text)


def test_new_keys_differ() -> None:
    assert len(base64.b64decode(new_key())) == 64
    assert new_key() != new_key()

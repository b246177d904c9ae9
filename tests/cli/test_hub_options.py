"""What the options of `moorage hub` make of a document, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from moorage.cli.device.connection_string import ConnectionString, read_connection_string
from moorage.cli.hub.authentication import (
    changed_authentication,
    connection_string,
    with_made_certificate,
)
from moorage.cli.set_values import Assignment, set_option, with_values
from moorage.credentials.x509 import read_certificate
from moorage.errors import Invalid

NAMES = ("auth_method", "primary_key", "secondary_key", "primary_thumbprint", "secondary_thumbprint")
KEYS = {"type": "sas", "symmetricKey": {"primaryKey": "AAAA", "secondaryKey": "BBBB"}}
KEY, THUMBPRINT = "c2VjcmV0", "AB" * 32


def given(**options: Any) -> dict[str, Any]:
    return {**dict.fromkeys(NAMES), **options}


@pytest.mark.parametrize(
    ("held", "options", "made"),
    [
        (None, {}, {}),
        (None, {"auth_method": "x509_ca"}, {"type": "certificateAuthority"}),
        (None, {"auth_method": "shared_private_key"}, {"type": "sas"}),
        (None, {"primary_key": KEY}, {"type": "sas", "symmetricKey": {"primaryKey": KEY}}),
        (
            None,
            {"primary_thumbprint": THUMBPRINT},
            {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": THUMBPRINT}},
        ),
        (KEYS, {}, KEYS),
        (
            KEYS,
            {"secondary_key": KEY},
            {"type": "sas", "symmetricKey": {"primaryKey": "AAAA", "secondaryKey": KEY}},
        ),
        (KEYS, {"auth_method": "shared_private_key"}, KEYS),
        (KEYS, {"auth_method": "x509_ca"}, {"type": "certificateAuthority"}),
    ],
)
def test_authentication_is_what_the_options_say(
    held: dict[str, Any] | None, options: dict[str, Any], made: dict[str, Any]
) -> None:
    assert changed_authentication(held, given(**options)) == made


@pytest.mark.parametrize(
    ("held", "options", "named"),
    [
        (KEYS, {"primary_thumbprint": THUMBPRINT}, "--primary-thumbprint"),
        (None, {"auth_method": "x509_ca", "primary_key": KEY}, "--primary-key"),
        (None, {"auth_method": "x509_thumbprint"}, "--primary-thumbprint"),
    ],
    ids=["a thumbprint beside keys", "a key beside a CA", "no thumbprint"],
)
def test_what_would_be_dropped_is_refused(
    held: dict[str, Any] | None, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(Invalid, match=named):
        changed_authentication(held, given(**options))


def test_a_certificate_is_made_on_the_spot(tmp_path: Path) -> None:
    options = given(auth_method="x509_thumbprint", valid_days=3, output_dir=tmp_path)
    made = with_made_certificate("pump-7", options)
    certificate = read_certificate((tmp_path / "pump-7.pem").read_bytes())
    assert made["primary_thumbprint"] == certificate.sha256
    assert certificate.common_name == "pump-7"
    assert (tmp_path / "pump-7.key.pem").exists()
    with pytest.raises(Invalid, match="would replace"):
        with_made_certificate(
            "pump-7", given(auth_method="x509_thumbprint", valid_days=3, output_dir=tmp_path)
        )


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (
            {"deviceId": "pump-7", "authentication": KEYS},
            "HostName=h;DeviceId=pump-7;SharedAccessKey=AAAA",
        ),
        (
            {"deviceId": "pump-7", "moduleId": "camera", "authentication": {"type": "selfSigned"}},
            "HostName=h;DeviceId=pump-7;ModuleId=camera;x509=true",
        ),
    ],
)
def test_a_connection_string_is_written_and_read(document: dict[str, Any], text: str) -> None:
    assert connection_string("h", document, "primary") == text
    read = read_connection_string(text)
    assert (read.host, read.device_id, read.module_id) == ("h", "pump-7", document.get("moduleId"))
    assert read.key == ("AAAA" if document["authentication"] is KEYS else None)


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        ("HostName=h:8443;SharedAccessKeyName=service;SharedAccessKey=AA==", "h"),
        ("HostName=h;DeviceId=d;SharedAccessKey=AA==", "h/devices/d"),
        ('"HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey=AA=="', "h/devices/d/modules/m"),
    ],
)
def test_a_token_is_for_whom_the_connection_string_names(text: str, resource: str) -> None:
    assert read_connection_string(text).resource == resource
    assert read_connection_string(text).key == "AA=="


@pytest.mark.parametrize(
    "text",
    ["", "DeviceId=d;SharedAccessKey=AA==", "HostName=h;DeviceId=d", "HostName=h;SharedAccessKey=AA=="],
    ids=["nothing", "no host", "no proof", "for nobody"],
)
def test_what_is_no_connection_string_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        read_connection_string(text)


def test_a_gateway_is_where_to_connect() -> None:
    text = "HostName=h;DeviceId=d;SharedAccessKey=AA==;GatewayHostName=g"
    assert read_connection_string(text) == ConnectionString("h", "d", key="AA==", gateway="g")


@pytest.mark.parametrize(
    ("texts", "made"),
    [
        ((), {"tags": {"site": "a"}}),
        (("tags.site=b",), {"tags": {"site": "b"}}),
        (("tags.floor=3", "tags.open=true"), {"tags": {"site": "a", "floor": 3, "open": True}}),
        (("tags.site.north=1",), {"tags": {"site": {"north": 1}}}),
        (("tags.note=a=b",), {"tags": {"site": "a", "note": "a=b"}}),
        (("tags.site=null",), {"tags": {"site": None}}),
    ],
)
def test_members_are_set_by_their_path(texts: tuple[str, ...], made: dict[str, Any]) -> None:
    document = {"tags": {"site": "a"}}
    assert with_values(document, assigned(*texts)) == made
    assert document == {"tags": {"site": "a"}}


def test_what_is_no_assignment_is_refused() -> None:
    @click.command()
    @set_option
    def command(assignments: tuple[Assignment, ...]) -> None:
        raise AssertionError(assignments)

    for text in ("tags", "=1", "tags..site=1"):
        refused = CliRunner().invoke(command, ["--set", text])
        assert refused.exit_code == 2
        assert "path=value" in refused.output


def assigned(*texts: str) -> tuple[Assignment, ...]:
    seen: list[Assignment] = []

    @click.command()
    @set_option
    def command(assignments: tuple[Assignment, ...]) -> None:
        seen.extend(assignments)

    arguments = [argument for text in texts for argument in ("--set", text)]
    assert CliRunner().invoke(command, arguments, catch_exceptions=False).exit_code == 0
    return tuple(seen)

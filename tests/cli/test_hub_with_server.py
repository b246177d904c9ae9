"""`moorage hub` as people run it, against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RunningServer
from tests.support.commands import moorage, refusal, said
from tests.support.mqtt_device import send

pytestmark = pytest.mark.clients

IDENTITY = ("hub", "device-identity")


def test_a_device_by_a_certificate_made_for_it(server: RunningServer, tmp_path: Path) -> None:
    named = ("-d", "cli-by-certificate")
    created = said(
        moorage(server, *IDENTITY, "create", *named, "--am", "x509_thumbprint", "--od", str(tmp_path))
    )
    assert created["authentication"]["type"] == "selfSigned"
    shown = moorage(server, "cert", "inspect", str(tmp_path / "cli-by-certificate.pem")).stdout
    assert created["authentication"]["x509Thumbprint"]["primaryThumbprint"] in shown
    text = said(moorage(server, *IDENTITY, "connection-string", "show", *named))["connectionString"]
    assert text == f"HostName={server.address};DeviceId=cli-by-certificate;x509=true"
    moorage(server, *IDENTITY, "delete", *named)


def test_keys_of_a_device_are_made_anew_and_exchanged(server: RunningServer) -> None:
    named = ("-d", "cli-keys")
    first = said(moorage(server, *IDENTITY, "create", *named))["authentication"]["symmetricKey"]
    swapped = said(moorage(server, *IDENTITY, "renew-key", *named, "--kt", "swap"))
    assert swapped["authentication"]["symmetricKey"] == {
        "primaryKey": first["secondaryKey"],
        "secondaryKey": first["primaryKey"],
    }
    emptied = said(moorage(server, *IDENTITY, "update", *named, "--primary-key", ""))
    assert emptied["authentication"]["symmetricKey"]["primaryKey"] not in ("", *first.values())
    assert emptied["authentication"]["symmetricKey"]["secondaryKey"] == first["primaryKey"]
    moorage(server, *IDENTITY, "delete", *named)


def test_single_members_are_set(server: RunningServer) -> None:
    named = ("-d", "cli-set")
    said(moorage(server, *IDENTITY, "create", *named))
    changed = said(
        moorage(
            server, *IDENTITY, "update", *named, "--set", "status=disabled", "--set", "statusReason=stolen"
        )
    )
    assert (changed["status"], changed["statusReason"]) == ("disabled", "stolen")
    moorage(server, *IDENTITY, "delete", *named)


def test_a_token_lets_a_device_in(server: RunningServer) -> None:
    named = ("-d", "cli-token")
    said(moorage(server, *IDENTITY, "create", *named))
    text = said(moorage(server, *IDENTITY, "connection-string", "show", *named))["connectionString"]
    for arguments in (named, (*named, "--kt", "secondary"), ("--cs", text)):
        token = said(moorage(server, "hub", "generate-sas-token", *arguments))["sas"]
        assert send(server.address, server.env["SSL_CERT_FILE"], "cli-token", token) == 0, arguments
    policy = said(moorage(server, "hub", "generate-sas-token", "--pn", "device", "--du", "60"))["sas"]
    assert "&skn=device" in policy
    assert send(server.address, server.env["SSL_CERT_FILE"], "cli-token", policy) == 0
    moorage(server, *IDENTITY, "delete", *named)


def test_a_child_needs_a_parent_that_is_an_edge_device(server: RunningServer) -> None:
    named = ("-d", "cli-leaf")
    said(moorage(server, *IDENTITY, "create", *named))
    assert "has no parent" in refusal(moorage(server, *IDENTITY, "parent", "show", *named))
    refused = refusal(moorage(server, *IDENTITY, "parent", "set", *named, "--pd", "cli-leaf"))
    assert "not an IoT Edge device" in refused
    moorage(server, *IDENTITY, "delete", *named)


def test_a_method_of_a_device_that_is_not_there(server: RunningServer) -> None:
    call = ("hub", "invoke-device-method", "-d", "cli-nobody", "--mn", "reboot", "--to", "5", "--mct", "0")
    told = refusal(moorage(server, *call))
    assert "HTTP 404" in told or "HTTP 501" in told
    assert '"Message"' not in told, "a sentence, not the error's JSON"


def test_what_is_no_json_is_refused_before_anybody_is_asked(server: RunningServer) -> None:
    done = moorage(server, "hub", "device-twin", "update", "-d", "x", "--desired", "{bad")
    assert done.returncode == 2
    assert "neither JSON nor a file of it" in done.stderr
    nothing = moorage(server, "hub", "device-twin", "update", "-d", "x")
    assert nothing.returncode == 2


# --- modules ------------------------------------------------------------------------------------------------


@pytest.fixture
def device(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "cli-" + request.node.name.replace("[", "-").rstrip("]")
    said(moorage(server, *IDENTITY, "create", "-d", name))
    yield name
    moorage(server, *IDENTITY, "delete", "-d", name)


def test_a_module_from_its_creation_to_its_end(server: RunningServer, device: str) -> None:
    module, named = ("hub", "module-identity"), ("-d", device, "-m", "camera")
    created = said(moorage(server, *module, "create", *named))
    assert (created["deviceId"], created["moduleId"]) == (device, "camera")
    assert "HTTP 409" in refusal(moorage(server, *module, "create", *named))
    keys = created["authentication"]["symmetricKey"]
    text = said(moorage(server, *module, "connection-string", "show", *named))["connectionString"]
    assert text == (
        f"HostName={server.address};DeviceId={device};ModuleId=camera;SharedAccessKey={keys['primaryKey']}"
    )
    changed = said(
        moorage(server, *module, "update", *named, "--set", "managedBy=me", "--etag", created["etag"])
    )
    assert changed["managedBy"] == "me"
    assert changed["authentication"]["symmetricKey"] == keys
    stale = moorage(server, *module, "update", *named, "--set", "managedBy=you", "--etag", created["etag"])
    assert "HTTP 412" in refusal(stale)
    listed = said(moorage(server, *module, "list", "-d", device))
    assert [each["moduleId"] for each in listed] == ["camera"]
    assert said(moorage(server, *module, "show", *named))["etag"] == changed["etag"]
    assert said(moorage(server, *module, "delete", *named)) is None
    assert "HTTP 404" in refusal(moorage(server, *module, "show", *named))


def test_keys_are_made_anew_for_many_at_once(server: RunningServer, device: str) -> None:
    def keys(*arguments: str) -> dict[str, str]:
        document = said(moorage(server, "hub", *arguments))
        found: dict[str, str] = document["authentication"]["symmetricKey"]
        return found

    module = ("module-identity", "create", "-d", device, "-m")
    of_device = keys("device-identity", "show", "-d", device)
    of_one, of_two = (keys(*module, name) for name in ("one", "two"))
    renewed = keys("device-identity", "renew-key", "-d", device, "--kt", "secondary")
    assert renewed["primaryKey"] == of_device["primaryKey"]
    assert renewed["secondaryKey"] != of_device["secondaryKey"]
    renewed = keys("module-identity", "renew-key", "-d", device, "-m", "one", "--kt", "both")
    assert not set(renewed.values()) & set(of_one.values())
    every = said(
        moorage(server, *IDENTITY, "renew-key", "-d", device, "--kt", "primary", "--include-modules")
    )
    assert [each["moduleId"] for each in every["rotatedKeys"]] == [None, "one", "two"]
    assert every["errors"] == []
    assert keys("module-identity", "show", "-d", device, "-m", "two")["primaryKey"] != of_two["primaryKey"]
    missing = moorage(server, *IDENTITY, "renew-key", "-d", "cli-nobody", "--kt", "primary")
    assert "DeviceNotFound" in refusal(missing)


def test_children_stand_below_an_edge_device(server: RunningServer, device: str) -> None:
    said(moorage(server, *IDENTITY, "create", "-d", "cli-edge", "--edge-enabled", "true"))
    said(moorage(server, *IDENTITY, "parent", "set", "-d", device, "--pd", "cli-edge"))
    assert said(moorage(server, *IDENTITY, "parent", "show", "-d", device))["deviceId"] == "cli-edge"
    again = moorage(server, *IDENTITY, "parent", "set", "-d", device, "--pd", "cli-edge")
    assert "--force" in refusal(again)
    children = (*IDENTITY, "children")
    assert said(moorage(server, *children, "remove", "-d", "cli-edge", "--cl", device)) is None
    assert "has no parent" in refusal(moorage(server, *IDENTITY, "parent", "show", "-d", device))
    stranger = moorage(server, *children, "remove", "-d", "cli-edge", "--child-list", device)
    assert "not a child of cli-edge" in refusal(stranger)
    assert said(moorage(server, *children, "add", "-d", "cli-edge", "--child-list", device)) is None
    assert said(moorage(server, *IDENTITY, "parent", "show", "-d", device))["deviceId"] == "cli-edge"
    assert said(moorage(server, *children, "list", "-d", "cli-edge")) == [device]
    assert said(moorage(server, *children, "remove", "-d", "cli-edge", "--remove-all")) is None
    assert said(moorage(server, *children, "list", "-d", "cli-edge")) == []
    edges = said(moorage(server, "hub", "device-twin", "list", "--edge-enabled"))
    assert [each["deviceId"] for each in edges] == ["cli-edge"]
    assert len(said(moorage(server, "hub", "device-twin", "list", "--top", "1"))) == 1
    moorage(server, *IDENTITY, "delete", "-d", "cli-edge")


# --- twins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noun", ["device", "module"])
def test_a_twin_is_changed_in_part_and_whole(
    server: RunningServer, device: str, noun: str, tmp_path: Path
) -> None:
    twin = ("hub", f"{noun}-twin")
    named: tuple[str, ...] = ("-d", device)
    if noun == "module":
        named += ("-m", "camera")
        said(moorage(server, "hub", "module-identity", "create", *named))
    file = tmp_path / "tags.json"
    file.write_text('{"site": "north", "floor": 3}')
    first = said(
        moorage(server, *twin, "update", *named, "--tags", str(file), "--desired", '{"interval": 5}')
    )
    assert first["tags"] == {"site": "north", "floor": 3}
    assert first["properties"]["desired"]["interval"] == 5
    second = said(moorage(server, *twin, "update", *named, "--set", "tags.floor=null", "--set", "tags.a.b=1"))
    assert second["tags"] == {"site": "north", "a": {"b": 1}}
    stale = moorage(server, *twin, "update", *named, "--set", "tags.x=1", "--etag", first["etag"])
    assert "HTTP 412" in refusal(stale)
    cleared = said(moorage(server, *twin, "update", *named, "--desired", "null"))
    assert "interval" not in cleared["properties"]["desired"]
    whole = said(moorage(server, *twin, "replace", *named, "--json", '{"tags": {"new": true}}'))
    assert whole["tags"] == {"new": True}
    assert said(moorage(server, *twin, "show", *named))["etag"] == whole["etag"]

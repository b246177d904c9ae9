"""`moorage dps|hub policy` and `connection-string` as people run them, against a real server."""

from __future__ import annotations

import pytest

from moorage.cli.listed_values import listed
from tests.conftest import RunningServer, StartServer
from tests.support.commands import moorage, refusal, said

pytestmark = pytest.mark.clients


@pytest.mark.parametrize(
    ("service", "option", "rights", "other"),
    [
        ("dps", "--rights", ["EnrollmentRead", "RegistrationStatusRead"], "EnrollmentWrite"),
        ("hub", "--permissions", ["RegistryRead", "ServiceConnect"], "RegistryWrite"),
    ],
)
def test_a_policy_from_its_creation_to_its_end(
    server: RunningServer, service: str, option: str, rights: list[str], other: str
) -> None:
    noun, name = (service, "policy"), "by-hand"
    made = said(moorage(server, *noun, "create", "--policy-name", name, option, *rights))
    assert (made["keyName"], made["rights"]) == (name, rights)
    assert said(moorage(server, *noun, "show", "--pn", name)) == made
    assert name in [each["keyName"] for each in said(moorage(server, *noun, "list"))]
    changed = said(moorage(server, *noun, "update", "-n", name, option, other, "--etag", made["etag"]))
    assert changed == made | {"rights": [other], "etag": changed["etag"]}
    assert "HTTP 412" in refusal(moorage(server, *noun, "delete", "-n", name, "--etag", made["etag"]))
    swapped = said(moorage(server, *noun, "renew-key", "-n", name, "--renew-key", "swap"))
    assert (swapped["primaryKey"], swapped["secondaryKey"]) == (made["secondaryKey"], made["primaryKey"])

    shown = said(moorage(server, service, "connection-string", "show", "--pn", name, "--kt", "secondary"))
    assert f"SharedAccessKeyName={name};SharedAccessKey={made['primaryKey']}" in shown["connectionString"]
    assert moorage(server, *noun, "delete", "-n", name).returncode == 0
    assert "HTTP 404" in refusal(moorage(server, *noun, "show", "-n", name))


def test_a_right_that_is_none_is_told(server: RunningServer) -> None:
    said_why = refusal(moorage(server, "hub", "policy", "create", "-n", "x", "--permissions", "Fly"))
    assert "rights: 'Fly' is not one of DeviceConnect, RegistryRead" in said_why


def test_connection_strings_are_those_of_the_environment(server: RunningServer) -> None:
    for options, variable in (
        (("dps", "connection-string", "show"), "PROVISIONING_SERVICE_CONNECTION_STRING"),
        (("hub", "connection-string", "show"), "IOTHUB_CONNECTION_STRING"),
        (("hub", "connection-string", "show", "--default-eventhub"), "EVENTHUB_CONNECTION_STRING"),
    ):
        assert said(moorage(server, *options)) == {"connectionString": server.env[variable]}
    every = said(moorage(server, "hub", "connection-string", "show", "--all"))
    assert {"connectionString": server.env["IOTHUB_CONNECTION_STRING"]} in every
    assert len(every) >= 5


def test_settings_of_a_hub_are_kept(start_server: StartServer) -> None:
    server = start_server()
    named = ("--name", said(moorage(server, "hub", "list"))[0]["name"])
    hub = said(moorage(server, "hub", "show", *named))
    options = ("--c2d-max-delivery-count", "3", "--c2d-ttl", "2", "--feedback-lock-duration", "30")
    feedback = ("--feedback-max-delivery-count", "5", "--feedback-ttl", "PT90M", "--disable-module-sas")
    changed = said(moorage(server, "hub", "update", *named, *options, *feedback, "--etag", hub["etag"]))
    assert changed["cloudToDevice"] == {
        "defaultTtlAsIso8601": "PT2H",
        "maxDeliveryCount": 3,
        "feedback": {
            "lockDurationAsIso8601": "PT30S",
            "ttlAsIso8601": "PT1H30M",
            "maxDeliveryCount": 5,
        },
    }
    assert (changed["disableDeviceSAS"], changed["disableModuleSAS"]) == (False, True)
    assert "HTTP 412" in refusal(moorage(server, "hub", "update", *named, "--etag", hub["etag"]))
    assert "from 1 to 100" in refusal(moorage(server, "hub", "update", *named, "--cdd", "0"))
    server.kill()
    server = start_server(data=server.data, address=server.address)
    assert said(moorage(server, "hub", "show", *named)) == changed
    switched = said(moorage(server, "hub", "update", *named, "--dds", "--dms", "false"))
    assert (switched["disableDeviceSAS"], switched["disableModuleSAS"]) == (True, False)
    assert switched["cloudToDevice"] == changed["cloudToDevice"]


def test_commands_go_on_after_the_owners_key_was_made_anew(start_server: StartServer) -> None:
    """They find it where the server tells this user's processes of itself."""
    server = start_server("--in-memory")
    for service in ("dps", "hub"):
        owner = {"dps": "provisioningserviceowner", "hub": "iothubowner"}[service]
        renewed = said(moorage(server, service, "policy", "renew-key", "-n", owner, "--rk", "primary"))
        assert said(moorage(server, service, "policy", "show", "-n", owner)) == renewed
    environment = said(moorage(server, "env", "--format", "json"))
    assert renewed["primaryKey"] in environment["IOTHUB_CONNECTION_STRING"]
    assert renewed["primaryKey"] in environment["EVENTHUB_CONNECTION_STRING"]
    trusting = {"SSL_CERT_FILE": server.env["SSL_CERT_FILE"]}
    old = ("--login", server.env["IOTHUB_CONNECTION_STRING"])
    assert "HTTP 401" in refusal(moorage(server, "hub", "policy", "list", *old, env=trusting))


def test_values_apart_by_commas_are_the_same_as_by_spaces() -> None:
    assert listed(["A, B", "C D", "E"]) == ["A", "B", "C", "D", "E"]


def test_the_service_and_its_default_allocation_policy(start_server: StartServer) -> None:
    server = start_server("--in-memory")
    shown = said(moorage(server, "dps", "show"))
    assert shown["idScope"] == server.env["PROVISIONING_IDSCOPE"]
    assert shown["deviceProvisioningHostName"] == server.env["PROVISIONING_HOST"]
    assert shown["allocationPolicy"] == "hashed"
    etag = shown["etag"]
    changed = said(moorage(server, "dps", "update", "--allocation-policy", "static", "--etag", etag))
    assert changed["allocationPolicy"] == "static"
    assert "HTTP 412" in refusal(moorage(server, "dps", "update", "--ap", "hashed", "--etag", etag))
    as_azure = ("--set", "properties.allocationPolicy=GeoLatency")
    assert said(moorage(server, "dps", "update", *as_azure))["allocationPolicy"] == "geoLatency"
    assert "allocationPolicy: is one of hashed" in refusal(
        moorage(server, "dps", "update", "--set", "properties.allocationPolicy=Custom")
    )


def test_what_was_made_is_there_after_a_restart(start_server: StartServer) -> None:
    server = start_server()
    policy = said(
        moorage(server, "hub", "policy", "create", "-n", "reader", "--permissions", "ServiceConnect")
    )
    said(moorage(server, "hub", "consumer-group", "create", "-n", "analytics"))
    service = said(moorage(server, "dps", "update", "--allocation-policy", "static"))
    server.stop()
    server = start_server(data=server.data, address=server.address)
    assert said(moorage(server, "hub", "policy", "show", "-n", "reader")) == policy
    assert {"name": "analytics"} in said(moorage(server, "hub", "consumer-group", "list"))
    assert said(moorage(server, "dps", "show")) == service


def test_each_hub_has_policies_and_consumer_groups_of_its_own(start_server: StartServer) -> None:
    server = start_server("--in-memory")
    said(moorage(server, "hub", "create", "-n", "beta"))
    of_beta = ("--hub-name", "beta")
    said(moorage(server, "hub", "consumer-group", "create", "-n", "analytics", *of_beta))
    said(
        moorage(server, "hub", "policy", "create", "-n", "mine", "--permissions", "ServiceConnect", *of_beta)
    )
    assert {"name": "analytics"} in said(moorage(server, "hub", "consumer-group", "list", *of_beta))
    assert said(moorage(server, "hub", "consumer-group", "list")) == [{"name": "$Default"}]
    assert "HTTP 404" in refusal(moorage(server, "hub", "policy", "show", "-n", "mine"))
    assert said(moorage(server, "hub", "policy", "show", "-n", "mine", *of_beta))["keyName"] == "mine"

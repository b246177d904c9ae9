"""What an operator may decide of an enrollment, individual or group: the options, and the JSON they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

from moorage.cli.json_values import json_object
from moorage.cli.rest import DPS_API_VERSION, Service
from moorage.cli.target import DPS_VARIABLES, find_login
from moorage.credentials.x509 import Certificate, explain_missing_name, read_certificate
from moorage.errors import Invalid

F = TypeVar("F")

REPROVISION = {
    "reprovisionandmigratedata": {"updateHubAssignment": True, "migrateDeviceData": True},
    "reprovisionandresetdata": {"updateHubAssignment": True, "migrateDeviceData": False},
    "never": {"updateHubAssignment": False, "migrateDeviceData": False},
}

etag_option = click.option("--etag", "-e", help="Only this version of it.")
top_option = click.option("--top", type=click.IntRange(min=1), help="How many at the most.")
show_keys_option = click.option("--show-keys", "--keys", is_flag=True, help="Include the symmetric keys.")


def dps_service(login: str | None, data: Path | None) -> Service:
    return Service(find_login(login, data, DPS_VARIABLES), DPS_API_VERSION)


def terms_options(function: F) -> F:
    """What the device gets, on create and on update."""
    return _all(
        function,
        click.option("--iot-hubs", "--ih", help="Host names of linked hubs, separated by spaces."),
        click.option(
            "--allocation-policy",
            "--ap",
            type=click.Choice(["static", "hashed", "geoLatency", "custom"], case_sensitive=False),
            help="How one of the hubs is chosen; without it the service's policy.",
        ),
        click.option("--webhook-url", "--wh", help="Who is asked for the hub, with the policy custom."),
        click.option(
            "--api-version",
            "--av",
            default="2021-10-01",
            show_default=True,
            help="Version of what the webhook is sent.",
        ),
        click.option("--initial-twin-tags", "--tags", type=json_object, help="Tags, JSON or a file of it."),
        click.option(
            "--initial-twin-properties",
            "--props",
            type=json_object,
            help="Desired properties, JSON or a file of it.",
        ),
        click.option(
            "--provisioning-status",
            "--ps",
            type=click.Choice(["enabled", "disabled"], case_sensitive=False),
        ),
        click.option(
            "--reprovision-policy", "--rp", type=click.Choice(list(REPROVISION), case_sensitive=False)
        ),
        click.option("--edge-enabled", "--ee", type=bool, help="Whether it is an IoT Edge device."),
        click.option(
            "--credential-policy-name",
            "--cpn",
            help="By which a certificate is issued to who registers with a csr; empty for none.",
        ),
    )


def key_options(function: F) -> F:
    return _all(
        function,
        click.option("--primary-key", "--pk", help="Symmetric key, base64; without it one is made."),
        click.option("--secondary-key", "--sk", help="The other one."),
    )


def certificate_options(function: F) -> F:
    return _all(
        function,
        click.option("--certificate-path", "--cp", type=click.File("rb"), help="Certificate, PEM or DER."),
        click.option("--secondary-certificate-path", "--scp", type=click.File("rb"), help="A second one."),
    )


def tpm_options(function: F) -> F:
    return _all(
        function,
        click.option("--endorsement-key", "--ek", help="Of the device's TPM, base64 of its TPM2B_PUBLIC."),
        click.option(
            "--storage-root-key",
            "--srk",
            help="Of the same TPM; without it, or empty, the next registration tells it.",
        ),
    )


def ca_options(function: F) -> F:
    return _all(
        function,
        click.option("--ca-name", "--cn", help="Name of an uploaded CA certificate that signs the devices'."),
        click.option("--secondary-ca-name", "--scn", help="A second one."),
    )


def remove_certificate_options(function: F) -> F:
    return _all(
        function,
        click.option("--remove-certificate", "--rc", is_flag=True, help="Drop the primary certificate."),
        click.option(
            "--remove-secondary-certificate", "--rsc", is_flag=True, help="Drop the secondary certificate."
        ),
    )


def _all(function: F, *options: Any) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def terms(given: Mapping[str, Any], twin: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The members of an enrollment that the options name. `twin` is the initial twin that there was."""
    hubs = given["iot_hubs"].replace(",", " ").split() if given["iot_hubs"] else None
    policy = given["allocation_policy"]
    if policy is None and given["webhook_url"]:
        policy = "custom"
    if policy is None and hubs and len(hubs) == 1:
        policy = "static"
    members: dict[str, Any] = {
        "iotHubs": hubs,
        "allocationPolicy": policy,
        "provisioningStatus": given["provisioning_status"],
        "credentialPolicyName": given["credential_policy_name"],
    }
    if given["webhook_url"]:
        members["customAllocationDefinition"] = {
            "webhookUrl": given["webhook_url"],
            "apiVersion": given["api_version"],
        }
    if given["reprovision_policy"]:
        members["reprovisionPolicy"] = REPROVISION[given["reprovision_policy"]]
    if given["edge_enabled"] is not None:
        members["capabilities"] = {"iotEdge": given["edge_enabled"]}
    tags, desired = given["initial_twin_tags"], given["initial_twin_properties"]
    if tags is not None or desired is not None:
        before = twin or {}
        members["initialTwin"] = {
            "tags": tags if tags is not None else before.get("tags"),
            "properties": {"desired": desired} if desired is not None else before.get("properties"),
        }
    return {name: value for name, value in members.items() if value is not None}


def certificates(given: Mapping[str, Any]) -> tuple[Certificate | None, Certificate | None]:
    """Primary and secondary. Raises Invalid, the file named."""
    return _certificate(given["certificate_path"]), _certificate(given["secondary_certificate_path"])


def pems(primary: Certificate | None, secondary: Certificate | None) -> dict[str, Any]:
    named = {"primary": primary, "secondary": secondary}
    return {name: {"certificate": found.to_pem()} for name, found in named.items() if found is not None}


def x509(
    given: Mapping[str, Any], slot: str, held: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]] | None:
    """The `x509` member: certificates under `slot`, or CA certificates by name; None when none are given.

    What there was is `held`: it stays where nothing takes its place, unless the other form is given instead.
    """
    found = certificates(given)
    if slot == "clientCertificates":
        _check_named(given, found)
    certificates_given = pems(*found)
    named = {"primary": given["ca_name"], "secondary": given["secondary_ca_name"]}
    names = {place: name for place, name in named.items() if name}
    if certificates_given and names:
        raise Invalid("--ca-name", "give CA certificates by name or certificates as files, not both")
    before = {} if held is None else {form: pair for form, pair in held.items() if pair}
    form = slot if certificates_given else "caReferences" if names else next(iter(before), slot)
    pair = dict(before.get(form, {}))
    if given.get("remove_certificate"):
        pair["primary"] = None
    if given.get("remove_secondary_certificate"):
        pair["secondary"] = None
    pair |= certificates_given or names
    return {form: pair} if pair else None


def _check_named(given: Mapping[str, Any], found: Sequence[Certificate | None]) -> None:
    """A device's certificate without a common name would be refused at every registration. Raises Invalid."""
    places = ("certificate_path", "secondary_certificate_path")
    for place, certificate in zip(places, found, strict=True):
        if certificate is not None and certificate.common_name is None:
            raise Invalid(
                given[place].name, f"it has no common name. {explain_missing_name(certificate.subject)}"
            )


def keys(given: Mapping[str, Any]) -> dict[str, str]:
    """The `symmetricKey` member: the keys that were given."""
    named = {"primaryKey": given["primary_key"], "secondaryKey": given["secondary_key"]}
    return {name: key for name, key in named.items() if key}


def tpm_keys(given: Mapping[str, Any]) -> dict[str, str]:
    """The `tpm` member: the keys that were given. An empty one is to be forgotten."""
    named = {"endorsementKey": given["endorsement_key"], "storageRootKey": given["storage_root_key"]}
    return {name: key for name, key in named.items() if key is not None}


def changed_attestation(held: dict[str, Any], given: Mapping[str, Any], slot: str) -> dict[str, Any]:
    """An enrollment's attestation as it is after an update; `slot` names its certificates in `x509`.

    What comes back without its secret is kept by the service: certificates by their `info`, keys by being absent.
    """
    if held["type"] == "symmetricKey":
        return {"type": "symmetricKey", "symmetricKey": keys(given)}
    if held["type"] == "x509":
        return {"type": "x509", "x509": x509(given, slot, held.get("x509"))}
    if held["type"] == "tpm":
        return {**held, "tpm": {**held["tpm"], **tpm_keys(given)}}
    return held


def with_keys(service: Service, path: str, document: dict[str, Any]) -> dict[str, Any]:
    """The document with its attestation as its own request shows it, keys included."""
    mechanism, _ = service.call("POST", f"{path}/attestationmechanism")
    return {**document, "attestation": mechanism}


def _certificate(file: BinaryIO | None) -> Certificate | None:
    if file is None:
        return None
    try:
        return read_certificate(file.read())
    except Invalid as error:
        raise Invalid(file.name, error.why) from None

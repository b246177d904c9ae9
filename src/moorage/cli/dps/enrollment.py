"""`moorage dps enrollment`: individual enrollments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import click

from moorage.cli.output import output_option, show
from moorage.cli.rest import DPS_API_VERSION, Service
from moorage.cli.target import DPS_VARIABLES, find_login, login_options
from moorage.credentials.x509 import Certificate, read_certificate
from moorage.errors import Invalid

COLUMNS = {
    "REGISTRATION ID": "registrationId",
    "ATTESTATION": "attestation.type",
    "STATUS": "provisioningStatus",
    "DEVICE ID": "deviceId",
    "HUBS": "iotHubs",
    "REGISTRATION": "registrationState.status",
}
REPROVISION = {
    "reprovisionandmigratedata": {"updateHubAssignment": True, "migrateDeviceData": True},
    "reprovisionandresetdata": {"updateHubAssignment": True, "migrateDeviceData": False},
    "never": {"updateHubAssignment": False, "migrateDeviceData": False},
}

enrollment_id_option = click.option(
    "--enrollment-id", "--eid", required=True, help="Registration id of the device."
)


def json_or_file(text: str) -> Any:
    """JSON, as it stands or in a file."""
    try:
        return json.loads(text if text.lstrip().startswith("{") else Path(text).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(
            f"{text[:100]!r} is neither a JSON object nor a file of it: {error}"
        ) from None


def settings_options(function: Any) -> Any:
    """What an operator may decide of an enrollment, on create and on update."""
    for option in reversed(
        (
            click.option(
                "--certificate-path", "--cp", type=click.File("rb"), help="Device certificate, PEM or DER."
            ),
            click.option(
                "--secondary-certificate-path", "--scp", type=click.File("rb"), help="A second one."
            ),
            click.option("--device-id", help="Name in the hub; without it the registration id."),
            click.option("--iot-hubs", help="Host names of linked hubs, separated by spaces."),
            click.option(
                "--allocation-policy",
                "--ap",
                type=click.Choice(["static", "hashed", "geoLatency"], case_sensitive=False),
                help="How one of the hubs is chosen; without it the service's policy.",
            ),
            click.option(
                "--initial-twin-tags", "--tags", type=json_or_file, help="Tags, JSON or a file of it."
            ),
            click.option(
                "--initial-twin-properties",
                "--props",
                type=json_or_file,
                help="Desired properties, JSON or a file of it.",
            ),
            click.option(
                "--device-information", "--info", type=json_or_file, help="Kept with the enrollment, JSON."
            ),
            click.option(
                "--provisioning-status",
                "--ps",
                type=click.Choice(["enabled", "disabled"], case_sensitive=False),
            ),
            click.option(
                "--reprovision-policy", "--rp", type=click.Choice(list(REPROVISION), case_sensitive=False)
            ),
            click.option(
                "--edge-enabled", "--ee", type=bool, help="Whether the device is an IoT Edge device."
            ),
        )
    ):
        function = option(function)
    return function


@click.group()
def enrollment() -> None:
    """Individual enrollments: devices that are allowed to register."""


@enrollment.command()
@click.option("--enrollment-id", "--eid", help="Registration id; without it the certificate's common name.")
@click.option(
    "--attestation-type",
    "--at",
    required=True,
    type=click.Choice(["x509", "symmetricKey", "tpm"], case_sensitive=False),
)
@settings_options
@output_option
@login_options
def create(
    enrollment_id: str | None,
    attestation_type: str,
    output: str,
    login: str | None,
    data: Path | None,
    **settings: Any,
) -> None:
    """Let one device register."""
    certificates = {place: settings[place] for place in ("certificate_path", "secondary_certificate_path")}
    if attestation_type == "x509" and not any(certificates.values()):
        raise Invalid("--certificate-path", "an x509 enrollment takes the device's certificate")
    document: dict[str, Any] = {"attestation": {"type": attestation_type}}
    if attestation_type == "x509":
        primary, secondary = (_certificate(file) for file in certificates.values())
        document["attestation"]["x509"] = {"clientCertificates": _pems(primary, secondary)}
        enrollment_id = enrollment_id or _common_name(primary or secondary)
    if not enrollment_id:
        raise Invalid("--enrollment-id", f"give the registration id of the {attestation_type} enrollment")
    document["registrationId"] = enrollment_id
    document |= _settings(settings)
    show(_service(login, data).put(_path(enrollment_id), document), output, COLUMNS)


@enrollment.command("list")
@click.option("--top", type=click.IntRange(min=1), help="How many at the most.")
@output_option
@login_options
def list_(top: int | None, output: str, login: str | None, data: Path | None) -> None:
    """All individual enrollments."""
    query = {"query": "SELECT * FROM enrollments"}
    show(list(_service(login, data).pages("/enrollments/query", query, top=top)), output, COLUMNS)


@enrollment.command("show")
@enrollment_id_option
@output_option
@login_options
def show_(enrollment_id: str, output: str, login: str | None, data: Path | None) -> None:
    """One individual enrollment, with the state of its registration."""
    show(_service(login, data).get(_path(enrollment_id)), output, COLUMNS)


@enrollment.command()
@enrollment_id_option
@settings_options
@click.option("--remove-certificate", "--rc", is_flag=True, help="Drop the primary certificate.")
@click.option("--remove-secondary-certificate", "--rsc", is_flag=True, help="Drop the secondary certificate.")
@click.option("--etag", "-e", help="Change only this version.")
@output_option
@login_options
def update(
    enrollment_id: str,
    remove_certificate: bool,
    remove_secondary_certificate: bool,
    etag: str | None,
    output: str,
    login: str | None,
    data: Path | None,
    **settings: Any,
) -> None:
    """Change an individual enrollment; what is not named stays."""
    service = _service(login, data)
    document = service.get(_path(enrollment_id))
    primary, secondary = (
        _certificate(settings[place]) for place in ("certificate_path", "secondary_certificate_path")
    )
    held = ((document["attestation"].get("x509") or {}).get("clientCertificates")) or {}
    held |= _pems(primary, secondary)
    if remove_certificate:
        held["primary"] = None
    if remove_secondary_certificate:
        held["secondary"] = None
    if document["attestation"]["type"] == "x509":
        document["attestation"]["x509"] = {"clientCertificates": held}
    twin = document.get("initialTwin") or {}
    changed = _settings(settings, twin)
    show(service.put(_path(enrollment_id), document | changed, if_match=etag or "*"), output, COLUMNS)


@enrollment.command()
@enrollment_id_option
@click.option("--etag", "-e", help="Delete only this version.")
@login_options
def delete(enrollment_id: str, etag: str | None, login: str | None, data: Path | None) -> None:
    """Delete an individual enrollment. The device keeps its identity in the hub until that is deleted too."""
    _service(login, data).delete(_path(enrollment_id), if_match=etag or "*")


def _service(login: str | None, data: Path | None) -> Service:
    return Service(find_login(login, data, DPS_VARIABLES), DPS_API_VERSION)


def _path(enrollment_id: str) -> str:
    return f"/enrollments/{quote(enrollment_id, safe='')}"


def _certificate(file: BinaryIO | None) -> Certificate | None:
    """Raises Invalid, the file named, when it holds no certificate."""
    if file is None:
        return None
    try:
        return read_certificate(file.read())
    except Invalid as error:
        raise Invalid(file.name, error.why) from None


def _pems(primary: Certificate | None, secondary: Certificate | None) -> dict[str, Any]:
    named = {"primary": primary, "secondary": secondary}
    return {name: {"certificate": found.to_pem()} for name, found in named.items() if found is not None}


def _common_name(certificate: Certificate | None) -> str:
    name = certificate.common_name if certificate is not None else None
    if not name:
        raise Invalid("--enrollment-id", "the certificate has no common name; give the registration id")
    return name


def _settings(given: dict[str, Any], twin: dict[str, Any] | None = None) -> dict[str, Any]:
    """The members of an enrollment that the options name."""
    hubs = given["iot_hubs"].replace(",", " ").split() if given["iot_hubs"] else None
    allocation = given["allocation_policy"] or ("static" if hubs and len(hubs) == 1 else None)
    members: dict[str, Any] = {
        "deviceId": given["device_id"],
        "iotHubs": hubs,
        "allocationPolicy": allocation,
        "optionalDeviceInformation": given["device_information"],
        "provisioningStatus": given["provisioning_status"],
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

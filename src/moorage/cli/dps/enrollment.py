"""`moorage dps enrollment`: individual enrollments."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from moorage.cli.dps.settings import (
    certificate_options,
    certificates,
    changed_attestation,
    dps_service,
    etag_option,
    json_or_file,
    key_options,
    keys,
    pems,
    remove_certificate_options,
    show_keys_option,
    terms,
    terms_options,
    top_option,
    tpm_keys,
    tpm_options,
    with_keys,
)
from moorage.cli.output import output_option, show
from moorage.cli.target import login_options
from moorage.credentials.tpm import default_registration_id, read_storage_key
from moorage.credentials.x509 import Certificate
from moorage.errors import Invalid

COLUMNS = {
    "REGISTRATION ID": "registrationId",
    "ATTESTATION": "attestation.type",
    "STATUS": "provisioningStatus",
    "DEVICE ID": "deviceId",
    "HUBS": "iotHubs",
    "REGISTRATION": "registrationState.status",
}

enrollment_id_option = click.option(
    "--enrollment-id", "--eid", required=True, help="Registration id of the device."
)
device_id_option = click.option("--device-id", help="Name in the hub; without it the registration id.")
information_option = click.option(
    "--device-information", "--info", type=json_or_file, help="Kept with the enrollment, JSON."
)


@click.group()
def enrollment() -> None:
    """Individual enrollments: devices that are allowed to register."""


@enrollment.command()
@click.option(
    "--enrollment-id",
    "--eid",
    help="Registration id; without it the certificate's common name, or what clients make of an endorsement key.",
)
@click.option(
    "--attestation-type",
    "--at",
    required=True,
    type=click.Choice(["x509", "symmetricKey", "tpm"], case_sensitive=False),
)
@certificate_options
@key_options
@tpm_options
@device_id_option
@terms_options
@information_option
@output_option
@login_options
def create(
    enrollment_id: str | None,
    attestation_type: str,
    output: str,
    login: str | None,
    data: Path | None,
    **given: Any,
) -> None:
    """Let one device register."""
    primary, secondary = certificates(given)
    attestation: dict[str, Any] = {"type": attestation_type}
    if attestation_type == "x509":
        if primary is None and secondary is None:
            raise Invalid("--certificate-path", "an x509 enrollment takes the device's certificate")
        attestation["x509"] = {"clientCertificates": pems(primary, secondary)}
        enrollment_id = enrollment_id or _common_name(primary or secondary)
    elif attestation_type == "symmetricKey":
        attestation["symmetricKey"] = keys(given)
    else:
        attestation["tpm"] = tpm_keys(given)
        enrollment_id = enrollment_id or _tpm_name(given["endorsement_key"])
    if not enrollment_id:
        raise Invalid("--enrollment-id", f"give the registration id of the {attestation_type} enrollment")
    document = {"registrationId": enrollment_id, "attestation": attestation, **_own(given), **terms(given)}
    show(dps_service(login, data).put(_path(enrollment_id), document), output, COLUMNS)


@enrollment.command("list")
@top_option
@output_option
@login_options
def list_(top: int | None, output: str, login: str | None, data: Path | None) -> None:
    """All individual enrollments."""
    query = {"query": "SELECT * FROM enrollments"}
    show(list(dps_service(login, data).pages("/enrollments/query", query, top=top)), output, COLUMNS)


@enrollment.command("show")
@enrollment_id_option
@show_keys_option
@output_option
@login_options
def show_(enrollment_id: str, show_keys: bool, output: str, login: str | None, data: Path | None) -> None:
    """One individual enrollment, with the state of its registration."""
    service, path = dps_service(login, data), _path(enrollment_id)
    document = service.get(path)
    show(with_keys(service, path, document) if show_keys else document, output, COLUMNS)


@enrollment.command()
@enrollment_id_option
@certificate_options
@remove_certificate_options
@key_options
@tpm_options
@device_id_option
@terms_options
@information_option
@etag_option
@output_option
@login_options
def update(
    enrollment_id: str, etag: str | None, output: str, login: str | None, data: Path | None, **given: Any
) -> None:
    """Change an individual enrollment; what is not named stays."""
    service, path = dps_service(login, data), _path(enrollment_id)
    document = service.get(path)
    changed = {
        "attestation": changed_attestation(document["attestation"], given, "clientCertificates"),
        **_own(given),
        **terms(given, document.get("initialTwin")),
    }
    show(service.put(path, document | changed, if_match=etag or "*"), output, COLUMNS)


@enrollment.command()
@enrollment_id_option
@etag_option
@login_options
def delete(enrollment_id: str, etag: str | None, login: str | None, data: Path | None) -> None:
    """Delete an individual enrollment. The device keeps its identity in the hub until that is deleted too."""
    dps_service(login, data).delete(_path(enrollment_id), if_match=etag or "*")


def _path(enrollment_id: str) -> str:
    return f"/enrollments/{quote(enrollment_id, safe='')}"


def _common_name(certificate: Certificate | None) -> str:
    name = certificate.common_name if certificate is not None else None
    if not name:
        raise Invalid("--enrollment-id", "the certificate has no common name; give the registration id")
    return name


def _tpm_name(endorsement_key: str | None) -> str:
    """The registration id that Azure's clients make of the key [dps 12]. Raises Invalid."""
    if not endorsement_key:
        raise Invalid("--endorsement-key", "a tpm enrollment takes that of the device's TPM")
    return default_registration_id(read_storage_key("--endorsement-key", endorsement_key))


def _own(given: dict[str, Any]) -> dict[str, Any]:
    """The members that only an individual enrollment has."""
    members = {"deviceId": given["device_id"], "optionalDeviceInformation": given["device_information"]}
    return {name: value for name, value in members.items() if value is not None}

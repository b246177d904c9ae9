"""`moorage dps enrollment`: individual enrollments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

import click

from moorage.cli.dps.settings import (
    ca_options,
    certificate_options,
    changed_attestation,
    dps_service,
    etag_option,
    key_options,
    keys,
    remove_certificate_options,
    show_keys_option,
    terms,
    terms_options,
    top_option,
    tpm_keys,
    tpm_options,
    with_keys,
    x509,
)
from moorage.cli.json_values import json_object
from moorage.cli.output import output_option, show
from moorage.cli.rest import Service
from moorage.cli.target import login_options
from moorage.credentials.tpm import default_registration_id, read_storage_key
from moorage.credentials.x509 import read_certificate
from moorage.errors import Invalid

COLUMNS = {
    "REGISTRATION ID": "registrationId",
    "ATTESTATION": "attestation.type",
    "STATUS": "provisioningStatus",
    "DEVICE ID": "deviceId",
    "HUBS": "iotHubs",
    "REGISTRATION": "registrationState.status",
}

# One request of an import, one commit: a body has at most 1 MiB.
IMPORT_ROWS, IMPORT_SIZE = 1000, 500_000

enrollment_id_option = click.option(
    "--enrollment-id", "--eid", required=True, help="Registration id of the device."
)
device_id_option = click.option("--device-id", help="Name in the hub; without it the registration id.")
information_option = click.option(
    "--device-information", "--info", type=json_object, help="Kept with the enrollment, JSON."
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
@ca_options
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
    attestation: dict[str, Any] = {"type": attestation_type}
    if attestation_type == "x509":
        proof = x509(given, "clientCertificates")
        if proof is None:
            raise Invalid(
                "--certificate-path", "an x509 enrollment takes the device's certificate, or --ca-name"
            )
        attestation["x509"] = proof
        enrollment_id = enrollment_id or _common_name(proof.get("clientCertificates", {}))
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
@ca_options
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


@enrollment.command("export")
@click.argument("file", type=click.File("w", encoding="utf-8", lazy=True))
@login_options
def export(file: TextIO, login: str | None, data: Path | None) -> None:
    """Write all individual enrollments to FILE, a JSON object a line, keys and certificates included.

    `-` is standard output. What is written can be read by `import`, here or elsewhere. Keep it as you keep keys.
    """
    service, after, count = dps_service(login, data), None, 0
    while True:
        page = service.get("/moorage/v1/enrollments", **({"after": after} if after else {}))
        for row in page["enrollments"]:
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
        count += len(page["enrollments"])
        if (after := page["next"]) is None:
            break
    click.echo(f"{count:,} enrollments written", err=True)


@enrollment.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@login_options
@click.pass_context
def import_(context: click.Context, file: TextIO, login: str | None, data: Path | None) -> None:
    """Create or replace the individual enrollments in FILE, a JSON object a line; `-` is standard input.

    A line that cannot be taken is told with its number, and does not keep out the others; the exit code is then 1.
    """
    service, taken, refused = dps_service(login, data), 0, 0
    for lines in _batches(file):
        errors = _take_in(service, lines)
        for number, why in errors:
            click.echo(f"{file.name}:{number}: {why}", err=True)
        refused += len(errors)
        taken += len(lines) - len(errors)
    click.echo(f"{taken:,} enrollments taken in" + (f", {refused:,} refused" if refused else ""), err=True)
    if refused:
        context.exit(1)


def _batches(file: Iterable[str]) -> Iterator[list[tuple[int, str]]]:
    """Numbered lines that are not blank, as many at once as one request takes."""
    lines: list[tuple[int, str]] = []
    size = 0
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        if lines and (size + len(line) > IMPORT_SIZE or len(lines) == IMPORT_ROWS):
            yield lines
            lines, size = [], 0
        lines.append((number, line))
        size += len(line)
    if lines:
        yield lines


def _take_in(service: Service, lines: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Which lines could not be taken in, and why."""
    refused: list[tuple[int, str]] = []
    rows: dict[str, tuple[int, Any]] = {}
    for number, line in lines:
        try:
            row = json.loads(line)
        except ValueError as error:
            refused.append((number, f"it is not JSON: {error}"))
            continue
        name = row.get("registrationId") if isinstance(row, dict) else None
        if not isinstance(name, str):
            refused.append((number, "it is not an object with a registrationId"))
        elif name.lower() in rows:
            refused.append((number, f"{name} stands on line {rows[name.lower()][0]} already"))
        else:
            rows[name.lower()] = number, row
    body = {"enrollments": [row for _, row in rows.values()]}
    answer, _ = service.call("POST", "/moorage/v1/enrollments", body)
    refused += [(rows[error["registrationId"].lower()][0], error["message"]) for error in answer["errors"]]
    return sorted(refused)


def _path(enrollment_id: str) -> str:
    return f"/enrollments/{quote(enrollment_id, safe='')}"


def _common_name(certificates: Mapping[str, Any]) -> str:
    """That of the first certificate given; CA certificates by name have none to tell."""
    for slot in certificates.values():
        if name := read_certificate(slot["certificate"]).common_name:
            return name
    raise Invalid("--enrollment-id", "no certificate with a common name was given; give the registration id")


def _tpm_name(endorsement_key: str | None) -> str:
    """The registration id that Azure's clients make of the key [dps 12]. Raises Invalid."""
    if not endorsement_key:
        raise Invalid("--endorsement-key", "a tpm enrollment takes that of the device's TPM")
    return default_registration_id(read_storage_key("--endorsement-key", endorsement_key))


def _own(given: dict[str, Any]) -> dict[str, Any]:
    """The members that only an individual enrollment has."""
    members = {"deviceId": given["device_id"], "optionalDeviceInformation": given["device_information"]}
    return {name: value for name, value in members.items() if value is not None}

"""`moorage dps enrollment-group`: many devices under one key or one issuer."""

from __future__ import annotations

from pathlib import Path
from typing import Any
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
    with_keys,
    x509,
)
from moorage.cli.output import output_option, show
from moorage.cli.target import login_options

COLUMNS = {
    "GROUP ID": "enrollmentGroupId",
    "ATTESTATION": "attestation.type",
    "STATUS": "provisioningStatus",
    "HUBS": "iotHubs",
    "POLICY": "allocationPolicy",
}

group_id_option = click.option("--enrollment-id", "--eid", "--group-id", "--gid", required=True, help="Id.")


@click.group()
def enrollment_group() -> None:
    """Enrollment groups: many devices under one key or one issuer."""


@enrollment_group.command()
@group_id_option
@certificate_options
@ca_options
@key_options
@terms_options
@output_option
@login_options
def create(enrollment_id: str, output: str, login: str | None, data: Path | None, **given: Any) -> None:
    """Let all devices register that a certificate signed, or whose keys are derived from the group's."""
    document = {"enrollmentGroupId": enrollment_id, "attestation": _attestation(given), **terms(given)}
    show(dps_service(login, data).put(_path(enrollment_id), document), output, COLUMNS)


@enrollment_group.command("list")
@top_option
@output_option
@login_options
def list_(top: int | None, output: str, login: str | None, data: Path | None) -> None:
    """All enrollment groups."""
    query = {"query": "SELECT * FROM enrollmentGroups"}
    show(list(dps_service(login, data).pages("/enrollmentGroups/query", query, top=top)), output, COLUMNS)


@enrollment_group.command("show")
@group_id_option
@show_keys_option
@output_option
@login_options
def show_(enrollment_id: str, show_keys: bool, output: str, login: str | None, data: Path | None) -> None:
    """One enrollment group."""
    service, path = dps_service(login, data), _path(enrollment_id)
    document = service.get(path)
    show(with_keys(service, path, document) if show_keys else document, output, COLUMNS)


@enrollment_group.command()
@group_id_option
@certificate_options
@remove_certificate_options
@ca_options
@key_options
@terms_options
@etag_option
@output_option
@login_options
def update(
    enrollment_id: str, etag: str | None, output: str, login: str | None, data: Path | None, **given: Any
) -> None:
    """Change an enrollment group; what is not named stays."""
    service, path = dps_service(login, data), _path(enrollment_id)
    document = service.get(path)
    changed = {
        "attestation": changed_attestation(document["attestation"], given, "signingCertificates"),
        **terms(given, document.get("initialTwin")),
    }
    show(service.put(path, document | changed, if_match=etag or "*"), output, COLUMNS)


@enrollment_group.command()
@group_id_option
@etag_option
@login_options
def delete(enrollment_id: str, etag: str | None, login: str | None, data: Path | None) -> None:
    """Delete an enrollment group. Its devices keep their registration records and their places in the hubs."""
    dps_service(login, data).delete(_path(enrollment_id), if_match=etag or "*")


def _path(enrollment_id: str) -> str:
    return f"/enrollmentGroups/{quote(enrollment_id, safe='')}"


def _attestation(given: dict[str, Any]) -> dict[str, Any]:
    """By what was given: certificates, names of CA certificates, or else keys, which may be left to be made."""
    if issuer := x509(given, "signingCertificates"):
        return {"type": "x509", "x509": issuer}
    return {"type": "symmetricKey", "symmetricKey": keys(given)}

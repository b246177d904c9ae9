"""`moorage device registration`: register as a device would."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click

from moorage.cli.device.proof import (
    ca_file_of,
    certificate_options,
    client_trust,
    device_environment,
    name_in_certificate,
    registration_key,
)
from moorage.cli.device.registering import PROTOCOLS, Device, register
from moorage.cli.output import output_option, show
from moorage.cli.target import login_options
from moorage.errors import Invalid

COLUMNS = {
    "REGISTRATION ID": "registrationState.registrationId",
    "STATUS": "status",
    "SUBSTATUS": "registrationState.substatus",
    "HUB": "registrationState.assignedHub",
    "DEVICE ID": "registrationState.deviceId",
}
API_VERSION, CSR_API_VERSION = "2021-06-01", "2025-07-01-preview"


def json_value(text: str) -> Any:
    """Any JSON, as it stands or in a file; what is neither is a string of its own."""
    try:
        return json.loads(Path(text).read_text("utf-8") if Path(text).is_file() else text)
    except (OSError, ValueError):
        return text


@click.group()
def registration() -> None:
    """Register as a device would."""


@registration.command()
@click.option("--registration-id", "--rid", help="Without it the common name of the certificate.")
@click.option("--enrollment-group-id", "--gid", help="The group whose key the device's is derived from.")
@click.option("--symmetric-key", "--key", help="Without key and certificate the service is asked for it.")
@click.option(
    "--compute-key", "--ck", is_flag=True, help="The key is a group's: derive the device's from it."
)
@certificate_options
@click.option("--payload", type=json_value, help="For a custom allocation: JSON, or a file of it.")
@click.option("--csr-path", type=click.File("rb"), help="Ask for a certificate: a signing request.")
@click.option("--protocol", type=click.Choice(PROTOCOLS), default="mqtt", show_default=True)
@click.option("--host", help="Where devices register; without it the environment's.")
@click.option("--id-scope", "--scope", help="Which provisioning service; without it the environment's.")
@click.option("--api-version", help=f"Of the device API; without it {API_VERSION}, with a CSR a newer one.")
@output_option
@login_options
def create(
    registration_id: str | None,
    payload: Any,
    csr_path: BinaryIO | None,
    protocol: str,
    api_version: str | None,
    output: str,
    login: str | None,
    data: Path | None,
    **given: Any,
) -> None:
    """Register, and print what the device is told.

    By certificate (--certificate-file-path and --key-file-path), or by symmetric key.
    """
    registration_id = registration_id or name_in_certificate(given)
    if not registration_id:
        raise Invalid("--registration-id", "give the name under which the device registers")
    device = registering_device(
        registration_id, given, login, data, api_version or (CSR_API_VERSION if csr_path else API_VERSION)
    )
    body: dict[str, Any] = {"registrationId": registration_id}
    if payload is not None:
        body["payload"] = payload
    if csr_path is not None:
        body["csr"] = _csr(csr_path.read())
    show(register(device, protocol, json.dumps(body).encode()), output, COLUMNS)


def registering_device(
    registration_id: str,
    given: Mapping[str, Any],
    login: str | None,
    data: Path | None,
    api_version: str = API_VERSION,
) -> Device:
    """The device that the options describe; its key is asked of the service where none is given."""
    environment = device_environment(data)
    scope = given["id_scope"] or environment["PROVISIONING_IDSCOPE"]
    by_certificate = given["certificate_file_path"] is not None
    key = None if by_certificate else registration_key(registration_id, given, login, data)
    return Device(
        host=given["host"] or environment["PROVISIONING_HOST"],
        id_scope=scope,
        registration_id=registration_id,
        api_version=api_version,
        trust=client_trust(ca_file_of(environment), given),
        key=key,
    )


def _csr(content: bytes) -> str:
    """Base64 of the DER, as devices send it. Raises Invalid."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    load = x509.load_pem_x509_csr if b"-----BEGIN" in content else x509.load_der_x509_csr
    try:
        return base64.b64encode(load(content).public_bytes(Encoding.DER)).decode()
    except ValueError as error:
        raise Invalid("--csr-path", f"it holds no signing request ({error})") from None

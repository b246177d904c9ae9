"""`moorage device registration`: register as a device would."""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import click

from moorage.cli.device.registering import PROTOCOLS, Device, register
from moorage.cli.dps.settings import dps_service
from moorage.cli.output import output_option, show
from moorage.cli.target import CA_VARIABLES, login_options, running_server
from moorage.credentials.sas import derive_key, make_token
from moorage.credentials.x509 import read_certificate
from moorage.errors import Invalid

COLUMNS = {
    "REGISTRATION ID": "registrationState.registrationId",
    "STATUS": "status",
    "SUBSTATUS": "registrationState.substatus",
    "HUB": "registrationState.assignedHub",
    "DEVICE ID": "registrationState.deviceId",
}
TOKEN_LIFETIME = 3600  # seconds
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
@click.option("--certificate-file-path", "--cp", type=click.Path(exists=True), help="PEM, chain included.")
@click.option("--key-file-path", "--kp", type=click.Path(exists=True), help="The certificate's private key.")
@click.option("--passphrase", "--pass", help="Of the private key.")
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
    certificate = given["certificate_file_path"]
    if certificate is not None and registration_id is None:
        registration_id = read_certificate(Path(certificate).read_bytes()).common_name
    if not registration_id:
        raise Invalid("--registration-id", "give the name under which the device registers")
    environment = _environment(data)
    scope = given["id_scope"] or environment["PROVISIONING_IDSCOPE"]
    key = None if certificate is not None else _key(registration_id, given, login, data)
    device = Device(
        host=given["host"] or environment["PROVISIONING_HOST"],
        id_scope=scope,
        registration_id=registration_id,
        api_version=api_version or (CSR_API_VERSION if csr_path is not None else API_VERSION),
        trust=_trust(environment, given),
        token=_token(scope, registration_id, key) if key is not None else None,
    )
    body: dict[str, Any] = {"registrationId": registration_id}
    if payload is not None:
        body["payload"] = payload
    if csr_path is not None:
        body["csr"] = _csr(csr_path.read())
    show(register(device, protocol, json.dumps(body).encode()), output, COLUMNS)


def _environment(data: Path | None) -> dict[str, str]:
    """Of the shell where it names a service, else of the server that runs here. Raises NoServer."""
    environment = dict(os.environ)
    if data is None and {"PROVISIONING_HOST", "PROVISIONING_IDSCOPE"} <= environment.keys():
        return environment
    return {**environment, **running_server(data).env}


def _trust(environment: dict[str, str], given: dict[str, Any]) -> ssl.SSLContext:
    ca_file = next((environment[name] for name in CA_VARIABLES if environment.get(name)), None)
    trust = ssl.create_default_context(cafile=ca_file)
    if (certificate := given["certificate_file_path"]) is not None:
        if given["key_file_path"] is None:
            raise Invalid("--key-file-path", "the certificate needs its private key")
        try:
            # Without a pass phrase OpenSSL would ask for one on the terminal.
            trust.load_cert_chain(certificate, given["key_file_path"], password=given["passphrase"] or "")
        except (OSError, ValueError) as error:
            raise Invalid(
                "--key-file-path", f"{given['key_file_path']} and {certificate} do not fit: {error}"
            ) from None
    return trust


def _key(registration_id: str, given: dict[str, Any], login: str | None, data: Path | None) -> str:
    """The device's symmetric key, asked of the service where it was not given. Raises Invalid."""
    key, group = given["symmetric_key"], given["enrollment_group_id"]
    derived = given["compute_key"] or (key is None and group is not None)
    if key is None:
        noun, name = ("enrollmentGroups", group) if group is not None else ("enrollments", registration_id)
        path = f"/{noun}/{quote(name, safe='')}/attestationmechanism"
        mechanism, _ = dps_service(login, data).call("POST", path)
        if mechanism["type"] != "symmetricKey":
            raise Invalid("--certificate-file-path", f"{name} is enrolled by {mechanism['type']}, not by key")
        key = mechanism["symmetricKey"]["primaryKey"]
    try:
        base64.b64decode(key, validate=True)
        return derive_key(key, registration_id) if derived else key
    except ValueError:
        raise Invalid("--symmetric-key", "a key is base64 text") from None


def _token(scope: str, registration_id: str, key: str) -> str:
    expiry = int(time.time()) + TOKEN_LIFETIME
    return make_token(f"{scope}/registrations/{registration_id}", key, expiry, "registration")


def _csr(content: bytes) -> str:
    """Base64 of the DER, as devices send it. Raises Invalid."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    load = x509.load_pem_x509_csr if b"-----BEGIN" in content else x509.load_der_x509_csr
    try:
        return base64.b64encode(load(content).public_bytes(Encoding.DER)).decode()
    except ValueError as error:
        raise Invalid("--csr-path", f"it holds no signing request ({error})") from None

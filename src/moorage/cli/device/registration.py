"""`moorage device registration`: register as a device would."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from moorage.cli.device.registering import PROTOCOLS, TPM_PROTOCOLS, Device, Tpm, register
from moorage.cli.device.tpm2_tools import HUB_KEY, DeviceTpm, open_tpm, tcti_option
from moorage.cli.json_values import json_or_text
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
PROOFS = {  # other than by TPM
    "certificate_file_path": "--certificate-file-path",
    "symmetric_key": "--symmetric-key",
    "enrollment_group_id": "--enrollment-group-id",
    "compute_key": "--compute-key",
}
API_VERSION, CSR_API_VERSION = "2021-06-01", "2025-07-01-preview"


@click.group()
def registration() -> None:
    """Register as a device would."""


@registration.command()
@click.option(
    "--registration-id", "--rid", help="Without it the certificate's common name, or a hash of the TPM's key."
)
@click.option("--enrollment-group-id", "--gid", help="The group whose key the device's is derived from.")
@click.option("--symmetric-key", "--key", help="Without any proof the service is asked for it.")
@click.option(
    "--compute-key", "--ck", is_flag=True, help="The key is a group's: derive the device's from it."
)
@certificate_options
@click.option("--tpm", "by_tpm", is_flag=True, help="By the TPM of this machine; see moorage device tpm.")
@tcti_option
@click.option("--payload", type=json_or_text, help="For a custom allocation: JSON, or a file of it.")
@click.option("--csr-path", type=click.File("rb"), help="Ask for a certificate: a signing request.")
@click.option("--protocol", type=click.Choice(PROTOCOLS), show_default="mqtt, with --tpm https")
@click.option("--host", help="Where devices register; without it the environment's.")
@click.option("--id-scope", "--scope", help="Which provisioning service; without it the environment's.")
@click.option("--api-version", help=f"Of the device API; without it {API_VERSION}, with a CSR a newer one.")
@output_option
@login_options
def create(
    registration_id: str | None,
    payload: Any,
    csr_path: BinaryIO | None,
    protocol: str | None,
    api_version: str | None,
    output: str,
    login: str | None,
    data: Path | None,
    **given: Any,
) -> None:
    """Register, and print what the device is told.

    By certificate (--certificate-file-path and --key-file-path), by symmetric key, or by TPM (--tpm), which then keeps
    the key for the hub at 0x81000100, where Azure's clients have it.
    """
    protocol = protocol or ("https" if given["by_tpm"] else "mqtt")
    body: dict[str, Any] = {}
    if payload is not None:
        body["payload"] = payload
    if csr_path is not None:
        body["csr"] = _csr(csr_path.read())
    version = api_version or (CSR_API_VERSION if csr_path else API_VERSION)
    with _tpm(given, protocol) as tpm:
        registration_id = registration_id or _own_name(given, tpm)
        if not registration_id:
            raise Invalid("--registration-id", "give the name under which the device registers")
        body["registrationId"] = registration_id
        if tpm is not None:
            body["tpm"] = tpm.keys
        device = registering_device(registration_id, given, login, data, version, tpm)
        answered = register(device, protocol, json.dumps(body).encode())
        if tpm is not None:
            _keep_hub_key(tpm, answered)
    show(answered, output, COLUMNS)


@contextmanager
def _tpm(given: Mapping[str, Any], protocol: str) -> Iterator[DeviceTpm | None]:
    """The TPM to register by, where the options say so. Raises Invalid where they contradict one another."""
    if not given["by_tpm"]:
        if given["tcti"] is not None:
            raise Invalid("--tcti", "it says where the TPM is: give --tpm too")
        yield None
        return
    if others := [option for name, option in PROOFS.items() if given[name]]:
        raise Invalid("--tpm", f"a device registers by one proof: leave out --tpm or {others[0]}")
    if protocol not in TPM_PROTOCOLS:
        raise Invalid(
            "--protocol",
            f"{protocol} has no place for a TPM's challenge, in Azure neither: use {', '.join(TPM_PROTOCOLS)}",
        )
    with open_tpm(given["tcti"]) as tpm:
        yield tpm


def _own_name(given: Mapping[str, Any], tpm: DeviceTpm | None) -> str | None:
    """What the proof itself says."""
    return tpm.registration_id if tpm is not None else name_in_certificate(given)


def _keep_hub_key(tpm: DeviceTpm, answered: Mapping[str, Any]) -> None:
    """Else the device could not connect: its hub knows it by the key of its latest registration."""
    told = (answered.get("registrationState") or {}).get("tpm")
    if told is not None:
        tpm.activate(base64.b64decode(told["authenticationKey"]))
        tpm.keep()
        click.echo(f"The TPM keeps the key for the hub at {HUB_KEY}.", err=True)


def registering_device(
    registration_id: str,
    given: Mapping[str, Any],
    login: str | None,
    data: Path | None,
    api_version: str = API_VERSION,
    tpm: Tpm | None = None,
) -> Device:
    """The device that the options describe; its key is asked of the service where none is given."""
    environment = device_environment(data)
    scope = given["id_scope"] or environment["PROVISIONING_IDSCOPE"]
    by_key = tpm is None and given["certificate_file_path"] is None
    key = registration_key(registration_id, given, login, data) if by_key else None
    return Device(
        host=given["host"] or environment["PROVISIONING_HOST"],
        id_scope=scope,
        registration_id=registration_id,
        api_version=api_version,
        trust=client_trust(ca_file_of(environment), given),
        key=key,
        tpm=tpm,
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

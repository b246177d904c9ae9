"""`moorage dps certificate`: CA certificates of the provisioning service, and their verification."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import click

from moorage.cli.output import output_option, show
from moorage.cli.rest import DPS_API_VERSION, Service
from moorage.cli.target import DPS_VARIABLES, find_login, login_options

ROOT = "/moorage/v1/caCertificates"
COLUMNS = {
    "NAME": "name",
    "SUBJECT": "properties.subject",
    "VERIFIED": "properties.isVerified",
    "EXPIRY": "properties.expiry",
    "THUMBPRINT": "properties.thumbprint",
    "VERIFICATION CODE": "properties.verificationCode",
}

name_option = click.option("--certificate-name", "--name", "-n", "name", required=True, help="Its name.")
path_option = click.option(
    "--path",
    "-p",
    "file",
    required=True,
    type=click.File("rb"),
    help="File of the CA certificate: PEM, DER or PKCS#7.",
)
verified_option = click.option(
    "--verified",
    "-v",
    type=bool,
    is_flag=False,
    flag_value="true",
    default=False,
    help="Trust it without proof of possession.",
)
etag_option = click.option("--etag", "-e", default="*", help="Only this version.")


@click.group()
def certificate() -> None:
    """CA certificates that enrollments can refer to."""


@certificate.command()
@name_option
@path_option
@verified_option
@output_option
@login_options
def create(
    name: str, file: BinaryIO, verified: bool, output: str, login: str | None, data: Path | None
) -> None:
    """Upload a CA certificate. It is not verified yet, unless it is declared to be."""
    show(_service(login, data).put(_path(name), _upload(file, verified)), output, COLUMNS)


@certificate.command("list")
@output_option
@login_options
def list_(output: str, login: str | None, data: Path | None) -> None:
    """All CA certificates."""
    found = _service(login, data).get(ROOT)
    show({"value": found} if output == "json" else found, output, COLUMNS)  # az wraps them


@certificate.command("show")
@name_option
@output_option
@login_options
def show_(name: str, output: str, login: str | None, data: Path | None) -> None:
    """One CA certificate."""
    show(_service(login, data).get(_path(name)), output, COLUMNS)


@certificate.command()
@name_option
@path_option
@verified_option
@etag_option
@output_option
@login_options
def update(
    name: str, file: BinaryIO, verified: bool, etag: str, output: str, login: str | None, data: Path | None
) -> None:
    """Replace a CA certificate. Its verification starts over."""
    service = _service(login, data)
    service.get(_path(name))  # what is not there is not to be made by an update
    show(service.put(_path(name), _upload(file, verified), if_match=etag), output, COLUMNS)


@certificate.command()
@name_option
@etag_option
@login_options
def delete(name: str, etag: str, login: str | None, data: Path | None) -> None:
    """Delete a CA certificate. Enrollments that refer to it let no device in from then on."""
    _service(login, data).delete(_path(name), if_match=etag)


@certificate.command("generate-verification-code")
@name_option
@etag_option
@output_option
@login_options
def generate_verification_code(
    name: str, etag: str, output: str, login: str | None, data: Path | None
) -> None:
    """A code: sign a certificate with it as common name by the CA's key, to prove that you hold the key."""
    _post(_service(login, data), f"{_path(name)}/generateVerificationCode", None, etag, output)


@certificate.command()
@name_option
@click.option(
    "--path",
    "-p",
    "file",
    required=True,
    type=click.File("rb"),
    help="File of the certificate whose common name is the verification code.",
)
@etag_option
@output_option
@login_options
def verify(name: str, file: BinaryIO, etag: str, output: str, login: str | None, data: Path | None) -> None:
    """Prove possession of the CA's key, by the certificate that it has signed over the verification code."""
    proof = {"certificate": _content(file)}
    _post(_service(login, data), f"{_path(name)}/verify", proof, etag, output)


def _service(login: str | None, data: Path | None) -> Service:
    return Service(find_login(login, data, DPS_VARIABLES), DPS_API_VERSION)


def _path(name: str) -> str:
    return f"{ROOT}/{quote(name, safe='')}"


def _post(service: Service, path: str, body: Any, etag: str, output: str) -> None:
    show(service.call("POST", path, body, if_match=etag)[0], output, COLUMNS)


def _upload(file: BinaryIO, verified: bool) -> dict[str, Any]:
    return {"properties": {"certificate": _content(file), "isVerified": verified}}


def _content(file: BinaryIO) -> str:
    """In base64, which the service reads of every form."""
    return base64.b64encode(file.read()).decode()

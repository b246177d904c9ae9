"""The commands on CA certificates and their verification, which the provisioning service and the hub have alike."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import quote

import click

from moorage.cli.output import output_option, show
from moorage.cli.rest import Service
from moorage.cli.target import Login, find_login

F = TypeVar("F", bound=Callable[..., Any])

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


class Owner(NamedTuple):
    """Whose certificates: the environment's names of a login, and the path of all of them with its api-version."""

    variables: tuple[str, ...]
    api_version: str
    path: Callable[[Login], str]
    login_options: Callable[[Any], Any]


def certificate_group(owner: Owner) -> click.Group:
    """`certificate create|list|show|update|delete|generate-verification-code|verify`."""

    def reach(login: str | None, data: Path | None, name: str | None = None) -> tuple[Service, str]:
        found = find_login(login, data, owner.variables)
        path = owner.path(found) + (f"/{quote(name, safe='')}" if name is not None else "")
        return Service(found, owner.api_version), path

    def login_options(function: F) -> F:
        made: F = owner.login_options(function)
        return made

    @click.group()
    def certificate() -> None:
        """CA certificates, and the proof that their keys are held."""

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
        service, path = reach(login, data, name)
        show(service.put(path, _upload(file, verified)), output, COLUMNS)

    @certificate.command("list")
    @output_option
    @login_options
    def list_(output: str, login: str | None, data: Path | None) -> None:
        """All CA certificates."""
        service, path = reach(login, data)
        found = service.get(path)
        show({"value": found} if output == "json" else found, output, COLUMNS)  # az wraps them

    @certificate.command("show")
    @name_option
    @output_option
    @login_options
    def show_(name: str, output: str, login: str | None, data: Path | None) -> None:
        """One CA certificate."""
        service, path = reach(login, data, name)
        show(service.get(path), output, COLUMNS)

    @certificate.command()
    @name_option
    @path_option
    @verified_option
    @etag_option
    @output_option
    @login_options
    def update(
        name: str,
        file: BinaryIO,
        verified: bool,
        etag: str,
        output: str,
        login: str | None,
        data: Path | None,
    ) -> None:
        """Replace a CA certificate. Its verification starts over."""
        service, path = reach(login, data, name)
        service.get(path)  # what is not there is not to be made by an update
        show(service.put(path, _upload(file, verified), if_match=etag), output, COLUMNS)

    @certificate.command()
    @name_option
    @etag_option
    @login_options
    def delete(name: str, etag: str, login: str | None, data: Path | None) -> None:
        """Delete a CA certificate. Who counts on it is let in no more from then on."""
        service, path = reach(login, data, name)
        service.delete(path, if_match=etag)

    @certificate.command("generate-verification-code")
    @name_option
    @etag_option
    @output_option
    @login_options
    def generate_verification_code(
        name: str, etag: str, output: str, login: str | None, data: Path | None
    ) -> None:
        """A code: sign a certificate with it as common name by the CA's key, to prove that you hold the key."""
        service, path = reach(login, data, name)
        _post(service, f"{path}/generateVerificationCode", None, etag, output)

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
    def verify(
        name: str, file: BinaryIO, etag: str, output: str, login: str | None, data: Path | None
    ) -> None:
        """Prove possession of the CA's key, by the certificate that it has signed over the verification code."""
        service, path = reach(login, data, name)
        _post(service, f"{path}/verify", {"certificate": _content(file)}, etag, output)

    return certificate


def _post(service: Service, path: str, body: Any, etag: str, output: str) -> None:
    show(service.call("POST", path, body, if_match=etag)[0], output, COLUMNS)


def _upload(file: BinaryIO, verified: bool) -> dict[str, Any]:
    return {"properties": {"certificate": _content(file), "isVerified": verified}}


def _content(file: BinaryIO) -> str:
    """In base64, which the service reads of every form."""
    return base64.b64encode(file.read()).decode()

"""How a device on the command line proves itself: the options, and what they make for DPS and for a hub."""

from __future__ import annotations

import base64
import os
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from moorage.cli.dps.settings import dps_service
from moorage.cli.target import CA_VARIABLES, running_server
from moorage.credentials.sas import derive_key
from moorage.credentials.x509 import read_certificate
from moorage.errors import Invalid

TOKEN_LIFETIME = 3600  # seconds

F = TypeVar("F", bound=Callable[..., Any])


def certificate_options(function: F) -> F:
    for option in reversed(
        (
            click.option(
                "--certificate-file-path", "--cp", type=click.Path(exists=True), help="PEM, chain included."
            ),
            click.option(
                "--key-file-path", "--kp", type=click.Path(exists=True), help="The certificate's private key."
            ),
            click.option("--passphrase", "--pass", help="Of the private key."),
        )
    ):
        function = option(function)
    return function


def device_environment(data: Path | None) -> dict[str, str]:
    """Of the shell where it names a service, else of the server that runs here. Raises NoServer."""
    environment = dict(os.environ)
    if data is None and {"PROVISIONING_HOST", "PROVISIONING_IDSCOPE"} <= environment.keys():
        return environment
    return {**environment, **running_server(data).env}


def ca_file_of(environment: Mapping[str, str]) -> str | None:
    return next((environment[name] for name in CA_VARIABLES if environment.get(name)), None)


def client_trust(ca_file: str | None, given: Mapping[str, Any]) -> ssl.SSLContext:
    """With the client certificate that the options name, if any. Raises Invalid."""
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


def name_in_certificate(given: Mapping[str, Any]) -> str | None:
    """The common name, which is the device's name to DPS and to hubs."""
    file = given["certificate_file_path"]
    return read_certificate(Path(file).read_bytes()).common_name if file is not None else None


def registration_key(
    registration_id: str, given: Mapping[str, Any], login: str | None, data: Path | None
) -> str:
    """The symmetric key to register with, asked of the service where it was not given. Raises Invalid."""
    key, group = given["symmetric_key"], given["enrollment_group_id"]
    derived = given["compute_key"] or (key is None and group is not None)
    if key is None:
        noun, name = ("enrollmentGroups", group) if group is not None else ("enrollments", registration_id)
        path = f"/{noun}/{quote(name, safe='')}/attestationmechanism"
        mechanism, _ = dps_service(login, data).call("POST", path)
        if mechanism["type"] != "symmetricKey":
            raise Invalid("--certificate-file-path", f"{name} is enrolled by {mechanism['type']}, not by key")
        key = mechanism["symmetricKey"]["primaryKey"]
    check_base64(key)
    return derive_key(key, registration_id) if derived else key


def check_base64(key: str) -> None:
    """Raises Invalid."""
    try:
        base64.b64decode(key, validate=True)
    except ValueError:
        raise Invalid("--symmetric-key", "a key is base64 text") from None


def expiry() -> int:
    """Of a token made now, in seconds since 1970."""
    return int(time.time()) + TOKEN_LIFETIME

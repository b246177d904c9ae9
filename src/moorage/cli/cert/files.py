"""The files of `moorage cert`: how they are named, written and found again.

pump-7.pem            the certificate
pump-7.key.pem        its key, PKCS#8, encrypted when there is a pass phrase; mode 0600
pump-7.fullchain.pem  the certificate and all above it, leaf first, root last
pump-7.pfx            all of that in one file (PKCS#12); mode 0600
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from moorage.credentials import files
from moorage.credentials.keys import read_key
from moorage.credentials.workshop.credential import Credential, Wish, file_stem, forms
from moorage.credentials.workshop.subject import read_subject
from moorage.credentials.x509 import Certificate, utc_text
from moorage.errors import Invalid

COLUMNS = {
    "SUBJECT": "subject",
    "NOT AFTER": "notAfterUtc",
    "SHA-256": "sha256Thumbprint",
    "CERTIFICATE": "files.certificate",
    "KEY": "files.key",
}

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Output:
    """A file to be written; `role` names it in what the command prints."""

    role: str
    path: Path
    content: bytes
    mode: int = files.CERTIFICATE_MODE


def write(outputs: Sequence[Output], *, force: bool) -> dict[str, str]:
    """Role and path of each. Without `force` nothing is replaced, and nothing written when a file is there."""
    if not force and (taken := [str(output.path) for output in outputs if output.path.exists()]):
        raise Invalid("--force", f"would replace {', '.join(taken)}; nothing was written")
    for output in outputs:
        output.path.parent.mkdir(parents=True, exist_ok=True)
        if force:
            files.replace(output.path, output.content, output.mode)
        elif not files.create(output.path, output.content, output.mode):
            raise Invalid("--force", f"would replace {output.path}, which came meanwhile")
    return {output.role: str(output.path) for output in outputs}


def credential_outputs(
    credential: Credential, folder: Path, stem: str, pass_phrase: str | None
) -> list[Output]:
    return [
        Output(
            form.role,
            folder / f"{stem}{form.suffix}",
            form.content,
            files.KEY_MODE if form.secret else files.CERTIFICATE_MODE,
        )
        for form in forms(credential, pass_phrase)
    ]


def facts(certificate: x509.Certificate) -> dict[str, Any]:
    """What a person wants to read of a new certificate."""
    made = Certificate(certificate.public_bytes(Encoding.DER))
    return {
        "subject": made.subject,
        "issuer": made.issuer,
        "sha1Thumbprint": made.sha1,
        "sha256Thumbprint": made.sha256,
        "notBeforeUtc": utc_text(made.not_before),
        "notAfterUtc": utc_text(made.not_after),
    }


def stem_of(name: str, given: str | None) -> str:
    """The first part of all file names."""
    if given and (set(given) & set("/\\") or given.startswith(".")):
        raise Invalid("--name", f"{given!r} is no name for a file; the folder goes with --out")
    return given or file_stem(name)


def find_issuer(file: Path, key_file: Path | None, pass_phrase: str | None) -> Credential:
    """A CA made here, by its certificate file or by the name before `.pem`, or one from elsewhere.

    The key is found beside it, and so is the chain above it. Raises Invalid.
    """
    if not file.exists() and file.with_name(f"{file.name}.pem").exists():
        file = file.with_name(f"{file.name}.pem")
    stem = file.name.removesuffix(".pem").removesuffix(".fullchain")
    key_file = key_file or file.with_name(f"{stem}.key.pem")
    chain = read_chain(file)
    whole = file.with_name(f"{stem}.fullchain.pem")
    if len(chain) == 1 and whole.exists() and (longer := read_chain(whole))[0] == chain[0]:
        chain = longer
    try:
        return Credential(chain[0], read_key(read(key_file), pass_phrase), tuple(chain[1:]))
    except Invalid as error:
        raise Invalid(str(key_file), error.why) from None


def read_chain(file: Path) -> list[x509.Certificate]:
    """All certificates in a PEM file, or the one in a DER file. Raises Invalid."""
    content = read(file)
    try:
        if b"-----BEGIN" in content:
            return x509.load_pem_x509_certificates(content)
        return [x509.load_der_x509_certificate(content)]
    except ValueError as error:
        raise Invalid(str(file), f"it holds no certificate in PEM or DER ({error})") from None


def read(file: Path) -> bytes:
    """Raises Invalid."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise Invalid(str(file), error.strerror or str(error)) from None


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def wish(settings: Mapping[str, Any]) -> Wish:
    """What `wish_options` have collected."""
    return Wish(
        subject=read_subject(settings["subject"]),
        now=now(),
        days=settings["days"],
        key_type=settings["key_type"],
        rsa_bits=settings["rsa_bits"],
    )


def wish_options(days: int) -> Callable[[F], F]:
    """Subject, life and key; `days` is the default."""

    def decorate(function: F) -> F:
        for option in reversed(
            (
                click.option(
                    "--subject",
                    required=True,
                    help="A plain name, which becomes the CN, or /CN=name/O=…; Git Bash's //CN=name will do.",
                ),
                click.option(
                    "--days", type=int, default=days, show_default=True, help="How long it is valid."
                ),
                *key_options(),
            )
        ):
            function = option(function)
        return function

    return decorate


def key_options() -> tuple[Callable[[Any], Any], ...]:
    return (
        click.option(
            "--key-type",
            type=click.Choice(["ec", "rsa"]),
            default="ec",
            show_default=True,
            help="EC on P-256, or RSA.",
        ),
        click.option(
            "--rsa-bits",
            type=click.Choice([2048, 3072, 4096]),
            default=2048,
            show_default=True,
            help="With RSA.",
        ),
    )


def issuer_options(*, required: bool) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(
            (
                click.option(
                    "--issuer",
                    required=required,
                    type=click.Path(path_type=Path),
                    help="Certificate of the CA, or its name before .pem; key and chain are found beside it.",
                ),
                click.option(
                    "--issuer-key", type=click.Path(path_type=Path), help="Its key, if it is elsewhere."
                ),
                click.option(
                    "--issuer-pass-phrase",
                    envvar="MOORAGE_ISSUER_PASS_PHRASE",
                    show_envvar=True,
                    help="Of the issuer's key.",
                ),
            )
        ):
            function = option(function)
        return function

    return decorate


def file_options(function: F) -> F:
    """Where the files go, how they are called, and what protects the key."""
    for option in reversed(
        (
            click.option(
                "--out",
                type=click.Path(path_type=Path, file_okay=False),
                default=Path(),
                help="Folder for the files; without it this one.",
            ),
            click.option("--name", help="What their names begin with; without it the common name."),
            pass_phrase_option,
            click.option("--force", is_flag=True, help="Replace files that are there."),
        )
    ):
        function = option(function)
    return function


pass_phrase_option = click.option(
    "--pass-phrase",
    envvar="MOORAGE_PASS_PHRASE",
    show_envvar=True,
    help="Encrypts the key and the PFX; without it neither is encrypted.",
)

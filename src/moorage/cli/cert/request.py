"""`moorage cert request`: a signing request and its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from cryptography.hazmat.primitives.serialization import Encoding

from moorage.cli.cert.files import Output, file_options, key_options, stem_of, write
from moorage.cli.output import output_option, show
from moorage.credentials.files import KEY_MODE
from moorage.credentials.keys import KeyType, key_pem
from moorage.credentials.workshop.request import make_request, registration_text
from moorage.credentials.workshop.subject import name_of, read_subject
from moorage.credentials.x509 import name_text

COLUMNS = {"SUBJECT": "subject", "REQUEST": "files.request", "KEY": "files.key"}


@click.command()
@click.option("--subject", required=True, help="A plain name, which becomes the CN, or /CN=name/O=….")
@key_options()[0]
@key_options()[1]
@file_options
@output_option
def request(
    subject: str,
    key_type: KeyType,
    rsa_bits: int,
    out: Path,
    name: str | None,
    pass_phrase: str | None,
    force: bool,
    output: str,
) -> None:
    """Make a signing request (CSR) and its key.

    It is written as PEM, and as the base64 of DER in one line, which is what a device registers with.
    """
    made, key = make_request(read_subject(subject), key_type, rsa_bits=rsa_bits)
    shown = name_text(made.subject)
    stem = stem_of(name_of(made.subject), name)
    text = registration_text(made)
    outputs = [
        Output("request", out / f"{stem}.csr.pem", made.public_bytes(Encoding.PEM)),
        Output("registrationText", out / f"{stem}.csr.txt", text.encode()),
        Output("key", out / f"{stem}.key.pem", key_pem(key, pass_phrase), KEY_MODE),
    ]
    result: dict[str, Any] = {"subject": shown, "files": write(outputs, force=force)}
    show(result, output, COLUMNS)

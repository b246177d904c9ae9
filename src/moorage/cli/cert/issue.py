"""`moorage cert root|intermediate|device|proof`: new certificates, in the files that every SDK takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from moorage.cli.cert.files import (
    COLUMNS,
    credential_outputs,
    facts,
    file_options,
    find_issuer,
    issuer_options,
    now,
    stem_of,
    wish,
    wish_options,
    write,
)
from moorage.cli.output import output_option, show
from moorage.credentials.workshop.credential import (
    Credential,
    make_device,
    make_intermediate,
    make_proof,
    make_root,
)

path_length_option = click.option(
    "--path-length",
    type=click.IntRange(min=0),
    help="How many CAs may stand below it; without it any number.",
)


@click.command()
@wish_options(days=3650)
@path_length_option
@file_options
@output_option
def root(path_length: int | None, **settings: Any) -> None:
    """Make a root CA."""
    _write(make_root(wish(settings), path_length=path_length), settings)


@click.command()
@wish_options(days=1825)
@issuer_options(required=True)
@path_length_option
@file_options
@output_option
def intermediate(path_length: int | None, **settings: Any) -> None:
    """Make a CA below another. It ends with its issuer at the latest."""
    issuer = _issuer(settings)
    assert issuer is not None  # --issuer is required
    _write(make_intermediate(wish(settings), issuer, path_length=path_length), settings)


@click.command()
@wish_options(days=365)
@issuer_options(required=False)
@file_options
@output_option
def device(**settings: Any) -> None:
    """Make a device's certificate: issued by --issuer, or without it by itself.

    For DPS the common name is the device's registration id.
    """
    _write(make_device(wish(settings), _issuer(settings)), settings)


@click.command()
@click.option("--code", required=True, help="The verification code that the service gave for the CA.")
@issuer_options(required=True)
@click.option("--days", type=int, default=1, show_default=True, help="How long it is valid.")
@file_options
@output_option
def proof(code: str, days: int, **settings: Any) -> None:
    """Prove possession of a CA's key: a certificate with the verification code as its common name."""
    issuer = _issuer(settings)
    assert issuer is not None  # --issuer is required
    _write(make_proof(code, issuer, now(), days), settings)


def _issuer(settings: dict[str, Any]) -> Credential | None:
    file: Path | None = settings["issuer"]
    if file is None:
        return None
    return find_issuer(file, settings["issuer_key"], settings["issuer_pass_phrase"])


def _write(made: Credential, settings: dict[str, Any]) -> None:
    stem = stem_of(made.common_name, settings["name"])
    outputs = credential_outputs(made, settings["out"], stem, settings["pass_phrase"])
    written = write(outputs, force=settings["force"])
    show(facts(made.certificate) | {"files": written}, settings["output"], COLUMNS)

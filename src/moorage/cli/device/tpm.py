"""`moorage device tpm`: the keys by which an enrollment names the TPM of this device."""

from __future__ import annotations

import click

from moorage.cli.device.tpm2_tools import DeviceTpm, open_tpm, tcti_option
from moorage.cli.output import output_option
from moorage.cli.output import show as print_value

COLUMNS = {
    "REGISTRATION ID": "registrationId",
    "ENDORSEMENT KEY": "endorsementKey",
    "STORAGE ROOT KEY": "storageRootKey",
}


@click.group()
def tpm() -> None:
    """The TPM of this device, by tpm2-tools."""


@tpm.command()
@tcti_option
@output_option
def create(tcti: str | None, output: str) -> None:
    """Make endorsement key and storage root key where Azure's clients look for them, unless they are there."""
    with open_tpm(tcti) as found:
        found.create_keys()
        _show(found, output)


@tpm.command()
@click.option("--key", type=click.Choice(["endorsement", "storage-root"]), help="This alone, as text.")
@tcti_option
@output_option
def show(key: str | None, tcti: str | None, output: str) -> None:
    """The TPM's public keys, and the registration id of a device that is given no other."""
    with open_tpm(tcti) as found:
        if key is None:
            _show(found, output)
        else:
            click.echo(found.keys["endorsementKey" if key == "endorsement" else "storageRootKey"])


def _show(found: DeviceTpm, output: str) -> None:
    print_value({"registrationId": found.registration_id, **found.keys}, output, COLUMNS)

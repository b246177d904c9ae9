"""`moorage device`: what a device does, with the nouns and flags of `az iot device`."""

import click

from moorage.cli import LazyGroup


@click.command(
    cls=LazyGroup,
    lazy={
        "registration": (
            "moorage.cli.device.registration:registration",
            "Register as a device would.",
        ),
        "tpm": ("moorage.cli.device.tpm:tpm", "The TPM of this device: its keys."),
        "simulate": (
            "moorage.cli.device.simulate:simulate",
            "Be a device: telemetry, methods, twin and messages.",
        ),
        "c2d-message": (
            "moorage.cli.device.c2d_message:c2d_message",
            "Cloud-to-device messages.",
        ),
        "send-d2c-message": (
            "moorage.cli.device.send:send_d2c_message",
            "Send a message as a device.",
        ),
    },
)
def device() -> None:
    """What a device does."""

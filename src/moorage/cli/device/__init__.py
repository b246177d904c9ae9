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
    },
)
def device() -> None:
    """What a device does."""

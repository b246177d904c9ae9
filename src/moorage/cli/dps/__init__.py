"""`moorage dps`: the Device Provisioning Service, with the nouns and flags of `az iot dps`."""

import click

from moorage.cli import LazyGroup


@click.command(
    cls=LazyGroup,
    lazy={
        "enrollment": ("moorage.cli.dps.enrollment:enrollment", "Devices that are allowed to register."),
        "registration": ("moorage.cli.dps.registration:registration", "What became of their registrations."),
    },
)
def dps() -> None:
    """The Device Provisioning Service."""

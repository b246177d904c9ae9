"""`moorage dps`: the Device Provisioning Service, with the nouns and flags of `az iot dps`."""

import click

from moorage.cli import LazyGroup


@click.command(
    cls=LazyGroup,
    lazy={
        "show": ("moorage.cli.dps.service:show_", "The service: id scope, host names, allocation policy."),
        "update": ("moorage.cli.dps.service:update", "Change its default allocation policy."),
        "enrollment": ("moorage.cli.dps.enrollment:enrollment", "Devices that are allowed to register."),
        "enrollment-group": (
            "moorage.cli.dps.enrollment_group:enrollment_group",
            "Many devices under one key or one issuer.",
        ),
        "compute-device-key": (
            "moorage.cli.dps.compute_device_key:compute_device_key",
            "The key of one device of a group.",
        ),
        "linked-hub": ("moorage.cli.dps.linked_hub:linked_hub", "Hubs that devices may be assigned to."),
        "policy": ("moorage.cli.dps.policy:policy", "Shared access policies."),
        "connection-string": (
            "moorage.cli.dps.connection_string:connection_string",
            "What back ends and tools are configured with.",
        ),
        "allocation": (
            "moorage.cli.dps.allocation:allocation",
            "Which hub each device would get.",
        ),
        "certificate": (
            "moorage.cli.dps.certificate:certificate",
            "CA certificates, and their verification.",
        ),
        "credential-policy": (
            "moorage.cli.dps.credential_policy:credential_policy",
            "What certificates devices are given when they ask.",
        ),
        "registration": ("moorage.cli.dps.registration:registration", "What became of their registrations."),
    },
)
def dps() -> None:
    """The Device Provisioning Service."""

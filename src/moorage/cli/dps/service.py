"""`moorage dps show` and `update`: the provisioning service itself."""

from __future__ import annotations

from pathlib import Path

import click

from moorage.cli.output import output_option, show
from moorage.cli.rest import DPS_API_VERSION, Service
from moorage.cli.target import DPS_VARIABLES, find_login, login_options

PATH = "/moorage/v1/service"
PROPERTY = "properties.allocationPolicy"
COLUMNS = {
    "ID SCOPE": "idScope",
    "HOST NAME": "deviceProvisioningHostName",
    "ALLOCATION POLICY": "allocationPolicy",
}


@click.command("show")
@output_option
@login_options
def show_(output: str, login: str | None, data: Path | None) -> None:
    """The service: its id scope, host names and default allocation policy."""
    show(_service(login, data).get(PATH), output, COLUMNS)


@click.command()
@click.option(
    "--allocation-policy",
    "--ap",
    type=click.Choice(["hashed", "geoLatency", "static"], case_sensitive=False),
    help="How a hub is chosen for enrollments that do not say it.",
)
@click.option("--set", "assignment", metavar=f"{PROPERTY}=VALUE", help="The same as `az` writes it.")
@click.option("--etag", "-e", help="Change only this version.")
@output_option
@login_options
def update(
    allocation_policy: str | None,
    assignment: str | None,
    etag: str | None,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Change the default allocation policy; it holds for the next registration."""
    if assignment is not None:
        name, _, value = assignment.partition("=")
        if name != PROPERTY:
            raise click.BadParameter(f"{name} cannot be set, only {PROPERTY} can", param_hint="--set")
        allocation_policy = allocation_policy or value
    if not allocation_policy:
        raise click.UsageError("say what to change: --allocation-policy")
    service = _service(login, data)
    if_match = None if etag is None else f'"{etag}"'
    document = {"allocationPolicy": allocation_policy}
    show(service.call("PATCH", PATH, document, if_match=if_match)[0], output, COLUMNS)


def _service(login: str | None, data: Path | None) -> Service:
    return Service(find_login(login, data, DPS_VARIABLES), DPS_API_VERSION)

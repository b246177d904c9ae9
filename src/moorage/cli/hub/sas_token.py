"""`moorage hub generate-sas-token`: a token for a back end, a device or a module."""

from __future__ import annotations

import time
from pathlib import Path

import click

from moorage.cli.device.connection_string import read_connection_string
from moorage.cli.hub.authentication import connection_string
from moorage.cli.hub.policy import OWNER
from moorage.cli.hub.reach import device_path
from moorage.cli.output import output_option, show
from moorage.cli.policy import KEY_TYPES
from moorage.cli.rest import HUB_API_VERSION, Service
from moorage.cli.target import HUB_VARIABLES, find_login, hub_login_options
from moorage.credentials.sas import make_token
from moorage.errors import Invalid


@click.command("generate-sas-token")
@click.option("--device-id", "-d", help="For a device: with its own key.")
@click.option("--module-id", "-m", help="For a module of the device.")
@click.option("--policy-name", "--pn", help="For a back end: by which policy; without it that of the login.")
@click.option("--key-type", "--kt", type=KEY_TYPES, default="primary", show_default=True)
@click.option(
    "--duration",
    "--du",
    type=click.IntRange(min=1),
    default=3600,
    show_default=True,
    help="How long it is good, in seconds.",
)
@click.option("--connection-string", "--cs", help="Of a device, a module or a policy; then nobody is asked.")
@output_option
@hub_login_options
def generate_sas_token(
    device_id: str | None,
    module_id: str | None,
    policy_name: str | None,
    key_type: str,
    duration: int,
    connection_string: str | None,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Make a SAS token."""
    if module_id is not None and device_id is None:
        raise click.UsageError("--module-id needs the --device-id of its device")
    text = connection_string or _configured(device_id, module_id, policy_name, key_type, login, data)
    found = read_connection_string(text)
    if found.key is None:
        raise Invalid("--connection-string", "it holds no key to sign with")
    expiry = int(time.time()) + duration
    token = make_token(found.resource, found.key, expiry, found.policy)
    show({"sas": token}, output, {"SAS": "sas"})


def _configured(
    device_id: str | None,
    module_id: str | None,
    policy_name: str | None,
    key_type: str,
    login: str | None,
    data: Path | None,
) -> str:
    """The connection string of whom the token is for."""
    found = find_login(login, data, HUB_VARIABLES)
    service = Service(found, HUB_API_VERSION)
    if device_id is not None:
        return connection_string(found.host, service.get(device_path(device_id, module_id)), key_type)
    name, key = found.policy, found.key
    if policy_name is not None or key_type != "primary":
        policy = service.get(f"{OWNER.path(found)}/policies/{policy_name or found.policy}")
        name, key = policy["keyName"], policy[f"{key_type}Key"]
    return f"HostName={found.host};SharedAccessKeyName={name};SharedAccessKey={key}"

"""As whom a command connects to a hub: the options, and the device they describe."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from moorage.cli.device.client import PROTOCOLS, HubDevice
from moorage.cli.device.connection_string import ConnectionString, read_connection_string
from moorage.cli.device.proof import (
    ca_file_of,
    certificate_options,
    check_base64,
    client_trust,
    name_in_certificate,
)
from moorage.cli.device.registering import register
from moorage.cli.device.registration import registering_device
from moorage.cli.hub.authentication import connection_string
from moorage.cli.hub.reach import device_path
from moorage.cli.rest import HUB_API_VERSION, Service
from moorage.cli.target import (
    HUB_VARIABLES,
    Login,
    NoServer,
    find_login,
    hub_login_options,
    running_server,
)
from moorage.errors import Invalid, MoorageError

F = TypeVar("F", bound=Callable[..., Any])


class NotAssigned(MoorageError):
    """The provisioning service knows the device, and gave it no hub."""


def device_options(function: F) -> F:
    for option in reversed(
        (
            click.option(
                "--device-id", "-d", help="Without it that of the connection string or certificate."
            ),
            click.option("--module-id", "-m", help="Connect as a module of the device."),
            click.option("--connection-string", "--cs", "configured", help="Of the device or module."),
            click.option(
                "--symmetric-key", "--key", help="Without key and certificate the registry is asked for it."
            ),
            certificate_options,
            click.option("--register", is_flag=True, help="Register with the provisioning service first."),
            click.option(
                "--registration-id", "--rid", help="With --register; without it the device id, or the CN."
            ),
            click.option("--id-scope", "--scope", help="With --register; without it the environment's."),
            click.option("--host", help="With --register: where; without it the environment's."),
            click.option(
                "--enrollment-group-id", "--gid", help="With --register: whose key the device's derives from."
            ),
            click.option(
                "--compute-key", "--ck", is_flag=True, help="With --register: the key is the group's."
            ),
            click.option("--dtmi", "--model-id", "model_id", help="The model that the device implements."),
            click.option(
                "--protocol", "--proto", type=click.Choice(PROTOCOLS), default="mqtt", show_default=True
            ),
        )
    ):
        function = option(function)
    return function


def server_options(function: F) -> F:
    """Login and hub as elsewhere. The folder has another name, since `--data` is a message's, as `az` has it."""
    return hub_login_options(function, data_option="--server-data")


def find_device(given: dict[str, Any], login: str | None, folder: Path | None) -> HubDevice:
    """The device that the options describe, registered if they say so. Raises Invalid, NotAssigned, Unavailable."""
    if given["register"]:
        return _registered(given, login, folder)
    if given["configured"] is None:
        found = find_login(login, folder, HUB_VARIABLES)
        ca_file = found.ca_file
        settings = _settings(given, found)
    else:
        settings = read_connection_string(given["configured"])
        ca_file = _ca_file(folder)
    device_id = given["device_id"] or settings.device_id
    if device_id is None:
        raise Invalid("--device-id", "say as which device to connect")
    if settings.key is None and given["certificate_file_path"] is None:
        raise Invalid(
            "--certificate-file-path", f"{device_id} proves itself by a certificate: give it, and its key"
        )
    return HubDevice(
        host=settings.host,
        device_id=device_id,
        module_id=given["module_id"] or settings.module_id,
        trust=client_trust(ca_file, given),
        key=settings.key,
        policy=settings.policy,
        address=settings.gateway,
        model_id=given["model_id"],
        https_port=settings.port or 443,
    )


def _settings(given: dict[str, Any], login: Login) -> ConnectionString:
    """Of a device of the login's hub. The registry is asked for the key where nothing else proves who it is."""
    device_id, module_id = given["device_id"] or name_in_certificate(given), given["module_id"]
    if device_id is None:
        raise Invalid("--device-id", "say as which device to connect")
    key = given["symmetric_key"]
    if key is None and given["certificate_file_path"] is None:
        document = Service(login, HUB_API_VERSION).get(device_path(device_id, module_id))
        key = read_connection_string(connection_string(login.host, document, "primary")).key
    elif key is not None:
        check_base64(key)
    return ConnectionString(login.host, device_id, module_id, key=key, port=login.port)


def _ca_file(folder: Path | None) -> str | None:
    """The environment's, else that of the server that runs here; where none does, the system's roots count."""
    if (named := ca_file_of(os.environ)) is not None:
        return named
    try:
        return ca_file_of(running_server(folder).env)
    except NoServer:
        return None


def _registered(given: dict[str, Any], login: str | None, folder: Path | None) -> HubDevice:
    registration_id = given["registration_id"] or given["device_id"] or name_in_certificate(given)
    if not registration_id:
        raise Invalid("--registration-id", "give the name under which the device registers")
    # --login is a hub's; whoever registers without key and certificate has them looked up where the server runs.
    registering = registering_device(registration_id, given, None, folder)
    answered = register(
        registering, given["protocol"], json.dumps({"registrationId": registration_id}).encode()
    )
    state = answered.get("registrationState") or {}
    if answered["status"] != "assigned":
        why = state.get("errorMessage") or "moorage explain says why"
        raise NotAssigned(f"{registration_id} is {answered['status']}: {why}")
    host = state["assignedHub"]
    click.echo(f"Registered: {registration_id} is {state['deviceId']} in {host}", err=True)
    return HubDevice(
        host=host,
        device_id=state["deviceId"],
        module_id=given["module_id"],
        trust=registering.trust,
        key=registering.key,
        model_id=given["model_id"],
        https_port=registering.https_port,
    )

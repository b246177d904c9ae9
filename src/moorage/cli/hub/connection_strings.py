"""`… device-identity connection-string show`, and the same of a module: what a device is configured with."""

from __future__ import annotations

from pathlib import Path

import click

from moorage.cli.hub.authentication import connection_string
from moorage.cli.hub.reach import device_id_option, device_path, hub_service, module_id_option
from moorage.cli.output import output_option, show
from moorage.cli.policy import KEY_TYPES
from moorage.cli.target import HUB_VARIABLES, find_login, hub_login_options


def connection_string_group(*, of_module: bool) -> click.Group:
    @click.group("connection-string")
    def group() -> None:
        """What the device is configured with."""

    def tell(
        device_id: str,
        key_type: str,
        output: str,
        login: str | None,
        data: Path | None,
        module_id: str | None = None,
    ) -> None:
        """Host, id and key; for a certificate `x509=true` in the key's place."""
        document = hub_service(login, data).get(device_path(device_id, module_id))
        host = find_login(login, data, HUB_VARIABLES).host
        text = connection_string(host, document, key_type)
        show({"connectionString": text}, output, {"CONNECTION STRING": "connectionString"})

    command = click.option("--key-type", "--kt", type=KEY_TYPES, default="primary", show_default=True)(
        output_option(hub_login_options(tell))
    )
    if of_module:
        command = module_id_option(command)
    group.command("show")(device_id_option(command))
    return group

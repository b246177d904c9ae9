"""`moorage hub invoke-device-method` and `invoke-module-method`: ask something of a connected device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from moorage.cli.hub.reach import (
    all_options,
    device_id_option,
    hub_service,
    module_id_option,
    twin_path,
)
from moorage.cli.json_values import json_value
from moorage.cli.output import output_option, show
from moorage.cli.target import hub_login_options

COLUMNS = {"STATUS": "status", "PAYLOAD": "payload"}
HTTP_MARGIN = 30  # seconds beyond what the hub may take


def _command(name: str, noun: str) -> click.Command:
    def invoke(
        device_id: str,
        method_name: str,
        method_payload: Any,
        timeout: int,
        connect_timeout: int | None,
        output: str,
        login: str | None,
        data: Path | None,
        module_id: str | None = None,
    ) -> None:
        body = {
            "methodName": method_name,
            "payload": method_payload,
            "responseTimeoutInSeconds": timeout,
            "connectTimeoutInSeconds": timeout if connect_timeout is None else connect_timeout,
        }
        patience = timeout + body["connectTimeoutInSeconds"] + HTTP_MARGIN
        service = hub_service(login, data)
        path = f"{twin_path(device_id, module_id)}/methods"
        answered, _ = service.call("POST", path, body, patience=patience)
        show(answered, output, COLUMNS)

    options = (
        device_id_option,
        *([module_id_option] if noun == "module" else []),
        click.option("--method-name", "--mn", required=True, help="Which method."),
        click.option(
            "--method-payload",
            "--mp",
            default="null",
            type=json_value,
            help="What it is given: JSON, or a file of it; without it null.",
        ),
        click.option(
            "--timeout",
            "--to",
            type=click.IntRange(5, 300),
            default=30,
            show_default=True,
            help="Seconds to wait for the answer.",
        ),
        click.option(
            "--method-connect-timeout",
            "--mct",
            "connect_timeout",
            type=click.IntRange(0, 300),
            help=f"Seconds to wait for the {noun} to come online; without it those of --timeout.",
        ),
        output_option,
        hub_login_options,
    )
    help_text = f"Call a method of a {noun}, and print what it answers."
    return click.command(name, help=help_text)(all_options(invoke, *options))


invoke_device_method = _command("invoke-device-method", "device")
invoke_module_method = _command("invoke-module-method", "module")

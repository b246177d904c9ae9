"""`moorage device send-d2c-message`: send a message as a device."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from moorage.cli.device.client import HubDevice, connect
from moorage.cli.device.connecting import device_options, find_device, server_options
from moorage.cli.device.messages import message_options


@click.command("send-d2c-message")
@message_options
@click.option(
    "--data-file-path",
    "--dfp",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file to send, byte for byte.",
)
@click.option("--msg-count", "--mc", type=click.IntRange(min=1), default=1, show_default=True)
@device_options
@server_options
def send_d2c_message(
    text: str,
    data_file_path: Path | None,
    properties: dict[str, str],
    msg_count: int,
    login: str | None,
    data: Path | None,
    **given: Any,
) -> None:
    """Send a message as a device, and return when the hub has it for good."""
    payload = data_file_path.read_bytes() if data_file_path is not None else text.encode()
    device = find_device(given, login, data)
    asyncio.run(_send(device, given["protocol"], payload, properties, msg_count))


async def _send(
    device: HubDevice, protocol: str, payload: bytes, properties: dict[str, str], count: int
) -> None:
    async with connect(device, protocol) as client:
        for _ in range(count):
            await client.send_event(payload, properties)

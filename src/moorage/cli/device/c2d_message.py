"""`moorage device c2d-message`: leave messages for a device, and empty its queue. The back end's side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from pathlib import Path
from typing import Any

import click

from moorage.cli.device.connecting import server_options
from moorage.cli.device.messages import message_options
from moorage.cli.feedback_reader import feedback, service_connection
from moorage.cli.hub.reach import device_id_option, device_path, hub_service
from moorage.cli.output import output_option, show
from moorage.cli.target import HUB_VARIABLES, Login, find_login, hub_login_options
from moorage.wire.amqp import Data, Message, Properties

DEVICEBOUND = "/messages/devicebound"


@click.group("c2d-message")
def c2d_message() -> None:
    """Cloud-to-device messages."""


@c2d_message.command()
@device_id_option
@message_options
@click.option(
    "--data-file-path",
    "--dfp",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file to send, byte for byte.",
)
@click.option("--message-id", "--mid", help="Without it one is made up.")
@click.option("--correlation-id", "--cid")
@click.option("--user-id", "--uid")
@click.option("--content-type", "--ct", default="text/plain", show_default=True)
@click.option("--content-encoding", "--ce", default="utf-8", show_default=True)
@click.option(
    "--expiry-time-utc",
    "--expiry",
    type=click.IntRange(min=0),
    help="Milliseconds since 1970; without it the hub's default counts, an hour.",
)
@click.option(
    "--ack",
    type=click.Choice(["none", "positive", "negative", "full"]),
    help="Of which outcomes to keep feedback.",
)
@click.option("--wait", "-w", is_flag=True, help="Wait for the feedback, and show it; takes --ack.")
@server_options
def send(
    device_id: str,
    text: str,
    data_file_path: Path | None,
    properties: dict[str, str],
    ack: str | None,
    wait: bool,
    login: str | None,
    data: Path | None,
    **given: Any,
) -> None:
    """Leave a message for a device, and return when the hub has it for good."""
    if wait and ack in (None, "none"):
        raise click.UsageError("--wait needs --ack: without it there is no feedback")
    payload = data_file_path.read_bytes() if data_file_path is not None else text.encode()
    message_id = given["message_id"] or str(uuid.uuid4())
    user_id = given["user_id"]
    message = Message(
        properties=Properties(
            message_id=message_id,
            user_id=user_id.encode() if user_id is not None else None,
            to=f"/devices/{device_id}/messages/devicebound",
            correlation_id=given["correlation_id"],
            content_type=given["content_type"],
            content_encoding=given["content_encoding"],
            absolute_expiry_time=given["expiry_time_utc"],
        ),
        application_properties={**properties, **({"iothub-ack": ack} if ack is not None else {})},
        body=Data.of(payload),
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_send(find_login(login, data, HUB_VARIABLES), message, message_id if wait else None))


async def _send(login: Login, message: Message, awaited: str | None) -> None:
    async with service_connection(login) as client:
        await client.send(DEVICEBOUND, message.encode())
        if awaited is None:
            return
        async with contextlib.aclosing(feedback(client)) as batches:
            async for batch in batches:
                found = [record for record in batch.records if record["originalMessageId"] == awaited]
                if found:  # other batches are left to others
                    await client.accept(batch.delivery)
                    click.echo(json.dumps({"feedback": found[0]}, indent=4, ensure_ascii=False))
                    return


@c2d_message.command()
@device_id_option
@output_option
@hub_login_options
def purge(device_id: str, output: str, login: str | None, data: Path | None) -> None:
    """Empty the queue of a device; says how many messages that were."""
    purged, _ = hub_service(login, data).call("DELETE", f"{device_path(device_id)}/commands")
    show(purged, output, {"DEVICE": "deviceId", "PURGED": "totalMessagesPurged"})

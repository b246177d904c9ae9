"""`moorage hub monitor-feedback`: what becomes of cloud-to-device messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import click

from moorage.cli.feedback_reader import feedback, service_connection
from moorage.cli.target import HUB_VARIABLES, Login, find_login, hub_login_options


@click.command("monitor-feedback")
@click.option("--device-id", "-d", help="Only of this device.")
@click.option(
    "--wait-on-msg", "-w", help="End when this message has its feedback; leave other batches to others."
)
@hub_login_options
def monitor_feedback(
    device_id: str | None, wait_on_msg: str | None, login: str | None, data: Path | None
) -> None:
    """Show what becomes of the cloud-to-device messages whose sender asked for it (--ack), as it comes in.

    What is shown is taken from the hub's queue. Ctrl-C ends it.
    """
    target = find_login(login, data, HUB_VARIABLES)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_monitor(target, device_id, wait_on_msg))


async def _monitor(login: Login, device_id: str | None, message_id: str | None) -> None:
    async with service_connection(login) as client:
        click.echo(f"Waiting for feedback of {login.host}. Ctrl-C ends it.", err=True)
        async with contextlib.aclosing(feedback(client)) as batches:
            async for batch in batches:
                awaited = any(record["originalMessageId"] == message_id for record in batch.records)
                if message_id is not None and not awaited:
                    continue
                await client.accept(batch.delivery)
                for record in batch.records:
                    if device_id in (None, record["deviceId"]):
                        click.echo(json.dumps({"feedback": record}, indent=4, ensure_ascii=False))
                if awaited:
                    return

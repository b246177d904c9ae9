"""`moorage up`: the server in the foreground."""

from __future__ import annotations

import asyncio
import gc
import re
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import moorage
from moorage import logs
from moorage.cli.browser import open_in_browser
from moorage.config import Config

if TYPE_CHECKING:
    from moorage.app import Server


SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
FUNCTION_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")  # as enrollments may name one
BYTES = {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}


def duration(text: str) -> timedelta:
    """`90`, `90s`, `15m`, `36h`, `7d`, with a sign where one makes sense."""
    unit = SECONDS.get(text[-1:])
    try:
        return timedelta(seconds=float(text[:-1] if unit else text) * (unit or 1))
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is not a duration such as 90s, 15m, 36h or 7d") from None


def size(text: str) -> int:
    """`1048576`, `64MiB`, `10GiB`."""
    unit = BYTES.get(text[-3:].lower())
    try:
        return int(float(text[:-3] if unit else text) * (unit or 1))
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is not a size such as 64MiB or 10GiB") from None


def named_file(text: str) -> tuple[str, Path]:
    """`NAME=FILE`."""
    name, _, file = text.partition("=")
    if not file or not FUNCTION_NAME.fullmatch(name):
        raise click.BadParameter(
            f"{text!r} is not NAME=FILE.py, the name in up to 64 letters, digits and _ . -"
        )
    return name, Path(file)


SWITCH_INTERVAL = 0.0005  # seconds after which a thread has to let another one run
COLLECT_AFTER = (
    5_000,
    20,
    20,
)  # objects, and rounds: by Python's 700, 10, 10 a fifth of a busy loop is collecting

defaults = Config()


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=defaults.data,
    show_default=True,
    help="Folder that keeps everything; made when missing.",
)
@click.option("--in-memory", is_flag=True, help="Keep nothing: records and telemetry end with the server.")
@click.option(
    "--bind", multiple=True, help="Address to listen on, may be repeated. Without it loopback only."
)
@click.option(
    "--hub-host",
    default=defaults.hub_host,
    show_default=True,
    help="Name under which devices are told to reach the hub.",
)
@click.option("--domain", help="Name everything under a real domain: hub.DOMAIN and dps.DOMAIN.")
@click.option(
    "--ca",
    type=click.Path(path_type=Path, file_okay=False),
    default=defaults.ca,
    help="Folder of the local CA; one per user by default, so that trust is given once.",
)
@click.option(
    "--server-certificate",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Your own certificate chain, PEM, instead of one from the local CA.",
)
@click.option(
    "--server-key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Its private key, PEM."
)
@click.option(
    "--server-key-type",
    type=click.Choice(["ec", "rsa"]),
    default=defaults.server_key_type,
    show_default=True,
    help="Key of the certificate that the local CA issues.",
)
@click.option(
    "--partitions",
    type=int,
    default=defaults.partitions,
    show_default=True,
    help="Partitions of the built-in endpoint; fixed once the hub exists.",
)
@click.option(
    "--retention", type=duration, default="1d", show_default=True, help="How long telemetry is kept."
)
@click.option("--retention-size", type=size, help="How much telemetry is kept at the most, such as 10GiB.")
@click.option(
    "--registration-pace",
    type=click.Choice(["fast", "azure"]),
    default=defaults.registration_pace,
    show_default=True,
    help="azure: every device polls, at Azure's pace.",
)
@click.option(
    "--limits",
    type=click.Choice(["none", "azure"]),
    default=defaults.limits,
    show_default=True,
    help="azure: who asks the provisioning service too often is told 429, at Azure's rates.",
)
@click.option(
    "--webhook-ca",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CA certificates that custom allocation webhooks are trusted by, beside the system's; PEM.",
)
@click.option(
    "--allocation-function",
    "allocation_functions",
    type=named_file,
    multiple=True,
    metavar="NAME=FILE.py",
    help="Custom allocation by a Python function: allocate(request) in FILE. Enrollments name it python:NAME.",
)
@click.option(
    "--clock-offset",
    type=duration,
    default="0s",
    help="Shift the server's clock, to meet expiry without waiting.",
)
@click.option("--max-connections", type=int, default=defaults.max_connections, show_default=True)
@click.option(
    "--drain-timeout",
    type=float,
    default=defaults.drain_timeout,
    show_default=True,
    help="Seconds that a stop waits for connections to close.",
)
@click.option(
    "--amqp-plain-port",
    type=click.IntRange(0, 65_535),
    metavar="PORT",
    help="Open AMQP without TLS at this port of loopback, 5672 by custom: tokens travel in the clear.",
)
@click.option(
    "--amqp-plain-anywhere", is_flag=True, help="Open it at every address, for others to read the tokens too."
)
@click.option("--portal-port", type=int, default=defaults.portal_port, show_default=True)
@click.option(
    "--portal-bind", help="Address of the portal instead of loopback; over TLS where others can reach it."
)
@click.option(
    "--portal-host",
    "portal_hosts",
    multiple=True,
    help="A further name that browsers may know the portal by; may be repeated.",
)
@click.option("--open", "open_portal", is_flag=True, help="Open the portal in a browser.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default=defaults.log_format, show_default=True
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default=defaults.log_level,
    show_default=True,
)
def up(
    data: Path,
    in_memory: bool,
    bind: tuple[str, ...],
    retention_size: int | None,
    allocation_functions: tuple[tuple[str, Path], ...],
    open_portal: bool,
    **options: Any,
) -> None:
    """Run the server in the foreground: one DPS instance and one linked hub.

    Ends cleanly on SIGTERM and Ctrl-C. SIGHUP reloads the server certificate.
    """
    config = Config(
        data=None if in_memory else data,
        bind=bind,
        retention_bytes=retention_size,
        allocation_functions=dict(allocation_functions),
        **options,
    ).check()
    logs.set_up(config.log_format, config.log_level)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(config, open_portal=open_portal))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one; elsewhere asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(config: Config, *, open_portal: bool) -> None:
    # What start-up makes lives as long as the server. The collector would look at it again and again while it is
    # made, an eighth of the whole start, and need not later.
    gc.disable()
    from moorage.app import Server

    stop = asyncio.Event()
    server = Server(config)
    _on_signals(stop, server.reload)
    await server.start()
    try:
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        gc.enable()
        # The log's writer waits for the interpreter after each sync: 5 ms, the default, would be its latency.
        sys.setswitchinterval(SWITCH_INTERVAL)
        print(await _banner(server), flush=True)
        if open_portal:
            await open_in_browser(server.portal_link())
        await stop.wait()
    finally:
        await server.stop()


def _on_signals(stop: asyncio.Event, reload: Callable[[], None]) -> None:
    """SIGTERM and Ctrl-C end the server, SIGHUP reloads certificates; on Windows only Ctrl-C and Break exist."""
    loop = asyncio.get_running_loop()
    acts = {"SIGTERM": stop.set, "SIGINT": stop.set, "SIGBREAK": stop.set, "SIGHUP": reload}
    for name, act in acts.items():
        number = getattr(signal, name, None)
        if number is None:
            continue
        try:
            loop.add_signal_handler(number, act)
        except (NotImplementedError, AttributeError):  # Windows: its loops take no signal handlers
            signal.signal(number, lambda *_, act=act: loop.call_soon_threadsafe(act))


def _plain_amqp(server: Server) -> list[str]:
    places = ", ".join(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in server.amqp_plain
    )
    return [f"  plain AMQP   {places}    without TLS: tokens travel in the clear"] if places else []


async def _banner(server: Server) -> str:
    environment = await server.environment()
    hub = environment["IOTHUB_HOSTNAME"]
    ports = {name: server.port(name) for name in ("mqtt", "amqp", "https")}
    kept = "nothing is kept" if server.config.data is None else str(server.config.data.resolve())
    where = "" if server.config.data in (None, defaults.data) else f" --data {server.config.data}"
    lines = [
        f"Moorage {moorage.__version__} is ready.",
        "",
        f"  DPS          {environment['PROVISIONING_HOST']}    ID scope {server.service.id_scope}",
        f"  hub          {hub}    MQTT {ports['mqtt']}, AMQP {ports['amqp']}, HTTPS and WebSockets {ports['https']}",
        *_plain_amqp(server),
        f"  data         {kept}",
        f"  CA           {environment.get('MOORAGE_CA_FILE', 'your own certificate')}",
        f"  portal       {server.portal_link()}",
        f"  status       {server.portal_url}/readyz  /healthz  /metrics",
        "",
        "  azure-eventhub reads the built-in endpoint with",
        '    EventHubConsumerClient.from_connection_string(os.environ["EVENTHUB_CONNECTION_STRING"], "$Default", '
        'connection_verify=os.environ["SSL_CERT_FILE"])',
        "",
        *(f"  Note: {warning}" for warning in server.warnings),
        f'Next, in another terminal:  eval "$(moorage env{where})"',
    ]
    return "\n".join(lines)

"""The command line. A command's module is imported when that command runs, so that `moorage up` starts quickly."""

from __future__ import annotations

import importlib
import sys

import click

import moorage
from moorage.errors import MoorageError


class LazyGroup(click.Group):
    """A group whose commands are named here and imported on use.

    `lazy` maps a command's name to `module:attribute` and its one-line help, so that `--help` imports nothing.
    """

    def __init__(self, *args: object, lazy: dict[str, tuple[str, str]], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.lazy.items()])


@click.command(
    cls=LazyGroup,
    lazy={
        "up": ("moorage.cli.up:up", "Run the server in the foreground."),
        "env": ("moorage.cli.env:env", 'The running server\'s environment, for eval "$(moorage env)".'),
        "wait": ("moorage.cli.env:wait", "Return when the server is ready."),
        "portal": ("moorage.cli.portal:portal", "A link that opens the portal, signed in."),
        "quickstart": (
            "moorage.cli.quickstart:quickstart",
            "Walk the whole quickstart with Microsoft's Python SDK.",
        ),
        "explain": ("moorage.cli.explain:explain", "Why a device was refused, or let in."),
        "doctor": (
            "moorage.cli.doctor:doctor",
            "What is wrong on this machine, and the command that mends it.",
        ),
        "trust": ("moorage.cli.trust:trust", "Make clients on this machine trust the local CA."),
        "cert": ("moorage.cli.cert:cert", "Certificates for devices: make, break, verify, inspect."),
        "dps": ("moorage.cli.dps:dps", "The Device Provisioning Service."),
        "device": ("moorage.cli.device:device", "What a device does."),
        "hub": ("moorage.cli.hub:hub", "The IoT hub."),
        "swarm": (
            "moorage.cli.swarm.command:swarm",
            "Be thousands of devices, to find what a server can bear.",
        ),
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(moorage.__version__)
def moorage_command() -> None:
    """Azure IoT Hub and its Device Provisioning Service on your own machine."""


def main() -> None:
    """The console script: errors of ours end in one clear line and exit code 1."""
    try:
        moorage_command(prog_name="moorage")
    except MoorageError as error:
        print(f"moorage: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)

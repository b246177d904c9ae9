"""`moorage cert broken`: certificates with one flaw, for people who test how their programs take it."""

from __future__ import annotations

from typing import Any

import click

from moorage.cli.cert.files import COLUMNS, Output, facts, file_options, stem_of, wish, wish_options, write
from moorage.cli.output import output_option, show
from moorage.credentials.files import KEY_MODE
from moorage.credentials.keys import key_pem
from moorage.credentials.workshop.credential import pem
from moorage.credentials.workshop.flaws import FLAWS
from moorage.credentials.workshop.subject import name_of


def _list_flaws(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        rows = [{"flaw": name, "what": flaw.what} for name, flaw in FLAWS.items()]
        show(rows, "table", {"FLAW": "flaw", "WHAT IS WRONG": "what"})
        context.exit()


@click.command()
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_flaws, help="All flaws."
)
@click.option(
    "--flaw", required=True, type=click.Choice(list(FLAWS)), metavar="FLAW", help="What is to be wrong."
)
@wish_options(days=365)
@file_options
@output_option
def broken(flaw: str, **settings: Any) -> None:
    """Make a device's certificate that is wrong in one way, and right in all others.

    Beside the usual files there is the root that a service has to trust for the flaw to come out. The full chain is
    what the device presents.
    """
    chosen = wish(settings)
    made = FLAWS[flaw].make(chosen)
    stem = stem_of(f"{name_of(chosen.subject)}-{flaw}", settings["name"])
    out, key = settings["out"], key_pem(made.key, settings["pass_phrase"])
    outputs = [
        Output("certificate", out / f"{stem}.pem", pem([made.certificate])),
        Output("key", out / f"{stem}.key.pem", key, KEY_MODE),
        Output("fullChain", out / f"{stem}.fullchain.pem", pem(made.sent)),
        Output("root", out / f"{stem}.root.pem", pem([made.root])),
    ]
    written = write(outputs, force=settings["force"])
    shown = {"flaw": flaw, "what": FLAWS[flaw].what, **facts(made.certificate), "files": written}
    show(shown, settings["output"], {"FLAW": "flaw", **COLUMNS})

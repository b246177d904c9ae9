"""`moorage cert inspect`: what files of certificates, requests and keys hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from moorage.cli.cert.files import now, read
from moorage.cli.output import show
from moorage.credentials.workshop import inspection
from moorage.errors import Invalid


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--pass-phrase", envvar="MOORAGE_PASS_PHRASE", show_envvar=True, help="Of a key or a PFX.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
def inspect(files: tuple[Path, ...], pass_phrase: str | None, output: str) -> None:
    """Show what FILES hold: PEM, DER, PKCS#7, PFX, signing requests, keys. No secret is shown."""
    found = []
    for file in files:
        try:
            items = inspection.inspect(read(file), now(), pass_phrase)
        except Invalid as error:
            raise Invalid(str(file), error.why) from None
        found += [{"file": str(file), **item} for item in items]
    if output == "json":
        show(found, "json", {})
    else:
        click.echo("\n\n".join("\n".join(_lines(item)) for item in found))


def _lines(item: Mapping[str, Any]) -> Iterator[str]:
    yield f"{item['file']}: {item['kind']}"
    for name, value in item.items():
        if name not in ("file", "kind", "remarks") and value is not None:
            yield f"  {name:<18}{_text(value)}"
    for remark in item["remarks"]:
        yield f"  !                 {remark}"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

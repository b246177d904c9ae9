"""`moorage cert verify`: whether a chain holds, link by link, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from moorage.cli.cert.files import now, read, read_chain
from moorage.cli.output import show
from moorage.credentials.keys import public_bytes, read_key
from moorage.credentials.workshop.verification import Link, Report
from moorage.credentials.workshop.verification import verify as judge
from moorage.errors import Invalid


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--trust",
    "trusted",
    multiple=True,
    type=click.Path(path_type=Path),
    help="CA certificates to trust, as a service has them; without it the root in the chain.",
)
@click.option("--common-name", "--cn", help="What the device has to be called: its registration id.")
@click.option(
    "--key", "key_file", type=click.Path(path_type=Path), help="Whether this is the key of the leaf."
)
@click.option("--pass-phrase", envvar="MOORAGE_PASS_PHRASE", show_envvar=True, help="Of that key.")
@click.option(
    "--at", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]), help="When, in UTC; without it now."
)
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
def verify(
    files: tuple[Path, ...],
    trusted: tuple[Path, ...],
    common_name: str | None,
    key_file: Path | None,
    pass_phrase: str | None,
    at: datetime | None,
    output: str,
) -> None:
    """Judge the certificates in FILES, the device's first, as the services would. Exit code 1 if one does not hold."""
    moment = at.replace(tzinfo=UTC) if at is not None else now()
    sent = [certificate for file in files for certificate in read_chain(file)]
    anchors = [certificate for file in trusted for certificate in read_chain(file)]
    report = judge(
        [each.public_bytes(Encoding.DER) for each in sent],
        [each.public_bytes(Encoding.DER) for each in anchors],
        int(moment.timestamp()) * 1_000_000,
        common_name=common_name,
    )
    fits = _fits(sent[0], key_file, pass_phrase) if key_file is not None else None
    holds = report.holds and fits is not False
    if output == "json":
        show(_document(report, fits, holds), "json", {})
    else:
        click.echo("\n".join(_lines(report, fits, holds)))
    click.get_current_context().exit(0 if holds else 1)


def _fits(leaf: x509.Certificate, key_file: Path, pass_phrase: str | None) -> bool:
    try:
        key = read_key(read(key_file), pass_phrase)
    except Invalid as error:
        raise Invalid(str(key_file), error.why) from None
    return public_bytes(key.public_key()) == public_bytes(leaf.public_key())


def _lines(report: Report, fits: bool | None, holds: bool) -> Iterator[str]:
    for link in report.links:
        yield f"{'ok     ' if link.holds else 'FAILED '} {_text(link)}"
        for flaw, remedy in zip(link.flaws, link.remedies, strict=True):
            yield f"         why     {flaw}"
            yield f"         remedy  {remedy}"
    if report.gap:
        yield f"FAILED  {report.gap}"
    if fits is not None:
        yield (
            "ok      the key is that of the first certificate"
            if fits
            else ("FAILED  the key is not that of the first certificate")
        )
    for note in report.notes:
        yield f"note    {note}"
    yield "The chain holds." if holds else "The chain does not hold."


def _text(link: Link) -> str:
    subject = link.certificate.subject or "(no subject)"
    return f"{subject}, issued by {link.issuer.subject}" if link.issuer else subject


def _document(report: Report, fits: bool | None, holds: bool) -> dict[str, Any]:
    links = [
        {
            "subject": link.certificate.subject,
            "issuer": link.certificate.issuer,
            "sha256Thumbprint": link.certificate.sha256,
            "holds": link.holds,
            "flaws": list(link.flaws),
            "remedies": list(link.remedies),
        }
        for link in report.links
    ]
    document: dict[str, Any] = {
        "holds": holds,
        "links": links,
        "gap": report.gap,
        "notes": list(report.notes),
    }
    return document if fits is None else document | {"keyFits": fits}

"""`moorage cert`: the certificate workshop. It works on files, and needs no server."""

import click

from moorage.cli import LazyGroup


@click.command(
    cls=LazyGroup,
    lazy={
        "root": ("moorage.cli.cert.issue:root", "A root CA."),
        "intermediate": ("moorage.cli.cert.issue:intermediate", "A CA below another."),
        "device": ("moorage.cli.cert.issue:device", "A device's certificate, issued by a CA or by itself."),
        "proof": ("moorage.cli.cert.issue:proof", "Proof of possession of a CA's key, by verification code."),
        "request": ("moorage.cli.cert.request:request", "A signing request (CSR) and its key."),
        "broken": ("moorage.cli.cert.broken:broken", "A certificate with a flaw, to test error handling."),
        "verify": ("moorage.cli.cert.verify:verify", "Whether a chain holds, link by link, and why not."),
        "inspect": ("moorage.cli.cert.inspect:inspect", "What a file of certificates or keys holds."),
    },
)
def cert() -> None:
    """Certificates for devices and for tests: make, break, verify and inspect them."""

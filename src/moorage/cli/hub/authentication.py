"""How a device or module proves itself: the options of `az iot hub`, and the JSON member they make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from moorage.cli.hub.reach import all_options
from moorage.errors import Invalid

F = TypeVar("F", bound=Callable[..., Any])

METHODS = {
    "shared_private_key": "sas",
    "x509_thumbprint": "selfSigned",
    "x509_ca": "certificateAuthority",
}
DEFAULT_DAYS = 365


class _Pair(NamedTuple):
    """A primary and a secondary of something, in the JSON and on the command line."""

    member: str
    names: dict[str, str]
    method: str


_KEYS = _Pair("symmetricKey", {"primaryKey": "primary_key", "secondaryKey": "secondary_key"}, "sas")
_THUMBPRINTS = _Pair(
    "x509Thumbprint",
    {"primaryThumbprint": "primary_thumbprint", "secondaryThumbprint": "secondary_thumbprint"},
    "selfSigned",
)


def authentication_options(function: F) -> F:
    return all_options(
        function,
        click.option(
            "--auth-method",
            "--am",
            type=click.Choice(list(METHODS)),
            help="How it proves itself: by a key, a certificate of its own, or one that a CA of the hub signed.",
        ),
        click.option("--primary-key", "--pk", help="Symmetric key, base64; made when left out."),
        click.option("--secondary-key", "--sk", help="Symmetric key, base64; made when left out."),
        click.option(
            "--primary-thumbprint", "--ptp", help="SHA-1 or SHA-256 of the certificate, hexadecimal."
        ),
        click.option("--secondary-thumbprint", "--stp", help="Of a second certificate."),
    )


def certificate_options(function: F) -> F:
    """On create alone: a certificate made on the spot."""
    return all_options(
        function,
        click.option(
            "--valid-days",
            "--vd",
            type=click.IntRange(min=1),
            help=f"Make a self-signed certificate for it, valid as long; without it {DEFAULT_DAYS}.",
        ),
        click.option(
            "--output-dir",
            "--od",
            type=click.Path(path_type=Path, file_okay=False, exists=True),
            help="Make a self-signed certificate for it, and put it and its key there.",
        ),
    )


def changed_authentication(held: dict[str, Any] | None, given: dict[str, Any]) -> dict[str, Any]:
    """`held` with what the options name put in; empty when neither says anything. Raises Invalid."""
    authentication = dict(held or {})
    method = METHODS[given["auth_method"]] if given["auth_method"] else None
    if method is not None and authentication.get("type") != method:
        authentication = {"type": method}
    for pair in (_KEYS, _THUMBPRINTS):
        named = {name: given[option] for name, option in pair.names.items() if given[option] is not None}
        if named:
            authentication.setdefault("type", pair.method)
            _check(pair, authentication["type"], next(iter(named)))
            authentication[pair.member] = {**(authentication.get(pair.member) or {}), **named}
    if method == "selfSigned" and not authentication.get(_THUMBPRINTS.member):
        raise Invalid(
            "--primary-thumbprint", "x509_thumbprint needs one, or --output-dir to make a certificate"
        )
    return authentication


def _check(pair: _Pair, method: str, name: str) -> None:
    """What another method would drop is a mistake of whoever typed it."""
    if method != pair.method:
        wanted = next(option for option, kind in METHODS.items() if kind == pair.method)
        option = "--" + pair.names[name].replace("_", "-")
        raise Invalid(option, f"it goes with --auth-method {wanted}, and this identity has {method}")


def with_made_certificate(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """`given`, with the thumbprint of a self-signed certificate where one was asked for.

    Its files, `{name}.pem` and what else `moorage cert device` writes, are in the output folder, and are not
    written over. Raises Invalid.
    """
    days, folder = given.pop("valid_days"), given.pop("output_dir")
    if days is None and folder is None:
        return given
    from moorage.cli.cert.files import credential_outputs, facts, now, stem_of, write
    from moorage.credentials.issuing import common_name
    from moorage.credentials.workshop.credential import Wish, make_device

    if given["auth_method"] != "x509_thumbprint":
        raise Invalid("--auth-method", "a certificate is made for x509_thumbprint alone")
    made = make_device(Wish(common_name(name), now(), days or DEFAULT_DAYS))
    outputs = credential_outputs(made, folder or Path(), stem_of(made.common_name, None), None)
    for file in write(outputs, force=False).values():
        click.echo(f"Written: {file}", err=True)
    return given | {"primary_thumbprint": facts(made.certificate)["sha256Thumbprint"]}


def connection_string(host: str, document: dict[str, Any], key_type: str) -> str:
    """What the device or module of that identity is configured with [hub-device 2.1]. Raises Invalid."""
    parts = [f"HostName={host}", f"DeviceId={document['deviceId']}"]
    if document.get("moduleId") is not None:
        parts.append(f"ModuleId={document['moduleId']}")
    kind = document["authentication"]["type"]
    if kind == "sas":
        parts.append(f"SharedAccessKey={document['authentication']['symmetricKey'][f'{key_type}Key']}")
    elif kind in ("selfSigned", "certificateAuthority"):
        parts.append("x509=true")
    else:
        raise Invalid("--device-id", f"its authentication is {kind}, for which there is no connection string")
    return ";".join(parts)

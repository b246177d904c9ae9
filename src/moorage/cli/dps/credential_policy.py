"""`moorage dps credential-policy`: what certificates devices are given when they ask for one [dps 20.1]."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from moorage.cli.output import output_option, show
from moorage.cli.rest import DPS_API_VERSION, Service
from moorage.cli.target import DPS_VARIABLES, find_login, login_options

ROOT = "/moorage/v1/credentialPolicies"
COLUMNS = {
    "NAME": "name",
    "DAYS": "validityPeriodInDays",
    "USAGES": "extendedKeyUsages",
    "LAST UPDATED": "lastUpdatedDateTimeUtc",
}

F = TypeVar("F", bound=Any)

name_option = click.option("--policy-name", "--name", "-n", "name", required=True, help="Its name.")
etag_option = click.option("--etag", "-e", default="*", help="Only this version.")


def settings_options(function: F) -> F:
    days = click.option("--days", type=int, help="How long a certificate is valid: 1 to 90, else 30.")
    usages = click.option(
        "--usage",
        "usages",
        type=click.Choice(["clientAuth", "serverAuth"], case_sensitive=False),
        multiple=True,
        help="What certificates may be used for; else clientAuth. Several times for both.",
    )
    return days(usages(function))


@click.group()
def credential_policy() -> None:
    """Credential policies, which enrollments name."""


@credential_policy.command()
@name_option
@settings_options
@output_option
@login_options
def create(
    name: str, days: int | None, usages: tuple[str, ...], output: str, login: str | None, data: Path | None
) -> None:
    """Make a credential policy."""
    show(_service(login, data).put(_path(name), _settings(days, usages)), output, COLUMNS)


@credential_policy.command("list")
@output_option
@login_options
def list_(output: str, login: str | None, data: Path | None) -> None:
    """All credential policies."""
    show(_service(login, data).get(ROOT), output, COLUMNS)


@credential_policy.command("show")
@name_option
@output_option
@login_options
def show_(name: str, output: str, login: str | None, data: Path | None) -> None:
    """One credential policy."""
    show(_service(login, data).get(_path(name)), output, COLUMNS)


@credential_policy.command()
@name_option
@settings_options
@etag_option
@output_option
@login_options
def update(
    name: str,
    days: int | None,
    usages: tuple[str, ...],
    etag: str,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Change a credential policy; what is not named stays. Certificates that were issued stay as they are."""
    service = _service(login, data)
    document = service.get(_path(name)) | _settings(days, usages)
    show(service.put(_path(name), document, if_match=etag), output, COLUMNS)


@credential_policy.command()
@name_option
@etag_option
@login_options
def delete(name: str, etag: str, login: str | None, data: Path | None) -> None:
    """Delete a credential policy. Devices of enrollments that name it are given no certificate from then on."""
    _service(login, data).delete(_path(name), if_match=etag)


def _settings(days: int | None, usages: tuple[str, ...]) -> dict[str, Any]:
    settings = {"validityPeriodInDays": days, "extendedKeyUsages": list(usages) or None}
    return {name: value for name, value in settings.items() if value is not None}


def _service(login: str | None, data: Path | None) -> Service:
    return Service(find_login(login, data, DPS_VARIABLES), DPS_API_VERSION)


def _path(name: str) -> str:
    return f"{ROOT}/{quote(name, safe='')}"

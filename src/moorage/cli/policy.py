"""The commands on shared access policies, which the provisioning service and the hub have alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import click

from moorage.cli.listed_values import ListedValues, listed
from moorage.cli.output import output_option, show
from moorage.cli.rest import HUB_API_VERSION, Service
from moorage.cli.target import Login, find_login

F = TypeVar("F", bound=Callable[..., Any])

COLUMNS = {"NAME": "keyName", "RIGHTS": "rights", "PRIMARY KEY": "primaryKey"}
KEY_TYPES = click.Choice(["primary", "secondary"])

name_option = click.option("--policy-name", "--name", "--pn", "-n", required=True, help="Name of the policy.")
etag_option = click.option("--etag", "-e", help="Only if this is its version.")


class Owner(NamedTuple):
    """Whose policies: the environment's names of a login, the path below which they are, and the words."""

    variables: tuple[str, ...]
    path: Callable[[Login], str]
    default_policy: str
    rights_option: tuple[str, ...]
    rights: str
    login_options: Callable[[Any], Any]


def policy_group(owner: Owner) -> click.Group:
    """`policy create|list|show|update|renew-key|delete`."""

    def reach(login: str | None, data: Path | None, name: str | None = None) -> tuple[Service, str]:
        found = find_login(login, data, owner.variables)
        path = f"{owner.path(found)}/policies" + (f"/{quote(name, safe='')}" if name is not None else "")
        return Service(found, HUB_API_VERSION), path

    def login_options(function: F) -> F:
        made: F = owner.login_options(function)
        return made

    def key_options(function: F) -> F:
        for option in (
            click.option("--secondary-key", "--sk", help="Base64; made when left out."),
            click.option("--primary-key", "--pk", help="Base64; made when left out."),
        ):
            function = option(function)
        return function

    def rights_option(*, required: bool) -> Callable[[F], F]:
        return click.option(
            *owner.rights_option, "rights", multiple=True, required=required, help=f"Of {owner.rights}."
        )

    @click.group()
    def policy() -> None:
        """Shared access policies: names with two keys and rights, which back ends and tools sign with."""

    @policy.command(cls=ListedValues)
    @name_option
    @rights_option(required=True)
    @key_options
    @output_option
    @login_options
    def create(
        policy_name: str,
        rights: tuple[str, ...],
        output: str,
        login: str | None,
        data: Path | None,
        **keys: Any,
    ) -> None:
        """Create a policy."""
        service, path = reach(login, data, policy_name)
        show(service.put(path, _document(rights, keys)), output, COLUMNS)

    @policy.command("list")
    @output_option
    @login_options
    def list_(output: str, login: str | None, data: Path | None) -> None:
        """All policies, keys included."""
        service, path = reach(login, data)
        show(service.get(path), output, COLUMNS)

    @policy.command("show")
    @name_option
    @output_option
    @login_options
    def show_(policy_name: str, output: str, login: str | None, data: Path | None) -> None:
        """One policy, keys included."""
        service, path = reach(login, data, policy_name)
        show(service.get(path), output, COLUMNS)

    @policy.command(cls=ListedValues)
    @name_option
    @rights_option(required=False)
    @key_options
    @etag_option
    @output_option
    @login_options
    def update(
        policy_name: str,
        rights: tuple[str, ...],
        etag: str | None,
        output: str,
        login: str | None,
        data: Path | None,
        **keys: Any,
    ) -> None:
        """Change the rights or keys of a policy; what is not named stays."""
        service, path = reach(login, data, policy_name)
        show(service.put(path, _document(rights, keys), if_match=f'"{etag or "*"}"'), output, COLUMNS)

    @policy.command("renew-key")
    @name_option
    @click.option(
        "--renew-key",
        "--rk",
        "key",
        required=True,
        type=click.Choice(["primary", "secondary", "swap"]),
        help="Which key to make anew; swap exchanges the two.",
    )
    @etag_option
    @output_option
    @login_options
    def renew_key(
        policy_name: str, key: str, etag: str | None, output: str, login: str | None, data: Path | None
    ) -> None:
        """Make a new key. What the old one has signed is worth nothing from then on."""
        service, path = reach(login, data, policy_name)
        if_match = None if etag is None else f'"{etag}"'
        show(service.call("POST", f"{path}/renewKey", {"key": key}, if_match=if_match)[0], output, COLUMNS)

    @policy.command()
    @name_option
    @etag_option
    @login_options
    def delete(policy_name: str, etag: str | None, login: str | None, data: Path | None) -> None:
        """Delete a policy. What its keys have signed is worth nothing from then on."""
        service, path = reach(login, data, policy_name)
        service.delete(path, if_match=f'"{etag or "*"}"')

    return policy


def _document(rights: tuple[str, ...], keys: dict[str, Any]) -> dict[str, Any]:
    members = {"primaryKey": keys["primary_key"], "secondaryKey": keys["secondary_key"]}
    document = {name: value for name, value in members.items() if value is not None}
    return document | ({"rights": listed(rights)} if rights else {})


def show_connection_strings(
    owner: Owner,
    login: Login,
    *,
    name: str | None,
    every: bool,
    key_type: str,
    output: str,
    write: Callable[[str, str], str],
) -> None:
    """Of one policy, or of all. `write` puts policy name and key into a connection string."""
    service, path = Service(login, HUB_API_VERSION), f"{owner.path(login)}/policies"
    chosen = quote(name or owner.default_policy, safe="")
    found = service.get(path) if every else [service.get(f"{path}/{chosen}")]
    strings = [write(each["keyName"], each[f"{key_type}Key"]) for each in found]
    columns = {"CONNECTION STRING": "connectionString"}
    if every:
        show([{"connectionString": each} for each in strings], output, columns)
    else:
        show({"connectionString": strings[0]}, output, columns)


def connection_string(login: Login, name: str, key: str) -> str:
    """What SDKs and `--login` take, for the host and port that `login` names."""
    port = "" if login.port is None else f":{login.port}"
    return f"HostName={login.host}{port};SharedAccessKeyName={name};SharedAccessKey={key}"

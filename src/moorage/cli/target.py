"""Whom a command talks to: `--login`, else the environment, else the server that runs on this machine."""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from moorage.errors import Invalid, MoorageError, Unavailable
from moorage.store.folder import RunInfo, find_servers

DPS_VARIABLES = ("PROVISIONING_SERVICE_CONNECTION_STRING", "IOT_PROVISIONING_SERVICE_CONNECTION_STRING")
HUB_VARIABLES = ("IOTHUB_CONNECTION_STRING",)
CA_VARIABLES = ("SSL_CERT_FILE", "MOORAGE_CA_FILE", "REQUESTS_CA_BUNDLE")


class NoServer(MoorageError):
    """No server runs here, or too many do."""


@dataclass(frozen=True, slots=True)
class Login:
    """A connection string taken apart, and the CA file to trust (None: the system's)."""

    host: str  # without port
    port: int | None
    policy: str
    key: str
    ca_file: str | None

    @classmethod
    def parse(cls, text: str, ca_file: str | None) -> Login:
        """Raises Invalid. Names of parts compare without regard to case [hub-service 2.1]."""
        parts = dict(part.partition("=")[::2] for part in text.strip().strip('"').split(";") if part)
        parts = {name.lower(): value for name, value in parts.items()}
        missing = [
            name
            for name in ("HostName", "SharedAccessKeyName", "SharedAccessKey")
            if not parts.get(name.lower())
        ]
        if missing:
            raise Invalid("--login", f"the connection string has no {' and no '.join(missing)}")
        host, _, port = parts["hostname"].partition(":")
        if port and not port.isdecimal():
            raise Invalid("--login", f"{port!r} is not a port")
        return cls(
            host, int(port) if port else None, parts["sharedaccesskeyname"], parts["sharedaccesskey"], ca_file
        )

    def trust(self) -> ssl.SSLContext:
        """Raises Unavailable when the file to trust cannot be used."""
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            why = error.strerror or error
            raise Unavailable(f"{self.ca_file}, named by {CA_VARIABLES[0]} or its like: {why}") from None


def running_server(data: Path | None = None) -> RunInfo:
    """The server on this machine; `data` says which. Raises NoServer with what to do."""
    servers = find_servers(data)
    if len(servers) == 1:
        return servers[0]
    if not servers:
        where = f" on {data}" if data is not None else ""
        raise NoServer(f"no server runs{where} here; start one with: moorage up")
    folders = ", ".join(str(server.data or "in memory") for server in servers)
    raise NoServer(f"several servers run here ({folders}); say which with --data")


def is_ready(server: RunInfo) -> bool:
    """Whether it takes work: `/readyz`."""
    connection = http.client.HTTPConnection(urlsplit(server.env["MOORAGE_PORTAL_URL"]).netloc, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def no_answer(host: str, port: int, error: Exception) -> Unavailable:
    """What to tell somebody whose connection could not be made, or broke."""
    if isinstance(error, ssl.SSLCertVerificationError):
        mend = 'if it is a server of this machine: eval "$(moorage env)"'
        return Unavailable(f"the certificate of {host}:{port} is not trusted: {error.verify_message}; {mend}")
    why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return Unavailable(f"{host}:{port} does not answer: {why}")


def find_login(login: str | None, data: Path | None, variables: tuple[str, ...]) -> Login:
    """Raises NoServer, Invalid."""
    environment: dict[str, str] = dict(os.environ)
    hub = _named_hub()
    if login and hub:
        raise click.UsageError("--login names a hub already; leave out --hub-name")
    text = login or (
        None
        if data is not None or hub
        else next((environment[v] for v in variables if environment.get(v)), None)
    )
    if text is None:
        server = running_server(data)
        environment = {**environment, **(server.env if hub is None else environment_of(server, hub))}
        text = environment[variables[0]]
    return Login.parse(text, next((environment[v] for v in CA_VARIABLES if environment.get(v)), None))


def environment_of(server: RunInfo, hub: str) -> dict[str, str]:
    """The server's environment with the values of one of its hubs. Raises NoServer."""
    for name, own in server.hubs.items():
        if name.lower() == hub.lower():
            return {**server.env, **own}
    raise NoServer(f"the server has no hub {hub!r}; it has {', '.join(server.hubs)}")


def _named_hub() -> str | None:
    """What `--hub-name` of the command that runs says."""
    context = click.get_current_context(silent=True)
    return context.meta.get(_HUB_NAME) if context is not None else None


def _note_hub(context: click.Context, _: click.Parameter, name: str | None) -> None:
    context.meta[_HUB_NAME] = name


_HUB_NAME = "moorage.hub_name"

F = TypeVar("F", bound=Callable[..., Any])


def login_options(function: F, data_option: str = "--data") -> F:
    """`--login` and `--data`, the same on every command that talks to a service."""
    login = click.option("--login", "-l", help="Connection string of a policy; without it the environment's.")
    data = click.option(
        data_option,
        "data",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of the running server to talk to.",
    )
    return login(data(function))


def hub_login_options(function: F, data_option: str = "--data") -> F:
    """The same, and `--hub-name`, on every command that talks to one hub."""
    return _hub_name_option("--hub-name", "-n")(login_options(function, data_option))


def hub_login_options_of_named(function: F) -> F:
    """The same where `-n` is the name of something in the hub."""
    return _hub_name_option("--hub-name")(login_options(function))


def _hub_name_option(*names: str) -> Callable[[F], F]:
    return click.option(
        *names,
        expose_value=False,
        callback=_note_hub,
        help="Which hub of the running server; without it the first, or the environment's.",
    )

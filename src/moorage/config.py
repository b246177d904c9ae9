"""Everything an operator can set, in one frozen value. Built once by `load`; parts get values, never the whole."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

from moorage.errors import Invalid


def default_ca_folder() -> Path:
    """One CA per user, never per data folder, so that trust is given once."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~")).expanduser() / "moorage" / "ca"
    shared = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(shared).expanduser() / "moorage" / "ca"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What `moorage up` runs with. Sizes in bytes, times as timedelta or in seconds where named so."""

    data: Path | None = Path("moorage-data")  # folder for records and journal; None keeps nothing
    bind: tuple[str, ...] = ()  # addresses to listen on; empty: loopback, IPv4 and, where present, IPv6
    hub_host: str = "localhost"  # the name under which the first hub is advertised
    domain: str | None = None  # everything under a real domain: hub.DOMAIN, dps.DOMAIN

    mqtt_port: int = 8883
    amqp_port: int = 5671
    amqp_plain_port: int | None = (
        None  # AMQP without TLS, on loopback: tokens travel in the clear; None: no such door
    )
    amqp_plain_anywhere: bool = False  # and at every other address too
    https_port: int = 443
    https_fallback_port: int = 8443  # where 443 may not be bound
    portal_port: int = 8080  # plain HTTP, loopback only; taken: the next free one
    portal_bind: str | None = (
        None  # another address for the portal, which is over TLS there unless it is loopback
    )
    portal_hosts: tuple[str, ...] = ()  # further names that browsers may know the portal by

    ca: Path = field(default_factory=default_ca_folder)
    server_certificate: Path | None = None  # the operator's own chain, PEM, instead of one from the local CA
    server_key: Path | None = None
    server_key_type: Literal["ec", "rsa"] = "ec"

    partitions: int = 4  # of the hub's built-in endpoint, fixed when the hub is created
    retention: timedelta = timedelta(days=1)  # how long telemetry stays in the log
    retention_bytes: int | None = None  # and how much of it at the most

    registration_pace: Literal["fast", "azure"] = "fast"
    limits: Literal["none", "azure"] = (
        "none"  # how often devices and back ends may ask the provisioning service
    )
    webhook_ca: Path | None = None  # further roots that custom allocation webhooks are judged by, PEM
    allocation_functions: Mapping[str, Path] = field(
        default_factory=dict
    )  # custom allocation in Python, by name
    clock_offset: timedelta = timedelta(0)  # lets real devices meet expiry without waiting

    max_connections: int = 20_000
    max_connections_per_address: int | None = None
    handshake_timeout: float = 10.0  # seconds from accept to the end of the TLS handshake
    connect_timeout: float = 30.0  # seconds from there to the protocol's own first word
    drain_timeout: float = 5.0  # seconds a stop waits for connections to close by themselves

    log_format: Literal["text", "json"] = "text"
    log_level: str = "info"

    @property
    def in_memory(self) -> bool:
        return self.data is None

    @property
    def advertised_hub(self) -> str:
        return f"hub.{self.domain}" if self.domain else self.hub_host

    @property
    def advertised_dps(self) -> str:
        return f"dps.{self.domain}" if self.domain else self.hub_host

    @property
    def portal_is_local(self) -> bool:
        """Whether nobody but this machine reaches the portal."""
        return self.portal_bind is None or ipaddress.ip_address(self.portal_bind).is_loopback

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to listen. `::1` may be missing on a host; binding it is then passed over."""
        return self.bind or ("127.0.0.1", "::1")

    @property
    def _any_loopback(self) -> bool:
        return any(ipaddress.ip_address(address).is_loopback for address in self.addresses)

    def check(self) -> Config:
        """This configuration, or Invalid with the option that is wrong and what would be right."""
        for address in self.bind:
            try:
                parsed = ipaddress.ip_address(address)
            except ValueError:
                raise Invalid("--bind", f"{address!r} is not an IP address") from None
            if not parsed.is_loopback and not self.domain and self.hub_host in ("localhost", "127.0.0.1"):
                raise Invalid(
                    "--bind",
                    f"{address} can be reached from other machines, and {self.hub_host!r} means something else there; "
                    "give --hub-host NAME or --domain NAME, the name by which devices reach this machine",
                )
        if self.amqp_plain_port is None and self.amqp_plain_anywhere:
            raise Invalid(
                "--amqp-plain-anywhere", "give --amqp-plain-port PORT, which opens AMQP without TLS"
            )
        if self.amqp_plain_port is not None and not self.amqp_plain_anywhere and not self._any_loopback:
            raise Invalid(
                "--amqp-plain-port",
                "tokens travel in the clear there, so it is open on loopback alone, where this server does not listen; "
                "give --amqp-plain-anywhere if others may read them",
            )
        if self.portal_bind is not None and not _is_address(self.portal_bind):
            raise Invalid("--portal-bind", f"{self.portal_bind!r} is not an IP address")
        if (self.server_certificate is None) != (self.server_key is None):
            raise Invalid("--server-certificate", "give --server-certificate and --server-key together")
        if not 1 <= self.partitions <= 32:
            raise Invalid("--partitions", "a hub has between 1 and 32 partitions")
        return self


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

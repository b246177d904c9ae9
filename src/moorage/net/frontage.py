"""Where the server is reached: the promise `Frontage` kept by this machine's addresses and one certificate."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import sys
from collections.abc import Collection, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

from moorage.credentials.server_certificate import ServerCertificate
from moorage.errors import Invalid, Unavailable
from moorage.net.doors import Doors
from moorage.net.listener import AddressNotHere, DoorError, Listeners, PortTaken

log = logging.getLogger("moorage.net.frontage")

TRIES = 32  # loopback addresses, where others have the first ones
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


class LocalFrontage:
    """Names are given under `domain` if there is one, else addresses: the next free ones of the loopback network."""

    def __init__(
        self, doors: Doors, listeners: Listeners, certificate: ServerCertificate, domain: str | None = None
    ) -> None:
        self._doors = doors
        self._listeners = listeners
        self._certificate = certificate
        self._domain = domain
        self._opened: set[str] = set()  # addresses of hubs, which are closed again with them

    async def admit(self, name: str, host_names: Sequence[str], taken: Collection[str]) -> tuple[str, ...]:
        if host_names:
            return await self._reach(host_names)
        if self._domain is not None:
            host = f"{name}.{self._domain}".lower()
            if host in taken:
                raise Invalid("name", f"{host} is in use already")
            return await self._reach([host])
        for address in self._next_addresses(taken):
            try:
                return await self._reach([address])
            except PortTaken as error:
                last: DoorError = error
        raise last

    async def dismiss(self, host_names: Sequence[str]) -> None:
        for host in self._opened.intersection(host_names):
            self._opened.discard(host)
            self._doors.close(host)

    async def listen(self, host_names: Sequence[str]) -> None:
        """Open the doors at those that are addresses and are not listened at yet. Raises Unavailable."""
        opened: list[str] = []
        try:
            for host in host_names:
                if (address := _address(host)) is not None and not self._listens_at(address):
                    await self._open(host)
                    opened.append(host)
        except BaseException:
            await self.dismiss(opened)
            raise

    async def _reach(self, host_names: Sequence[str]) -> tuple[str, ...]:
        await self.listen(host_names)
        try:
            await asyncio.to_thread(self._certificate.cover, host_names)
        except BaseException:
            await self.dismiss(host_names)
            raise
        self._listeners.reload()
        return tuple(host_names)

    async def _open(self, host: str) -> None:
        try:
            await self._doors.open(host)
        except AddressNotHere as error:
            raise Unavailable(f"{error}; {_how_to_get(host)}") from None
        self._opened.add(host)

    def _listens_at(self, address: IPv4Address | IPv6Address) -> bool:
        open_at = self._doors.open_at
        return str(address) in open_at or ("0.0.0.0" if address.version == 4 else "::") in open_at

    def _next_addresses(self, taken: Collection[str]) -> Iterator[str]:
        """The loopback addresses after the server's own. Raises Invalid where it has none of those."""
        held = [address for host in self._doors.open_at if isinstance(address := _address(host), IPv4Address)]
        own = next((address for address in held if address in LOOPBACK), None)
        if own is None or any(address.is_unspecified for address in held):
            where = ", ".join(self._doors.open_at)
            raise Invalid(
                "hostNames",
                f"the server listens on {where}: give the hub a host name of its own that leads there",
            )
        tries = 0
        for number in range(int(own) + 1, int(LOOPBACK.broadcast_address)):
            address = IPv4Address(number)
            if str(address) not in taken and not self._listens_at(address) and number % 256 not in (0, 255):
                yield str(address)
                tries += 1
            if tries == TRIES:
                return


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _how_to_get(host: str) -> str:
    if sys.platform == "darwin" and _address(host) in LOOPBACK:
        add = f"sudo ifconfig lo0 alias {host} up"
        return f"add it ({add}), or give the hub a host name that leads to 127.0.0.1 by the hosts file"
    return "give the hub an address of this machine, or a host name that leads to one"

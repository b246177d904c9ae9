"""The doors of a server, the same set at each of its addresses."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moorage.net.connection import ProtocolFactory
from moorage.net.listener import Address, Listeners, PortNotPermitted, PortTaken

log = logging.getLogger("moorage.net.doors")


@dataclass(frozen=True, slots=True)
class DoorOffer:
    """What is served at `port` of every address; where that cannot be had, at `otherwise`, if there is one.

    `loopback_only`: at the others not at all.
    """

    name: str
    port: int
    protocol: ProtocolFactory
    otherwise: int | None = None
    tls: bool = True
    loopback_only: bool = False

    def holds_at(self, host: str) -> bool:
        return not self.loopback_only or is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches `host`, an address or the name of one."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Doors:
    """Opens and closes whole sets of doors."""

    def __init__(self, listeners: Listeners, offers: Sequence[DoorOffer]) -> None:
        self._listeners = listeners
        self._offers = offers
        self._open: dict[str, dict[str, Address]] = {}
        self.displaced: list[PortNotPermitted | PortTaken] = []  # why an offer's own port is not used

    @property
    def open_at(self) -> Mapping[str, Mapping[str, Address]]:
        """For each address listened at, as it was given, its doors by name."""
        return self._open

    async def open(self, host: str) -> None:
        """Open every door at `host`. Raises DoorError, and then none is open there."""
        opened: dict[str, Address] = {}
        try:
            for offer in filter(lambda offer: offer.holds_at(host), self._offers):
                opened[offer.name] = await self._open_one(offer, host)
        except BaseException:
            self._listeners.close_doors_at(host)
            raise
        self._open[host] = opened

    async def _open_one(self, offer: DoorOffer, host: str) -> Address:
        try:
            return (await self._listen(offer, host, offer.port))[0]
        except (PortNotPermitted, PortTaken) as error:
            if offer.otherwise is None:
                raise
            found = await self._listen(offer, host, offer.otherwise)
            self.displaced.append(error)
            return found[0]

    async def _listen(self, offer: DoorOffer, host: str, port: int) -> Sequence[Address]:
        return await self._listeners.open_door(offer.name, host, port, offer.protocol, tls=offer.tls)

    def close(self, host: str) -> None:
        """Accept nothing more at `host`; connections there go on."""
        if self._open.pop(host, None) is not None:
            self._listeners.close_doors_at(host)

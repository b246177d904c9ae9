"""Doors: bind, limit, reload certificates, drain."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from moorage.errors import Invalid, Unavailable
from moorage.net.connection import Admission, Connection, Counters, Door, PlainConnection, ProtocolFactory
from moorage.net.tls import TlsConnection, TlsContext, Turn

log = logging.getLogger("moorage.net.listener")

BACKLOG = 2048  # connections that the kernel holds while we are busy
KEEP_ALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))  # seconds, seconds, probes


class Address(NamedTuple):
    host: str
    port: int


class DoorError(Unavailable):
    """The door `door` cannot be opened at `host` and `port`."""

    def __init__(self, door: str, host: str, port: int, why: str) -> None:
        super().__init__(f"{door}: cannot listen on {host} port {port}: {why}")
        self.door = door
        self.host = host
        self.port = port


class PortTaken(DoorError):
    """Something else listens there."""


class PortNotPermitted(DoorError):
    """The system keeps this port for more privileged users."""


class AddressNotHere(DoorError):
    """This machine has no such address."""


LAST_WORDS = 0.25  # seconds that a peer has at a stop to take what was sent to it


class _Listening(NamedTuple):
    """One socket of a door; `host` as it was given."""

    host: str
    door: Door
    server: asyncio.Server


class Listeners:
    """All doors of the server. Made, used and drained on one event loop; durations are in seconds."""

    def __init__(
        self,
        tls: TlsContext | None = None,
        *,
        max_connections: int = 65_536,
        max_per_address: int | None = None,
        handshake_timeout: float = 10.0,
        close_timeout: float = 5.0,
        certificate_check: float = 10.0,
    ) -> None:
        """`certificate_check` is how often the certificate files are looked at for a change."""
        self._tls = tls
        self._admission = Admission(max_connections, max_per_address)
        self._handshake_timeout = handshake_timeout
        self._close_timeout = close_timeout
        self._certificate_check = certificate_check
        self._certificate_timer: asyncio.TimerHandle | None = None
        self._turn: Turn | None = None
        self._doors: dict[str, list[Door]] = {}
        self._listening: dict[str, list[_Listening]] = {}

    @property
    def counters(self) -> Counters:
        return self._admission.counters

    def open_connections(self) -> dict[str, int]:
        """How many connections are open now, by door."""
        return {name: sum(len(door.open) for door in doors) for name, doors in self._doors.items()}

    async def open_door(
        self,
        name: str,
        hosts: str | Sequence[str],
        port: int,
        protocol: ProtocolFactory,
        *,
        tls: bool = True,
    ) -> tuple[Address, ...]:
        """Listen at `hosts`; each connection is served by what `protocol` makes. Returns the addresses bound.

        Port 0 is any free one, the same at every host. Raises DoorError, and then listens at none of them. Called again
        with the same name it adds to that door.
        """
        connection = self._tls_connections() if tls else PlainConnection
        door = Door(
            name,
            protocol,
            self._admission,
            handshake_timeout=self._handshake_timeout,
            close_timeout=self._close_timeout,
        )
        hosts = [hosts] if isinstance(hosts, str) else hosts
        sockets = await _bind(name, hosts, port)
        addresses = tuple(Address(*each.getsockname()[:2]) for each in sockets)
        self._doors.setdefault(name, []).append(door)
        for host, each in zip(hosts, sockets, strict=True):
            server = await door.loop.create_server(lambda: connection(door), sock=each, backlog=BACKLOG)
            self._listening.setdefault(name, []).append(_Listening(host, door, server))
        self._watch_certificate(door.loop)
        log.info("door open", extra={"door": name, "addresses": [f"{host} {at}" for host, at in addresses]})
        return addresses

    def close_door(self, name: str) -> None:
        """Accept nothing more at this door; its connections go on."""
        for each in self._listening.pop(name, []):
            each.server.close()

    def close_doors_at(self, host: str) -> None:
        """The same for all doors at one host, as it was given to `open_door`."""
        for name, listening in self._listening.items():
            left = [each for each in listening if each.host != host]
            for each in listening:
                if each.host == host:
                    each.server.close()
            self._listening[name] = left
            # What nobody can come in by any more is forgotten once it is empty.
            in_use = {each.door for each in left}
            self._doors[name] = [door for door in self._doors[name] if door in in_use or door.open]

    def reload(self) -> None:
        """Take the certificate from its files again, for new connections. What cannot be used is logged."""
        if self._tls is not None:
            try:
                self._tls.reload()
            except Invalid as error:
                log.error("server certificate not changed", extra={"reason": str(error)})

    async def drain(self, within: float) -> None:
        """Accept nothing more, let every conversation say goodbye, and cut what is still open after `within`.

        A connection whose goodbye is said waits `LAST_WORDS` for its peer, not the whole `close_timeout`: an idle
        peer that never closes would hold up every stop.
        """
        for name, doors in self._doors.items():
            self.close_door(name)
            for door in doors:
                door.closed = True
                door.close_timeout = min(door.close_timeout, LAST_WORDS)
        if self._certificate_timer is not None:
            self._certificate_timer.cancel()
        for connection in self._connections():
            connection.stop()
        try:
            async with asyncio.timeout(within):
                await self._emptied()
        except TimeoutError:
            left = self._connections()
            if left:
                log.warning("connections cut at stop", extra={"connections": len(left)})
            for connection in left:
                connection.abort()
            await self._emptied()

    def _connections(self) -> list[Connection]:
        return [connection for doors in self._doors.values() for door in doors for connection in door.open]

    async def _emptied(self) -> None:
        for doors in self._doors.values():
            for door in doors:
                await door.emptied.wait()

    def _tls_connections(self) -> Callable[[Door], Connection]:
        if self._tls is None:
            raise ValueError("a TLS door needs a certificate")
        if self._turn is None:
            self._turn = Turn(asyncio.get_running_loop())
        context, turn = self._tls, self._turn
        return lambda door: TlsConnection(door, context, turn)

    def _watch_certificate(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._tls is not None and self._certificate_timer is None:
            self._certificate_timer = loop.call_later(self._certificate_check, self._check_certificate, loop)

    def _check_certificate(self, loop: asyncio.AbstractEventLoop) -> None:
        self._certificate_timer = None
        if self._tls is not None:
            try:
                self._tls.reload_if_changed()
            except Invalid as error:
                log.error("server certificate not changed", extra={"reason": str(error)})
        self._watch_certificate(loop)


async def _bind(door: str, hosts: Sequence[str], port: int) -> list[socket.socket]:
    """A listening socket for each of `hosts`, all on one port."""
    sockets: list[socket.socket] = []
    try:
        for host in hosts:
            listening = await _bind_one(door, host, port)
            sockets.append(listening)
            port = listening.getsockname()[1]
    except DoorError:
        for each in sockets:
            each.close()
        raise
    return sockets


async def _bind_one(door: str, host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise AddressNotHere(door, host, port, f"no address for this name: {error}") from None
    family, kind, protocol, _, address = found[0]
    try:
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressNotHere(door, host, port, str(error)) from None
    try:
        _set_options(listening)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise _door_error(door, host, port, error) from None
    return listening


def _set_options(listening: socket.socket) -> None:
    """What is set here, the accepted sockets inherit."""
    listening.setblocking(False)
    # On Windows SO_REUSEADDR would share a port that is in use.
    once = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
    listening.setsockopt(socket.SOL_SOCKET, once, 1)
    if listening.family == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    # A peer whose machine is gone says nothing: the kernel finds out.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEP_ALIVE:
        if hasattr(socket, option):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _door_error(door: str, host: str, port: int, error: OSError) -> DoorError:
    if error.errno == errno.EADDRINUSE:
        return PortTaken(door, host, port, "something else listens there")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PortNotPermitted(door, host, port, "this user may not")
    if error.errno == errno.EADDRNOTAVAIL:
        return AddressNotHere(door, host, port, "this machine has no such address")
    return DoorError(door, host, port, error.strerror or str(error))

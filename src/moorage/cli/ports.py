"""Whether a port can be had on this machine, and who has it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

LISTENING = "0A"  # the state of a socket in /proc/net/tcp
PROC = Path("/proc")


class Port(Enum):
    FREE = "free"
    TAKEN = "taken"
    NOT_PERMITTED = "not permitted"
    NO_ADDRESS = "no such address"


class Holder(NamedTuple):
    """A process that listens."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process id {self.pid})"


def probe(address: str, port: int) -> Port:
    """Bind it, as a server would, and let go."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as taken:
            if sys.platform == "win32":
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:  # connections of an earlier server that are on their way out do not count
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken.bind((address, port))
            taken.listen(1)
    except PermissionError:
        return Port.NOT_PERMITTED
    except OSError as error:
        return Port.TAKEN if error.errno == errno.EADDRINUSE else Port.NO_ADDRESS
    return Port.FREE


def holder(address: str, port: int) -> Holder | None:
    """Who listens there; None where the system does not tell: not Linux, or another user's process."""
    sockets = set(_listening(ip_address(address), port))
    if not sockets:
        return None
    for process in PROC.iterdir():
        if process.name.isdecimal() and sockets & set(_sockets(process)):
            with contextlib.suppress(OSError):
                return Holder(int(process.name), (process / "comm").read_text().strip())
    return None


def _listening(address: IPv4Address | IPv6Address, port: int) -> Iterator[str]:
    """The inode numbers of sockets that listen on the port at this address, or at all."""
    for table, version in (("tcp", 4), ("tcp6", 6)):
        try:
            rows = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            bound, _, bound_port = columns[1].partition(":")
            if columns[3] != LISTENING or int(bound_port, 16) != port:
                continue
            at = _address(bound)
            if at == address or (at.is_unspecified and (version == 6 or address.version == 4)):
                yield columns[9]


def _address(hexadecimal: str) -> IPv4Address | IPv6Address:
    """As the kernel prints it: words of four bytes, each in the machine's own order."""
    words = [hexadecimal[at : at + 8] for at in range(0, len(hexadecimal), 8)]
    return ip_address(b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words))


def _sockets(process: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(descriptor)
                if target.startswith("socket:["):
                    yield target[8:-1]

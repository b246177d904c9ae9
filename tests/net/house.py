"""A house with doors for the tests to knock at, the conversations inside, and what can be seen of them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from moorage.interfaces import ByteStream, Conversation, OpenConversation
from moorage.net.listener import Address, Listeners
from moorage.net.stream import Stream
from moorage.net.tls import TlsContext
from tests.net.credentials import Credential

TLS_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
SOON = 5.0  # seconds that anything here may take


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    for _ in range(int(SOON / 0.01)):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


class Recorder:
    """A conversation that notes what happens to it, and says nothing."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.reads: list[bytes] = []
        self.reasons: list[str] = []
        self.drains = 0
        self.stops = 0
        self._happened = asyncio.Event()

    def received(self, data: bytes) -> None:
        self.reads.append(data)
        self._happened.set()

    def drained(self) -> None:
        self.drains += 1
        self._happened.set()

    def stopping(self) -> None:
        self.stops += 1
        self.stream.close("server stops")

    def closed(self, reason: str) -> None:
        self.reasons.append(reason)
        self._happened.set()

    @property
    def bytes_read(self) -> bytes:
        return b"".join(self.reads)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds()`; looked at whenever something has happened."""
        async with asyncio.timeout(SOON):
            while not holds():
                self._happened.clear()
                await self._happened.wait()

    async def closing(self) -> str:
        """The reason given at the end, once it has come."""
        await self.until(lambda: bool(self.reasons))
        return self.reasons[0]


class Echo(Recorder):
    """Sends everything back, and stops reading while the peer does not take it."""

    def received(self, data: bytes) -> None:
        super().received(data)
        self.stream.write(data)
        if self.stream.pending > 1 << 18:
            self.stream.pause_reading()

    def drained(self) -> None:
        super().drained()
        self.stream.resume_reading()


class Conversations(list[Recorder]):
    """All conversations opened so far."""

    def __init__(self, kind: Callable[[ByteStream], Recorder] = Recorder) -> None:
        super().__init__()
        self._kind = kind
        self._opened = asyncio.Event()

    def open(self, stream: ByteStream) -> Conversation:
        conversation = self._kind(stream)
        self.append(conversation)
        self._opened.set()
        return conversation

    async def first(self) -> Recorder:
        return await self.nth(0)

    async def nth(self, index: int) -> Recorder:
        async with asyncio.timeout(SOON):
            while len(self) <= index:
                self._opened.clear()
                await self._opened.wait()
        return self[index]


@dataclass
class House:
    """Listeners with a certificate for localhost."""

    listeners: Listeners
    tls: TlsContext
    server: Credential
    folder: Path
    guests: list[Peer | MemoryClient] = field(default_factory=list)

    async def door(
        self,
        open_conversation: OpenConversation,
        *,
        name: str = "door",
        tls: bool = True,
        outward_limit: int = 1 << 20,
    ) -> Address:
        def protocol() -> Stream:
            return Stream(name, open_conversation, outward_limit=outward_limit)

        (address,) = await self.listeners.open_door(name, "127.0.0.1", 0, protocol, tls=tls)
        return address

    def client_context(
        self,
        credential: Credential | None = None,
        version: ssl.TLSVersion | None = None,
        *,
        trust: Credential | None = None,
    ) -> ssl.SSLContext:
        """A client that checks the server's certificate, and presents `credential`."""
        context = ssl.create_default_context(cadata=(trust or self.server).chain_pem.decode())
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if credential is not None:
            context.load_cert_chain(*credential.write(self.folder, f"client-{id(credential)}"))
        return context

    async def connect(
        self, address: Address, credential: Credential | None = None, version: ssl.TLSVersion | None = None
    ) -> Peer:
        context = self.client_context(credential, version)
        async with asyncio.timeout(SOON):
            peer = Peer(*await asyncio.open_connection(*address, ssl=context, server_hostname="localhost"))
        self.guests.append(peer)
        return peer

    async def connect_plain(self, address: Address) -> Peer:
        peer = Peer(*await asyncio.open_connection(*address))
        self.guests.append(peer)
        return peer

    def memory_client(
        self, credential: Credential | None = None, version: ssl.TLSVersion | None = None
    ) -> MemoryClient:
        client = MemoryClient(self.client_context(credential, version))
        self.guests.append(client)
        return client

    async def shut(self) -> None:
        for guest in self.guests:
            await guest.close()
        await self.listeners.drain(1.0)


@dataclass
class Peer:
    """The other end."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(SOON):
            return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """Everything until the end of the connection."""
        async with asyncio.timeout(SOON):
            return await self.reader.read()

    def stop_reading(self) -> None:
        cast(asyncio.Transport, self.writer.transport).pause_reading()

    async def close(self) -> None:
        self.writer.close()
        try:
            async with asyncio.timeout(SOON):
                await self.writer.wait_closed()
        except (OSError, ssl.SSLError):
            pass  # the server was quicker


class MemoryClient:
    """A TLS client whose ciphertext the test carries, over a blocking socket: it decides what goes in one packet."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.socket = socket.socket()
        self.socket.settimeout(SOON)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connect(self, address: Address) -> None:
        self.socket.connect(address)
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.carry()
                self.take()
            else:
                self.carry()
                return

    def carry(self) -> None:
        """Send everything that waits, at once."""
        self.socket.sendall(self.outgoing.read())

    def take(self) -> bytes:
        """Receive once; returns the ciphertext."""
        ciphertext = self.socket.recv(1 << 18)
        if ciphertext:
            self.incoming.write(ciphertext)
        else:
            self.incoming.write_eof()
        return ciphertext

    def read(self) -> bytes:
        """Some plaintext; empty at the end."""
        while True:
            try:
                return self.tls.read(1 << 18)
            except ssl.SSLWantReadError:
                self.take()
            except ssl.SSLZeroReturnError:
                return b""

    async def close(self) -> None:
        self.socket.close()

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from OpenSSL import SSL

from moorage.errors import Invalid
from moorage.net import openssl
from moorage.net.listener import Address
from moorage.net.openssl import PrivateCalls, PublicCalls
from moorage.net.tls import TlsContext
from tests.net.credentials import Credential, issue, with_stolen_certificate
from tests.net.house import SOON, TLS_VERSIONS, Conversations, Echo, House, Recorder, eventually

versions = pytest.mark.parametrize("version", TLS_VERSIONS, ids=lambda version: version.name)
only_private = pytest.mark.parametrize("private_calls", [True], indirect=True)


# --- What a device may present -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def credentials() -> dict[str, Credential | None]:
    root = issue("root", authority=True)
    intermediate = issue("intermediate", by=root, authority=True)
    return {
        "none": None,
        "self-signed": issue("self-signed"),
        "expired": issue("expired", days=(-30, -1)),
        "not yet valid": issue("early", days=(1, 30)),
        "P-384": issue("curve", "P-384"),
        "Ed25519": issue("edwards", "Ed25519"),
        "RSA-2048": issue("rsa", "RSA-2048"),
        "RSA-4096": issue("rsa", "RSA-4096"),
        "of a chain": issue("leaf", by=intermediate),
        "leaf alone": Credential((leaf := issue("alone", by=root)).key, leaf.certificates[:1]),
        "authority": root,
    }


@versions
@pytest.mark.parametrize(
    "kind",
    [
        *("none", "self-signed", "expired", "not yet valid", "P-384", "Ed25519"),
        *("RSA-2048", "RSA-4096", "of a chain", "leaf alone", "authority"),
    ],
)
async def test_any_certificate_is_taken_and_its_chain_kept(
    house: House, credentials: dict[str, Credential | None], kind: str, version: ssl.TLSVersion
) -> None:
    conversations = Conversations(Echo)
    credential = credentials[kind]
    peer = await house.connect(await house.door(conversations.open), credential, version)
    await peer.send(b"hello")

    assert await peer.read(5) == b"hello"
    seen = conversations[0].stream.peer
    assert seen.chain == (credential.chain if credential else ())
    assert seen.tls_version == version.name.replace("_", ".")
    assert (seen.address, seen.door) == ("127.0.0.1", "door")


@versions
async def test_a_stolen_certificate_is_refused(
    house: House, device: Credential, version: ssl.TLSVersion
) -> None:
    conversations = Conversations(Echo)
    address = await house.door(conversations.open)
    context = house.client_context(with_stolen_certificate(device), version)

    with pytest.raises(ssl.SSLError, match=r"(?i)decrypt.error"):
        await asyncio.to_thread(_exchange, context, address, b"let me in")

    assert conversations == []
    assert house.listeners.counters.handshake_failures == {"bad signature": 1}


@versions
async def test_no_session_is_resumed(house: House, device: Credential, version: ssl.TLSVersion) -> None:
    conversations = Conversations(Echo)
    address = await house.door(conversations.open)
    context = house.client_context(device, version)

    first, session = await asyncio.to_thread(_exchange, context, address, b"first")
    second, _ = await asyncio.to_thread(_exchange, context, address, b"second", session)

    assert (first, second) == (False, False)
    assert [each.stream.peer.chain for each in conversations] == [device.chain, device.chain]


def _exchange(
    context: ssl.SSLContext, address: Address, data: bytes, session: ssl.SSLSession | None = None
) -> tuple[bool | None, ssl.SSLSession | None]:
    """Whether the session was resumed, and the one to resume with next time."""
    with (
        socket.create_connection(address, timeout=SOON) as raw,
        context.wrap_socket(raw, server_hostname="localhost", session=session) as tls,
    ):
        tls.sendall(data)
        assert tls.recv(len(data)) == data
        reused, next_session = tls.session_reused, tls.session
        tls.unwrap().close()  # a session that is not ended properly could not be resumed anywhere
        return reused, next_session


async def test_renegotiation_is_refused(house: House) -> None:
    conversations = Conversations(Echo)
    address = await house.door(conversations.open)

    def renegotiate() -> bytes:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        with socket.create_connection(address, timeout=SOON) as raw:
            raw.setblocking(True)
            tls = SSL.Connection(context, raw)
            tls.set_connect_state()
            tls.do_handshake()
            tls.sendall(b"before")
            assert tls.recv(100) == b"before"
            tls.renegotiate()
            try:
                tls.do_handshake()
                tls.sendall(b"after")
                return tls.recv(100)
            except SSL.Error:
                return b"refused"

    assert await asyncio.to_thread(renegotiate) == b"refused"


# --- What is not TLS, or not in time ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "http request"),
        (b"\x10\x13\x00\x04MQTT\x04\x02\x00\x3c\x00\x07device1", "wrong version number"),
        (b"\x16\x03\x01\x00\x05hello", "unexpected message"),
        (bytes(range(256)) * 300, ""),
    ],
)
async def test_what_is_no_client_hello_ends_the_connection(house: House, sent: bytes, why: str) -> None:
    conversations = Conversations()
    peer = await house.connect_plain(await house.door(conversations.open))
    await peer.send(sent)

    alert = await peer.rest()

    assert alert[:1] in (b"", b"\x15")  # of content type alert, if at all [RFC 8446 5.1]
    assert house.listeners.counters.handshake_failures.total() == 1
    assert any(why in each for each in house.listeners.counters.handshake_failures)
    assert conversations == []


async def test_a_client_that_says_nothing_is_cut_off(build: Callable[..., House]) -> None:
    house = build(handshake_timeout=0.05)
    peer = await house.connect_plain(await house.door(Conversations().open))

    assert await peer.rest() == b""
    assert house.listeners.counters.handshake_failures == {"timeout": 1}
    assert house.listeners.open_connections() == {"door": 0}


async def test_a_client_that_leaves_during_the_handshake_is_counted(house: House) -> None:
    peer = await house.connect_plain(await house.door(Conversations().open))
    client = house.memory_client()
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    await peer.send(client.outgoing.read()[:100])
    peer.writer.write_eof()

    assert await peer.rest() == b""
    assert house.listeners.counters.handshake_failures == {"closed by peer": 1}


async def test_an_older_tls_is_refused(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "moorage.net.tls")
    peer = await house.connect_plain(await house.door(Conversations().open))
    # A ClientHello for TLS 1.1: version, random, no session, one suite, no compression. [RFC 4346 7.4.1.2]
    hello = b"\x03\x02" + bytes(32) + b"\x00" + b"\x00\x02\xc0\x13" + b"\x01\x00"
    handshake = b"\x01" + len(hello).to_bytes(3, "big") + hello
    await peer.send(b"\x16\x03\x01" + len(handshake).to_bytes(2, "big") + handshake)

    alert = await peer.rest()

    assert alert == b"\x15\x03\x02\x00\x02\x02\x46"  # fatal, protocol_version
    assert house.listeners.counters.handshake_failures == {"unsupported protocol": 1}
    assert [
        record.__dict__["reason"] for record in caplog.records if record.message == "TLS handshake failed"
    ] == ["unsupported protocol"]


# --- Bytes both ways ---------------------------------------------------------------------------------------


@versions
async def test_five_megabytes_come_back_as_they_went(house: House, version: ssl.TLSVersion) -> None:
    conversations = Conversations(Echo)
    peer = await house.connect(await house.door(conversations.open, outward_limit=1 << 23), None, version)
    sent = os.urandom(5 << 20)

    sending = asyncio.create_task(peer.send(sent))
    received = await peer.read(len(sent))
    await sending

    assert hashlib.sha256(received).digest() == hashlib.sha256(sent).digest()
    assert hashlib.sha256(conversations[0].bytes_read).digest() == hashlib.sha256(sent).digest()


@versions
async def test_what_one_packet_brought_is_received_in_one_call(house: House, version: ssl.TLSVersion) -> None:
    conversations = Conversations()
    address = await house.door(conversations.open)
    client = house.memory_client(None, version)
    await asyncio.to_thread(client.connect, address)
    for number in range(20):
        client.tls.write(b"%d," % number)
    client.carry()

    conversation = await conversations.first()
    await conversation.until(lambda: bool(conversation.reads))

    assert conversation.reads == [b"".join(b"%d," % number for number in range(20))]


@versions
async def test_what_is_written_in_one_turn_leaves_as_one_record(
    house: House, version: ssl.TLSVersion
) -> None:
    class Answers(Recorder):
        def received(self, data: bytes) -> None:
            for number in range(20):
                self.stream.write(b"%d," % number)
            self.stream.call_later(0, self.later)

        def later(self) -> None:
            for number in range(20):
                self.stream.write(b"%d;" % number)

    client = house.memory_client(None, version)
    await asyncio.to_thread(client.connect, await house.door(Conversations(Answers).open))
    client.tls.write(b"go")
    client.carry()

    in_turn = await asyncio.to_thread(client.read)
    later = await asyncio.to_thread(client.read)

    # A read of the library's returns one record at most.
    assert in_turn == b"".join(b"%d," % number for number in range(20))
    assert later == b"".join(b"%d;" % number for number in range(20))


async def test_tickets_wait_for_the_first_answer(house: House) -> None:
    """The one thing a TLS 1.3 server says after the handshake is of no use, and gets no packet of its own."""
    conversations = Conversations()
    client = house.memory_client(None, ssl.TLSVersion.TLSv1_3)
    await asyncio.to_thread(client.connect, await house.door(conversations.open))
    conversation = await conversations.first()
    client.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.socket.recv(1)
    client.socket.settimeout(SOON)

    conversation.stream.write(b"answer")

    assert await asyncio.to_thread(client.read) == b"answer"


async def test_a_byte_at_a_time_does_as_well(house: House) -> None:
    conversations = Conversations(Echo)
    address = await house.door(conversations.open)
    client = house.memory_client()

    def dribble() -> bytes:
        client.connect(address)
        client.tls.write(b"slowly")
        for byte in client.outgoing.read():
            client.socket.sendall(bytes([byte]))
        return client.read()

    assert await asyncio.to_thread(dribble) == b"slowly"


async def test_reading_pauses_and_resumes(house: House) -> None:
    conversations = Conversations()
    peer = await house.connect(await house.door(conversations.open))
    conversation = await conversations.first()
    conversation.stream.pause_reading()
    sending = asyncio.create_task(peer.send(bytes(8 << 20)))
    await asyncio.sleep(0.1)
    assert conversation.reads == []

    conversation.stream.resume_reading()

    await conversation.until(lambda: sum(map(len, conversation.reads)) == 8 << 20)
    await sending


async def test_a_peer_that_does_not_read_is_cut_off_and_others_are_not(house: House) -> None:
    class Talker(Recorder):
        def received(self, data: bytes) -> None:
            super().received(data)
            self.talk()

        def talk(self) -> None:
            if not self.reasons:
                self.stream.write(bytes(100_000))
                self.stream.call_later(0, self.talk)

    talkers, echoes = Conversations(Talker), Conversations(Echo)
    deaf = house.memory_client()
    await asyncio.to_thread(deaf.connect, await house.door(talkers.open, name="talk"))
    other = await house.connect(await house.door(echoes.open, name="echo"))
    deaf.tls.write(b"go")
    deaf.carry()

    reason = await (await talkers.first()).closing()

    assert reason == "over 1048576 bytes wait unsent"
    await other.send(b"well?")
    assert await other.read(5) == b"well?"


async def test_back_pressure_is_told_and_its_end(house: House) -> None:
    conversations = Conversations()
    address = await house.door(conversations.open, outward_limit=1 << 26)
    client = house.memory_client()
    await asyncio.to_thread(client.connect, address)
    conversation = await conversations.first()
    size = 16 << 20
    conversation.stream.write(bytes(size))
    await asyncio.sleep(0)
    assert conversation.stream.pending > 1 << 20
    assert conversation.drains == 0

    def read_all() -> int:
        left = size
        while left:
            left -= len(client.read())
        return left

    assert await asyncio.to_thread(read_all) == 0
    await conversation.until(lambda: conversation.drains == 1)
    assert conversation.stream.pending == 0


# --- Ends --------------------------------------------------------------------------------------------------


@versions
async def test_the_last_words_arrive_though_the_peer_goes_on_talking(
    house: House, version: ssl.TLSVersion
) -> None:
    class Leaves(Recorder):
        def received(self, data: bytes) -> None:
            super().received(data)
            self.stream.write(b"last words" * 10_000)
            self.stream.close("had enough")

    conversations = Conversations(Leaves)
    client = house.memory_client(None, version)
    address = await house.door(conversations.open)

    def talk_on() -> bytes:
        client.connect(address)
        for _ in range(100):
            client.tls.write(bytes(1000))
            client.carry()
        heard = b""
        while data := client.read():
            heard += data
        return heard

    assert await asyncio.to_thread(talk_on) == b"last words" * 10_000
    await client.close()
    assert await conversations[0].closing() == "had enough"
    assert len(conversations[0].reads) == 1  # nothing is received after close()


async def test_a_half_closed_connection_still_gets_its_answer(house: House) -> None:
    class Answers(Recorder):
        def received(self, data: bytes) -> None:
            super().received(data)
            self.stream.write(b"answer")

    conversations = Conversations(Answers)
    client = house.memory_client()
    address = await house.door(conversations.open)

    def ask_and_shut() -> tuple[bytes, bytes]:
        client.connect(address)
        client.tls.write(b"question")
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()  # close_notify
        client.carry()
        client.socket.shutdown(socket.SHUT_WR)
        return client.read(), client.read()

    assert await asyncio.to_thread(ask_and_shut) == (b"answer", b"")
    assert await conversations[0].closing() == "closed by peer"


async def test_a_protocol_may_keep_the_other_half_open(house: House) -> None:
    class Patient(asyncio.Protocol):
        ends = 0

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)

        def eof_received(self) -> bool:
            Patient.ends += 1
            asyncio.get_running_loop().call_later(0.03, self.answer)
            return True

        def answer(self) -> None:
            self.transport.write(b"answer")
            self.transport.close()

    (address,) = await house.listeners.open_door("door", "127.0.0.1", 0, Patient)
    client = house.memory_client()
    await asyncio.to_thread(client.connect, address)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    goodbye = client.outgoing.read()
    client.socket.sendall(goodbye)
    await asyncio.sleep(0.01)
    client.socket.sendall(goodbye)
    client.socket.shutdown(socket.SHUT_WR)

    assert await asyncio.to_thread(client.read) == b"answer"
    assert await asyncio.to_thread(client.read) == b""
    assert Patient.ends == 1


@versions
async def test_a_peer_that_ends_below_tls_has_closed(house: House, version: ssl.TLSVersion) -> None:
    conversations = Conversations()
    client = house.memory_client(None, version)
    await asyncio.to_thread(client.connect, await house.door(conversations.open))
    conversation = await conversations.first()
    client.socket.shutdown(socket.SHUT_WR)

    assert await conversation.closing() == "closed by peer"
    assert await asyncio.to_thread(client.socket.recv, 100) == b""


async def test_a_reset_is_told_as_one(house: House) -> None:
    conversations = Conversations()
    client = house.memory_client()
    await asyncio.to_thread(client.connect, await house.door(conversations.open))
    conversation = await conversations.first()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await client.close()

    assert (await conversation.closing()).startswith("connection lost: ")
    assert conversation.reasons == conversation.reasons[:1]


@versions
async def test_a_forged_record_ends_the_connection(house: House, version: ssl.TLSVersion) -> None:
    conversations = Conversations()
    client = house.memory_client(None, version)
    await asyncio.to_thread(client.connect, await house.door(conversations.open))
    client.tls.write(b"genuine")
    client.tls.write(b"touched")
    ciphertext = bytearray(client.outgoing.read())
    ciphertext[-1] ^= 1
    client.socket.sendall(ciphertext)

    conversation = await conversations.first()

    with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
        await asyncio.to_thread(client.read)
    await client.close()
    assert "bad record mac" in await conversation.closing()
    assert conversation.bytes_read == b"genuine"


async def test_a_peer_that_never_closes_is_not_waited_for(build: Callable[..., House]) -> None:
    house = build(close_timeout=0.05)
    conversations = Conversations()
    client = house.memory_client()
    await asyncio.to_thread(client.connect, await house.door(conversations.open))
    conversation = await conversations.first()
    conversation.stream.close("enough")

    assert await conversation.closing() == "enough"
    assert house.listeners.open_connections() == {"door": 0}


async def test_a_protocol_that_raises_costs_its_own_connection(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            raise ValueError("bug")

    (address,) = await house.listeners.open_door("door", "127.0.0.1", 0, Broken)
    peer = await house.connect(address)
    await peer.send(b"hello")

    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError, ssl.SSLError)):
        await peer.read(1)
    assert "connection failed" in caplog.text


# --- The socket --------------------------------------------------------------------------------------------


async def test_packets_are_not_held_back_and_dead_peers_are_found(house: House) -> None:
    transports: list[asyncio.BaseTransport] = []

    class Looks(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transports.append(transport)

    (address,) = await house.listeners.open_door("door", "127.0.0.1", 0, Looks)
    peer = await house.connect(address)
    await peer.send(b"hello")
    await eventually(lambda: bool(transports))
    accepted = transports[0].get_extra_info("socket")

    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert transports[0].get_extra_info("sslcontext")
    assert transports[0].get_extra_info("sockname") == address


# --- The certificate ---------------------------------------------------------------------------------------


async def test_a_reload_is_for_new_connections(house: House) -> None:
    conversations = Conversations(Echo)
    address = await house.door(conversations.open)
    old = await house.connect(address)
    renewed = issue("localhost", names=["localhost"], authority=True)
    renewed.write(house.folder, "server")

    house.listeners.reload()

    house.server = renewed  # what the next client trusts
    new = await house.connect(address)
    for peer in (old, new):
        await peer.send(b"hello")
        assert await peer.read(5) == b"hello"


async def test_files_with_the_line_ends_of_windows_do_as_well(house: House) -> None:
    for name in ("server.pem", "server.key"):
        content = (house.folder / name).read_bytes()
        (house.folder / name).write_bytes(content.replace(b"\n", b"\r\n"))
    before = house.tls.context

    house.tls.reload()

    assert house.tls.context is not before
    await house.connect(await house.door(Conversations(Echo).open))


async def test_changed_files_are_found_without_being_told(build: Callable[..., House]) -> None:
    house = build(certificate_check=0.01)
    address = await house.door(Conversations(Echo).open)
    before = house.tls.context
    house.server = issue("localhost", names=["localhost"], authority=True)
    house.server.write(house.folder, "server")
    await eventually(lambda: house.tls.context is not before)

    await house.connect(address)


async def test_files_that_cannot_be_used_leave_the_certificate_as_it_is(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    address = await house.door(Conversations(Echo).open)
    (house.folder / "server.key").write_bytes(issue("another").key_pem)

    house.listeners.reload()

    assert "server certificate not changed" in caplog.text
    await house.connect(address)


@pytest.mark.parametrize(
    ("chain", "key", "field"),
    [
        (b"", None, "server.pem"),
        (b"not a certificate", None, "server.pem"),
        (None, b"", "server.key"),
        (None, issue("another").key_pem, "server.key"),
    ],
)
@only_private
def test_what_is_wrong_with_the_files_is_said(
    tls: TlsContext, tmp_path: Path, chain: bytes | None, key: bytes | None, field: str
) -> None:
    for name, content in (("server.pem", chain), ("server.key", key)):
        if content is not None:
            (tmp_path / name).write_bytes(content)

    with pytest.raises(Invalid) as error:
        tls.reload()

    assert error.value.field == str(tmp_path / field)


@only_private
def test_files_that_are_not_there_are_named(tls: TlsContext, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"nothing\.pem"):
        TlsContext(tmp_path / "nothing.pem", tmp_path / "server.key")
    with pytest.raises(Invalid, match=r"nothing\.key"):
        TlsContext(tmp_path / "server.pem", tmp_path / "nothing.key")


# --- How OpenSSL is called ---------------------------------------------------------------------------------


def test_each_way_to_call_openssl_can_be_asked_for(tls: TlsContext, private_calls: bool) -> None:
    assert tls.calls is (PrivateCalls if private_calls else PublicCalls)


@only_private
def test_without_the_private_names_the_public_calls_are_used_and_that_is_logged(
    tls: TlsContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = tmp_path / "server.pem", tmp_path / "server.key"
    assert TlsContext(*files).calls is PrivateCalls
    assert not caplog.records

    monkeypatch.setattr(openssl, "MISSING", "SSL_read")

    assert TlsContext(*files).calls is PublicCalls
    assert [record.__dict__["missing"] for record in caplog.records] == ["SSL_read"]
    with pytest.raises(RuntimeError, match="SSL_read"):
        TlsContext(*files, private_calls=True)


@only_private
async def test_errors_that_others_left_behind_are_not_taken_for_ours(house: House) -> None:
    """Before OpenSSL 4 a call that merely wants more to read looked like a failure then."""
    client = house.memory_client()
    await asyncio.to_thread(client.connect, await house.door(Conversations(Echo).open))
    client.tls.write(b"hello")
    record = client.outgoing.read()
    for part in (record[:10], record[10:]):
        openssl._lib.BIO_new_file(b"/no/such/file", b"r")
        client.socket.sendall(part)
        await asyncio.sleep(0.02)

    assert await asyncio.to_thread(client.read) == b"hello"


@only_private
def test_pointers_that_are_hidden_mean_the_public_calls(
    tls: TlsContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(connection: SSL.Connection) -> None:
        raise AttributeError("_ssl")

    monkeypatch.setattr(openssl, "pointers", hidden)

    assert TlsContext(tmp_path / "server.pem", tmp_path / "server.key").calls is PublicCalls

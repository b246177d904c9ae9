from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

import pytest

from moorage.errors import Unavailable
from moorage.net import listener
from moorage.net.listener import AddressNotHere, DoorError, Listeners, PortNotPermitted, PortTaken
from moorage.net.stream import Stream
from tests.net.house import Conversations, Echo, House, MemoryClient, Recorder


@pytest.fixture
def private_calls() -> bool:
    return True  # how OpenSSL is called makes no difference here


def serve() -> Stream:
    return Stream("door", Echo)


async def test_a_port_that_is_taken_is_named(house: House) -> None:
    ((host, port),) = await house.listeners.open_door("mqtt", "127.0.0.1", 0, serve)

    with pytest.raises(
        PortTaken, match=f"amqp: cannot listen on {host} port {port}: something else"
    ) as error:
        await house.listeners.open_door("amqp", host, port, serve)

    assert (error.value.door, error.value.host, error.value.port) == ("amqp", host, port)
    assert isinstance(error.value, Unavailable)
    assert house.listeners.open_connections() == {"mqtt": 0}


async def test_when_one_address_cannot_be_had_none_is_kept(house: House) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken):
            await house.listeners.open_door("mqtt", ["127.0.0.1", "127.0.0.2"], port, serve)

    await house.listeners.open_door("mqtt", ["127.0.0.1", "127.0.0.2"], port, serve)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, PortNotPermitted),
        (errno.EPERM, PortNotPermitted),
        (errno.EADDRINUSE, PortTaken),
        (errno.EADDRNOTAVAIL, AddressNotHere),
        (errno.ENOBUFS, DoorError),
    ],
)
async def test_why_a_door_cannot_be_opened_is_told_apart(
    house: House, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[DoorError]
) -> None:
    def refuse(listening: socket.socket) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(listener, "_set_options", refuse)

    with pytest.raises(DoorError) as error:
        await house.listeners.open_door("https", "127.0.0.1", 443, serve)

    assert type(error.value) is kind


async def test_an_address_of_another_machine_is_told(house: House) -> None:
    with pytest.raises(AddressNotHere):
        await house.listeners.open_door("mqtt", "192.0.2.1", 0, serve)
    with pytest.raises(AddressNotHere):
        await house.listeners.open_door("mqtt", "no.such.host.invalid", 0, serve)


async def test_port_zero_is_the_same_at_every_address(house: House) -> None:
    first, second = await house.listeners.open_door("mqtt", ["127.0.0.1", "127.0.0.2"], 0, serve)

    assert first.port == second.port != 0
    for address in (first, second):
        peer = await house.connect(address)
        await peer.send(b"hello")
        assert await peer.read(5) == b"hello"
    assert house.listeners.open_connections() == {"mqtt": 2}


async def test_a_tls_door_needs_a_certificate() -> None:
    with pytest.raises(ValueError, match="certificate"):
        await Listeners().open_door("mqtt", "127.0.0.1", 0, serve)


async def test_a_door_may_be_added_to(house: House) -> None:
    for host in ("127.0.0.1", "127.0.0.2"):
        (address,) = await house.listeners.open_door("mqtt", host, 0, serve)
        peer = await house.connect(address)
        await peer.send(b"hello")
        assert await peer.read(5) == b"hello"

    assert house.listeners.open_connections() == {"mqtt": 2}


@pytest.mark.parametrize("limit", ["max_connections", "max_per_address"])
async def test_one_connection_too_many_is_refused(build: Callable[..., House], limit: str) -> None:
    house = build(**{limit: 2})
    conversations = Conversations(Echo)
    address = await house.door(conversations.open)
    first, second = await house.connect(address), await house.connect(address)

    with pytest.raises((OSError, EOFError)):
        await house.connect(address)

    assert (house.listeners.counters.accepted, house.listeners.counters.refused) == (2, 1)
    await first.close()
    await conversations[0].closing()
    third = await house.connect(address)
    for peer in (second, third):
        await peer.send(b"hello")
        assert await peer.read(5) == b"hello"


async def test_limits_hold_for_all_doors_together_and_for_plain_ones(build: Callable[..., House]) -> None:
    house = build(max_connections=1)
    secure = await house.door(Conversations().open, name="secure")
    plain = await house.door(Conversations().open, name="plain", tls=False)
    await house.connect(secure)

    refused = await house.connect_plain(plain)

    assert await refused.rest() == b""
    assert house.listeners.open_connections() == {"secure": 1, "plain": 0}


async def test_a_plain_door_passes_bytes_on(house: House) -> None:
    conversations = Conversations(Echo)
    peer = await house.connect_plain(await house.door(conversations.open, tls=False))
    await peer.send(b"hello")

    assert await peer.read(5) == b"hello"
    assert (conversations[0].stream.peer.chain, conversations[0].stream.peer.tls_version) == ((), "")
    peer.writer.write_eof()
    assert await peer.rest() == b""
    assert await conversations[0].closing() == "closed by peer"


async def test_draining_lets_every_conversation_say_goodbye(house: House) -> None:
    class Polite(Recorder):
        def stopping(self) -> None:
            self.stream.write(b"goodbye")
            super().stopping()

    conversations = Conversations(Polite)
    addresses = [await house.door(conversations.open), await house.door(conversations.open, tls=False)]
    peers = [await house.connect(addresses[0]), await house.connect_plain(addresses[1])]
    await conversations.nth(1)

    draining = asyncio.create_task(house.listeners.drain(5.0))
    for peer in peers:
        assert await peer.rest() == b"goodbye"
        await peer.close()
    await draining

    assert [each.reasons for each in conversations] == [["server stops"]] * 2
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            await house.connect_plain(address)


async def test_what_does_not_end_in_time_is_cut(house: House, caplog: pytest.LogCaptureFixture) -> None:
    class Stays(Recorder):
        def stopping(self) -> None:
            self.stops += 1

    conversations = Conversations(Stays)
    address = await house.door(conversations.open)
    await house.connect(address)
    conversation = await conversations.first()

    await house.listeners.drain(0.05)

    assert (conversation.stops, len(conversation.reasons)) == (1, 1)
    assert "connections cut at stop" in caplog.text


async def test_draining_does_not_wait_for_handshakes(house: House) -> None:
    address = await house.door(Conversations().open)
    client = MemoryClient(house.client_context())
    client.socket.connect(address)
    await asyncio.sleep(0.05)
    assert house.listeners.open_connections() == {"door": 1}

    await asyncio.wait_for(house.listeners.drain(5.0), 1.0)

    await client.close()


async def test_a_protocol_without_a_goodbye_is_closed_when_the_server_stops(house: House) -> None:
    (address,) = await house.listeners.open_door("door", "127.0.0.1", 0, asyncio.Protocol, tls=False)
    peer = await house.connect_plain(address)
    await asyncio.sleep(0.05)

    draining = asyncio.create_task(house.listeners.drain(5.0))

    assert await peer.rest() == b""
    await peer.close()
    await asyncio.wait_for(draining, 1.0)


async def test_a_closed_door_keeps_its_guests(house: House) -> None:
    address = await house.door(Conversations(Echo).open)
    peer = await house.connect(address)

    house.listeners.close_door("door")
    await asyncio.sleep(0.01)

    with pytest.raises(ConnectionRefusedError):
        await house.connect(address)
    await peer.send(b"hello")
    assert await peer.read(5) == b"hello"


async def test_the_doors_of_one_host_are_closed_and_the_others_stay(house: House) -> None:
    conversations = Conversations(Echo)
    first = await house.door(conversations.open)
    second = (
        await house.listeners.open_door(
            "door", "127.0.0.2", first.port, lambda: Stream("door", conversations.open)
        )
    )[0]
    peer = await house.connect(second)

    house.listeners.close_doors_at("127.0.0.2")
    await asyncio.sleep(0.01)

    with pytest.raises(ConnectionRefusedError):
        await house.connect(second)
    await peer.send(b"hello")
    assert await peer.read(5) == b"hello"
    assert house.listeners.open_connections() == {"door": 1}
    other = await house.connect(first)
    await other.close()
    await peer.close()

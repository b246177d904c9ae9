"""Where a server is reached: further addresses, names, and a certificate that covers both."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterable
from ipaddress import ip_address
from pathlib import Path

import pytest

from moorage.errors import Invalid, Unavailable
from moorage.net.doors import DoorOffer, Doors
from moorage.net.frontage import LocalFrontage
from moorage.net.listener import Address, Listeners, PortTaken

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")


class Certificate:
    """Notes what it is to cover."""

    chain_file = key_file = Path("none")
    ca_file: Path | None = None
    bundle_file: Path | None = None

    def __init__(self) -> None:
        self.covered: list[str] = []
        self.broken = False

    def cover(self, names: Iterable[str]) -> None:
        if self.broken:
            raise Invalid("hostNames", "not covered")
        self.covered += names


class PlainListeners(Listeners):
    """Doors without TLS."""

    async def open_door(self, name, hosts, port, protocol, *, tls=True):  # type: ignore[no-untyped-def]
        return await super().open_door(name, hosts, port, protocol, tls=False)


@pytest.fixture
async def listeners() -> AsyncIterator[Listeners]:
    opened = PlainListeners()
    yield opened
    await opened.drain(1.0)


@pytest.fixture
def port() -> int:
    """One that is free at every address of the tests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture
def doors(listeners: Listeners, port: int) -> Doors:
    return Doors(
        listeners,
        [DoorOffer("mqtt", port, asyncio.Protocol), DoorOffer("https", port + 1, asyncio.Protocol, 0)],
    )


@pytest.fixture
def certificate() -> Certificate:
    return Certificate()


@pytest.fixture
async def frontage(doors: Doors, listeners: Listeners, certificate: Certificate) -> LocalFrontage:
    await doors.open("127.213.7.41")
    return LocalFrontage(doors, listeners, certificate)


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


async def test_a_door_for_loopback_alone(port: int) -> None:
    opened: list[tuple[str, str, bool]] = []

    class Noting(Listeners):
        async def open_door(self, name, hosts, port, protocol, *, tls=True):  # type: ignore[no-untyped-def]
            opened.append((name, hosts, tls))
            return (Address(hosts, port),)

    plain = DoorOffer("plain", port, asyncio.Protocol, tls=False, loopback_only=True)
    doors = Doors(Noting(), [DoorOffer("mqtt", port + 1, asyncio.Protocol), plain])
    for host in ("127.0.0.1", "::1", "0.0.0.0", "::", "192.0.2.7"):
        await doors.open(host)
    assert [(host, tls) for name, host, tls in opened if name == "plain"] == [
        ("127.0.0.1", False),
        ("::1", False),
    ]
    assert {(host, tls) for name, host, tls in opened if name == "mqtt"} == {
        (host, True) for host in doors.open_at
    }
    assert [host for host, open_ in doors.open_at.items() if "plain" in open_] == ["127.0.0.1", "::1"]


async def test_the_next_address_that_is_not_taken(
    frontage: LocalFrontage, doors: Doors, certificate: Certificate, port: int
) -> None:
    admitted = await frontage.admit("beta", [], {"127.213.7.42"})

    assert admitted == ("127.213.7.43",)
    assert certificate.covered == ["127.213.7.43"]
    assert answers("127.213.7.43", port)
    assert doors.open_at["127.213.7.43"]["mqtt"] == ("127.213.7.43", port)

    await frontage.dismiss(admitted)

    assert not answers("127.213.7.43", port)
    assert answers("127.213.7.41", port)


async def test_an_address_of_somebody_else_is_passed_over(
    frontage: LocalFrontage, doors: Doors, port: int
) -> None:
    with socket.create_server(("127.213.7.42", port)):
        assert await frontage.admit("beta", [], ()) == ("127.213.7.43",)
    assert set(doors.open_at) == {"127.213.7.41", "127.213.7.43"}


async def test_a_port_that_is_taken_has_another_where_there_is_one(
    frontage: LocalFrontage, doors: Doors, port: int
) -> None:
    with socket.create_server(("127.213.7.42", port + 1)):
        await frontage.admit("beta", [], ())
    assert doors.open_at["127.213.7.42"]["https"].port not in (port + 1, 0)
    assert [(error.host, error.port) for error in doors.displaced] == [("127.213.7.42", port + 1)]


async def test_an_address_asked_for_and_taken(frontage: LocalFrontage, doors: Doors, port: int) -> None:
    with socket.create_server(("127.213.7.99", port)), pytest.raises(PortTaken):
        await frontage.admit("beta", ["127.213.7.98", "127.213.7.99"], ())
    assert set(doors.open_at) == {"127.213.7.41"}, "none of them is left open"


async def test_an_address_that_is_not_here(frontage: LocalFrontage, doors: Doors) -> None:
    with pytest.raises(Unavailable, match="give the hub an address of this machine"):
        await frontage.admit("beta", ["192.0.2.77"], ())


async def test_macos_is_told_how_to_get_an_address(
    frontage: LocalFrontage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("moorage.net.frontage.LOOPBACK", [ip_address("192.0.2.77")])
    with pytest.raises(Unavailable, match=r"sudo ifconfig lo0 alias 192\.0\.2\.77 up"):
        await frontage.admit("beta", ["192.0.2.77"], ())


async def test_a_certificate_that_cannot_cover_it_leaves_no_door(
    frontage: LocalFrontage, doors: Doors, certificate: Certificate
) -> None:
    certificate.broken = True
    with pytest.raises(Invalid):
        await frontage.admit("beta", [], ())
    assert set(doors.open_at) == {"127.213.7.41"}


async def test_names_are_covered_and_open_nothing(
    frontage: LocalFrontage, doors: Doors, certificate: Certificate
) -> None:
    assert await frontage.admit("beta", ["beta.example.net", "127.213.7.41"], ()) == (
        "beta.example.net",
        "127.213.7.41",
    )
    assert certificate.covered == ["beta.example.net", "127.213.7.41"]

    await frontage.dismiss(["beta.example.net", "127.213.7.41"])

    assert set(doors.open_at) == {"127.213.7.41"}, "the server's own address stays open"


async def test_under_a_domain_hubs_have_names(
    doors: Doors, listeners: Listeners, certificate: Certificate
) -> None:
    await doors.open("127.213.7.41")
    frontage = LocalFrontage(doors, listeners, certificate, "example.org")
    assert await frontage.admit("Beta", [], ()) == ("beta.example.org",)
    with pytest.raises(Invalid, match="in use"):
        await frontage.admit("dps", [], {"dps.example.org"})


class Everywhere(Doors):
    """As if it listened at every address there is."""

    def __init__(self, listeners: Listeners) -> None:
        super().__init__(listeners, [])
        self._open = {"0.0.0.0": {}}


async def test_where_there_is_no_next_address_a_name_is_asked_for(
    listeners: Listeners, certificate: Certificate
) -> None:
    doors = Everywhere(listeners)
    frontage = LocalFrontage(doors, listeners, certificate)
    with pytest.raises(Invalid, match="give the hub a host name"):
        await frontage.admit("beta", [], ())
    assert await frontage.admit("beta", ["127.0.0.2"], ()) == ("127.0.0.2",)
    assert set(doors.open_at) == {"0.0.0.0"}

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from moorage.cli import ports
from moorage.cli.ports import Port, holder, probe

ADDRESS = "127.33.1.1"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((ADDRESS, 0)) as listening:
        yield listening.getsockname()[1]


def test_a_port_is_free_or_taken_on_one_address(taken: int) -> None:
    assert probe(ADDRESS, taken) is Port.TAKEN
    assert probe("127.33.1.2", taken) is Port.FREE


def test_probing_leaves_the_port_free() -> None:
    with socket.create_server((ADDRESS, 0)) as listening:
        port = listening.getsockname()[1]
    assert probe(ADDRESS, port) is Port.FREE
    assert probe(ADDRESS, port) is Port.FREE


def test_an_address_of_another_machine_is_none_of_ours() -> None:
    assert probe("192.0.2.1", 8883) is Port.NO_ADDRESS


def test_a_port_that_this_user_may_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: object, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    assert probe(ADDRESS, 443) is Port.NOT_PERMITTED


def test_the_holder_is_named(taken: int) -> None:
    found = holder(ADDRESS, taken)
    assert found is not None
    assert found.pid == os.getpid()
    assert str(found) == f"{found.name} (process id {os.getpid()})"
    assert holder("127.33.1.2", taken) is None


def test_who_listens_everywhere_holds_each_address() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listening:
        found = holder(ADDRESS, listening.getsockname()[1])
    assert found is not None
    assert found.pid == os.getpid()


def test_elsewhere_than_on_linux_nobody_is_named(
    taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "PROC", tmp_path)
    assert holder(ADDRESS, taken) is None


@pytest.mark.parametrize(
    ("printed", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000", "0.0.0.0"),
        ("00000000000000000000000001000000", "::1"),
        ("0000000000000000FFFF00000100007F", "::ffff:127.0.0.1"),
    ],
)
def test_addresses_as_the_kernel_prints_them(printed: str, address: str) -> None:
    assert ports._address(printed) == ip_address(address)

"""Every test of this room runs on each event loop there is, and those of TLS with both ways to call OpenSSL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from moorage.net.listener import Listeners
from moorage.net.tls import TlsContext
from tests.net.credentials import Credential, issue
from tests.net.house import House

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}

try:
    import uvloop
except ImportError:  # Windows has none
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return LOOPS


@pytest.fixture(scope="session")
def server() -> Credential:
    return issue("localhost", names=["localhost", "127.0.0.1"], authority=True)


@pytest.fixture(scope="session")
def device() -> Credential:
    return issue("device-1")


@pytest.fixture(params=[True, False], ids=["private", "public"])
def private_calls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def tls(server: Credential, tmp_path: Path, private_calls: bool) -> TlsContext:
    return TlsContext(*server.write(tmp_path, "server"), private_calls=private_calls)


@pytest.fixture
async def build(server: Credential, tls: TlsContext, tmp_path: Path) -> AsyncIterator[Callable[..., House]]:
    """Makes houses from the arguments of Listeners. In the end nothing may have gone wrong on the loop unseen."""
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    houses: list[House] = []

    def make(**settings: Any) -> House:
        settings.setdefault("close_timeout", 1.0)
        house = House(Listeners(tls, **settings), tls, server, tmp_path)
        houses.append(house)
        return house

    yield make
    for house in houses:
        await house.shut()
    await asyncio.sleep(0)
    assert unhandled == []


@pytest.fixture
def house(build: Callable[..., House]) -> House:
    return build()

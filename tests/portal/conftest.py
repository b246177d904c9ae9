"""The portal of a whole server in this process, and somebody who is signed in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moorage.app import Server
from moorage.portal.api import Api, Service
from tests.support.visitor import Visitor, open_server


@pytest.fixture(scope="session")
def ca_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One CA for all servers: making one takes longer than a start."""
    return tmp_path_factory.mktemp("portal-ca")


@pytest.fixture
async def server(ca_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    async with open_server(ca_folder) as started:
        yield started


@pytest.fixture
async def visitor(server: Server) -> Visitor:
    """Signed in."""
    visitor = Visitor(server)
    await visitor.sign_in()
    return visitor


@pytest.fixture
def dps(server: Server) -> Service:
    """The provisioning service of the same server, as the portal calls it."""
    return Api(server.inside_api()).dps

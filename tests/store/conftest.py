from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pytest

from moorage.interfaces import Kind


@dataclass(frozen=True)
class Buoy:
    name: str
    etag: str = "1"
    light: str = "r"
    log: str = ""


@pytest.fixture
def buoys() -> Kind[Any]:
    """A kind of record, in a table that the migrations make for another."""
    return Kind[Buoy](
        name="device_identity",
        key=lambda buoy: buoy.name,
        to_document=asdict,
        from_document=lambda document: Buoy(**document),
        index={"light": lambda buoy: [buoy.light]},
    )


@pytest.fixture
def buoy() -> type[Buoy]:
    return Buoy

"""Where a device or module of a hub is found: on the portal's pages, and in the APIs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from moorage.portal.api import segment

DOTS = (".", "..")
"""Ids may be these, which browsers take for steps in a path: on pages a tilde stands before them, which no id holds."""


def devices_path(hub: str) -> str:
    """The page of all devices of a hub."""
    return f"/hubs/{segment(hub)}/devices"


@dataclass(frozen=True, slots=True)
class Address:
    """A device of a hub or, with `module`, a module of it."""

    hub: str
    device: str
    module: str | None = None

    @classmethod
    def of(cls, request: Request) -> Address:
        """The one that a page's path names."""
        named = request.path_params
        module = named.get("module")
        return cls(named["hub"], _read(named["device"]), None if module is None else _read(module))

    @property
    def name(self) -> str:
        """Its own id."""
        return self.device if self.module is None else self.module

    @property
    def of_device(self) -> Address:
        return Address(self.hub, self.device)

    def of_module(self, module: str) -> Address:
        return Address(self.hub, self.device, module)

    @property
    def page(self) -> str:
        return f"{devices_path(self.hub)}/{_write(self.device)}{self._below(_write)}"

    @property
    def identity(self) -> str:
        """In the registry of its hub."""
        return f"/devices/{segment(self.device)}{self._below(segment)}"

    @property
    def twin(self) -> str:
        return f"/twins/{segment(self.device)}{self._below(segment)}"

    @property
    def control(self) -> str:
        """In `/moorage/v1`."""
        return f"/moorage/v1/hubs/{segment(self.hub)}/devices/{segment(self.device)}{self._below(segment)}"

    def _below(self, write: Callable[[str], str]) -> str:
        return "" if self.module is None else f"/modules/{write(self.module)}"


def assigned_device(hubs: Sequence[Mapping[str, Any]], state: Mapping[str, Any] | None) -> Address | None:
    """The device that a registration has led to; None where there is none, or not in a hub of this server."""
    if not state or not state.get("deviceId"):
        return None
    host = str(state.get("assignedHub")).lower()
    for hub in hubs:
        if host in [name.lower() for name in hub["hostNames"]]:
            return Address(hub["name"], state["deviceId"])
    return None


def _write(name: str) -> str:
    return segment(f"~{name}" if name in DOTS else name)


def _read(text: str) -> str:
    return text[1:] if text.startswith("~") and text[1:] in DOTS else text
